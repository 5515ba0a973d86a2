"""How dense the code is: tokens in a line, comments, and the longest functions and files.

    python benchmarks/code_figures.py                  # of this folder
    python benchmarks/code_figures.py /path/to/other   # of another copy, or of any package

A line of code is one that holds a token other than a comment or a docstring. Punctuation counts as a token.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

OURS = ("data_catalog", "pipeline", "reports", "jobs", "dsmi_zoo")
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Source(NamedTuple):
    """What one file holds."""

    tokens_by_line: Counter[int]
    comments: int
    function_lengths: dict[str, int]


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def read(path: Path) -> Source:
    """Count the tokens, comments and lengths of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    skipped = docstring_lines(tree)
    tokens: Counter[int] = Counter()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in NOT_CODE and token.start[0] not in skipped:
            tokens[token.start[0]] += 1
    lengths = {
        f"{path.name}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return Source(tokens, comments, lengths)


def main() -> None:
    """Print the figures of a folder."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    folders = [root / name for name in OURS if (root / name).is_dir()] or [root]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    sources = {path: read(path) for path in paths}

    lines = [count for source in sources.values() for count in source.tokens_by_line.values()]
    lengths = {
        name: length
        for source in sources.values()
        for name, length in source.function_lengths.items()
    }
    comments = sum(source.comments for source in sources.values())
    longest_function = max(lengths, key=lambda name: lengths[name])
    file_lengths = {path: len(path.read_text().splitlines()) for path in paths}
    longest_file = max(file_lengths, key=lambda path: file_lengths[path])

    print(f"{len(paths)} files, {len(lines):,} lines of code")
    ninetieth = statistics.quantiles(lines, n=10)[-1]
    print(f"tokens in a line: mean {statistics.mean(lines):.1f}, 90th percentile {ninetieth:.0f}")
    print(f"comments in 100 lines of code: {100 * comments / len(lines):.1f}")
    spread = statistics.quantiles(lengths.values(), n=20)
    print(f"lines of a function: median {spread[9]:.0f}, 95th percentile {spread[18]:.0f}")
    print(f"longest function: {longest_function}, {lengths[longest_function]} lines")
    print(f"longest file: {longest_file.relative_to(root)}, {file_lengths[longest_file]} lines")


if __name__ == "__main__":
    main()
