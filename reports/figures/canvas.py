"""Shared parts of all figures: style, title, legend, and rendering to files.

Only Matplotlib's object interface is used (no pyplot, no global state), and the same rows give the same bytes.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

# Okabe and Ito's colours without yellow, which is too pale on white; markers distinguish groups without colour.
_SEVEN = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333")
COLOURS = (*_SEVEN, *_SEVEN[:3])
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<")
DPI = 150  # of the PNG files
INK, QUIET, GRID = "#222222", "#666666", "#e4e4e4"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.hashsalt": "dsmi-zoo",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Rendered:
    """A figure as files, and its alternative text."""

    png: bytes
    svg: bytes
    description: str
    figure: Figure | None = field(default=None, repr=False, compare=False)

    def pdf(self) -> bytes:
        """Return the figure as PDF, byte-identical for the same drawing; pages do without it, because it is slow."""
        assert self.figure is not None
        pdf = BytesIO()
        with _boxes_for_missing_characters():
            # Omit the date and the program, which Matplotlib records by default.
            self.figure.savefig(
                pdf,
                format="pdf",
                metadata={"CreationDate": None, "Creator": None, "Producer": None},
            )
        return pdf.getvalue()


@contextmanager
def _boxes_for_missing_characters() -> Iterator[None]:
    """Show a character that is missing from the font as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def head(axes: Axes, title: str, caption: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=24 if caption else 8)
    style: dict[str, Any] = {"fontsize": 9.5, "color": QUIET, "va": "bottom"}
    axes.text(0, 1.025, one_line(caption, 90), transform=axes.transAxes, **style)


def nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)
    axes.set(xticks=[], yticks=[])


def legend(figure: Figure, handles: Sequence[Line2D], room: int = 84) -> None:
    """Add a legend below the axes, in as many columns as fit into ``room`` characters."""
    if handles:
        widest = max(len(str(h.get_label())) for h in handles)
        columns = max(1, min(len(handles), room // (widest + 6)))
        figure.legend(
            handles=list(handles),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8.5,
            handletextpad=0.5,
            columnspacing=1.4,
            labelcolor=INK,
        )


def one_line(text: str, longest: int) -> str:
    """Return the text as one printable line; a leading underscore, which hides a legend label, gets a prefix."""
    line = " ".join(re.sub(r"[^\S ]", " ", text).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    line = "\N{WORD JOINER}" + line if line.startswith("_") else line
    return line if len(line) <= longest else line[: longest - 1] + "…"


def render(figure: Figure, description: str, is_for_files: bool = True) -> Rendered:
    """Return the figure as PNG and SVG, byte-identical for one drawing; the PNG is empty unless ``is_for_files``."""
    svg = BytesIO()
    with _boxes_for_missing_characters():
        # Compute the layout once, for the PNG; otherwise each drawing would compute it again, twice.
        figure.set_dpi(DPI)
        agg = FigureCanvasAgg(figure)
        engine = figure.get_layout_engine()
        if engine is not None and figure.axes:
            engine.execute(figure)
            figure.set_layout_engine(None)
        png = b""
        if is_for_files:
            agg.draw()
            png = _with_a_palette(agg)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Rendered(png, svg.getvalue(), description, figure)


def _with_a_palette(drawn: FigureCanvasAgg) -> bytes:
    """Return a drawing as PNG with at most 128 colours, a third of the size of one with all colours."""
    pixels = Image.frombuffer("RGBA", drawn.get_width_height(), drawn.buffer_rgba())
    png = BytesIO()
    few = pixels.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(png, "PNG", optimize=True)
    return png.getvalue()
