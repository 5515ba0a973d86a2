"""Malicious and merely odd names."""

SENTINEL = "window.struck=(window.struck||0)+1"
"""JavaScript that counts, in ``window.struck``, how often scripts in names have run."""

MARKUP = (
    f"</script><script>{SENTINEL}</script>",
    f"<img src=x onerror={SENTINEL}>",
    f"<svg onload={SENTINEL}>",
    f"\"><svg/onload='{SENTINEL}'>",
    f"' onmouseover='{SENTINEL}' x='",
    "<!--",
    "-->",
    "<!-- <script>",
    "]]>",
    "<![CDATA[ x ]]>",
    "<?xml version='1.0'?>",
    "</title></style></textarea><b>",
    "<base href='//example.invalid'>",
    "<style>*{display:none}</style>",
    "&lt;b&gt;",
    "&amp;lt;script&amp;gt;",
    "&#60;i&#62;&nosuch;&copy",
    "<a href=javascript:alert(1)>x</a>",
)
CODE = (
    "javascript:alert(1)",
    "${alert(1)}",
    "`+alert(1)+`",
    "';alert(1);//",
    '";alert(1);//',
    "\\';alert(1);//",
    "{{7*7}}",
    "{% raw %}{{ x }}",
    "{# gone #}",
    "#{7*7}<%= 7*7 %>",
    "%s%d%n{0}{x!r}",
    "@model @{model} @x{safe}",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "toString",
    "data:text/html,<b>x</b>",
    "../../../etc/passwd",
    "C:\\Windows\\nul",
)
FORMULAS = (
    "=cmd|'/C calc'!A0",
    '=HYPERLINK("http://example.invalid","x")',
    "+1+1",
    "-1+1",
    "@SUM(1+1)",
    "\t=1+1",
    "\r=1+1",
)
MARKDOWN = (
    "[x](http://example.invalid)",
    "![x](http://example.invalid/x.png)",
    "| a | b |",
    "***bold*** _it_ ~~no~~ `code`",
    "- item",
    "1. first",
    "# head ##",
    "> quoted",
    "---",
    "===",
    "```",
    "<http://example.invalid>",
)
MATHEMATICS = (
    r"$\frac{1}$",
    r"$\undefined{$",
    "$x^2$",
    "$$y$$",
    r"\(z\) and \[z\]",
    "_under_",
    r"\textbf{x} % comment",
)
UNICODE = (
    "line\u2028paragraph\u2029end",
    "next\x85line\x0bfeed\x0c",
    "bell\x07escape\x1b[31mdelete\x7f",
    "right\u202eleft\u202c and \u2066isolate\u2069",
    "مرحبا بالعالم",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "\u0301\u0302\u0303",
    "z\u0335\u0322a\u0336l\u0337g\u0338o",
    "zero\u200bwidth\ufeffno\u2060break",
    "\ufffe\uffff\U0010ffff",
    "ＡＢＣ　ｄｅｆ",
    "'single' \"double\" ‘curly’ “quotes”",
    "two\nlines",
    "x" * 5000,
)
NAMES = (*MARKUP, *CODE, *FORMULAS, *MARKDOWN, *MATHEMATICS, *UNICODE)
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def in_a_spreadsheet(text: str) -> str:
    """Return the text as it must appear in a CSV for spreadsheets: formulas get a leading apostrophe."""
    return f"'{text}" if text.startswith(FORMULA_BEGINS) else text
