"""How pages are written: content as HTML, numbers as JSON, figures as files; and the Markdown of a data set card."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dsmi_zoo._util.files import sweep_temporary, write_atomically
from dsmi_zoo._util.locks import exclusive

from ..figures.canvas import Rendered

LOCK = ".report.lock"
MAX_SVG = 160_000  # above which the PNG is smaller
# In Markdown: a list item, a rule, an underlined heading.
STARTS_A_BLOCK = re.compile(r"[-+=]|\d+[.)]( |$)")
_TEMPLATES: dict[str, Any] = {
    "loader": PackageLoader("dsmi_zoo.reports.page"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}


@dataclass(frozen=True)
class PageFiles:
    """The content of one page.

    Parameters
    ----------
    template
        The name of its template.
    context
        The template's variables.
    numbers
        The content of ``summary.json``.
    figures
        By file name, without the suffix.
    others
        Further files, by name.
    """

    template: str
    context: Mapping[str, Any]
    numbers: Mapping[str, Any]
    figures: Mapping[str, Rendered]
    others: Mapping[str, bytes] = field(default_factory=dict)

    def contents(self) -> dict[str, bytes]:
        """Return the content of each file by name, ``index.html`` last, because it links to the others."""
        files: dict[str, bytes] = {}
        for name, drawing in self.figures.items():
            files[f"figures/{name}.png"] = drawing.png
            files[f"figures/{name}.svg"] = drawing.svg
        numbers = json.dumps(self.numbers, indent=2, ensure_ascii=False, allow_nan=False)
        files["summary.json"] = encoded(numbers + "\n")
        files.update(self.others)
        files["index.html"] = encoded(as_html(self.template, self.context))
        return files

    def write(self, folder: Path) -> Path:
        """Write the page into ``folder``, delete the figures of an earlier page, and return the path of ``index.html``.

        Each file is replaced atomically. Of several processes one writes, and the others wait.
        """
        files = self.contents()
        with exclusive(folder / LOCK):
            for name, data in files.items():
                write_atomically(folder / name, partial(_write, data))
            for path in (folder / "figures").glob("*.*"):
                if path.suffix in (".png", ".svg") and f"figures/{path.name}" not in files:
                    path.unlink(missing_ok=True)
        for place in (folder, folder / "figures"):
            if place.is_dir():
                sweep_temporary(place)
        return folder / "index.html"


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def encoded(text: str) -> bytes:
    """Return the text as UTF-8; what cannot be encoded, such as a stray byte of a path, becomes a question mark."""
    return text.encode(errors="replace")


def as_html(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of HTML; values are escaped."""
    environment = Environment(**_TEMPLATES, autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(template).render(context)


def as_markdown(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of Markdown; values are shown literally, unless the template marks them ``safe``."""
    # Escaped here, so that the template cannot forget a value.
    environment = Environment(**_TEMPLATES, finalize=_escaped_for_markdown)
    return environment.get_template(template).render(context)


def prose(name: str, /, **words: str) -> str:
    """Return a paragraph as one line of plain text: the macro ``name`` of ``templates/prose.j2``."""
    return " ".join(str(getattr(_prose(), name)(**words)).split())


@cache
def _prose() -> Any:
    return Environment(**_TEMPLATES).get_template("prose.j2").module


def _escaped_for_markdown(value: Any) -> str:
    return str(value) if isinstance(value, Markup) else markdown_text(value)


def markdown_text(value: Any) -> str:
    """Return the text as one line of Markdown that shows it literally, also inside a table."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    line = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", line)
    line = re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) if STARTS_A_BLOCK.match(line) else line
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def figure_name(*parts: str) -> str:
    """Return a safe file name; names that had to be changed get a hash, so that no two figures share a file."""
    raw = "-".join(parts)
    safe = re.sub(r"[^a-z0-9_-]+", "-", raw.lower())[:80]
    if safe == raw:
        return safe
    return f"{safe}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:10]}"


def data_uri(drawing: Rendered) -> str:
    """Return a drawing as a data URI: SVG, unless it is very large."""
    is_small = len(drawing.svg) <= MAX_SVG
    kind, data = ("svg+xml", drawing.svg) if is_small else ("png", drawing.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def script_hash(script: str) -> str:
    """Return the hash by which a Content-Security-Policy admits an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
