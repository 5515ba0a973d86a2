"""Make the pages of the published boards again from their rows, when the docs site is built."""

from pathlib import Path

from dsmi_zoo.pipeline.store.release import EARLIER, is_release, read_published, write_sums
from dsmi_zoo.reports.page.build import write_page

BOARDS = Path(__file__).parent / "boards"
DATA = ("release.json", "rows.parquet", "run.json", "subset.parquet")


def on_post_build(config: dict[str, str], **_: object) -> None:
    """Write ``boards/NAME`` of the site: mkdocs calls this when all else is there."""
    for board in sorted(
        path for path in BOARDS.iterdir() if is_release(path) and path.name != EARLIER
    ):
        write_board(board, Path(config["site_dir"]) / "boards" / board.name)


def write_board(board: Path, target: Path) -> None:
    """The whole release of a board, as `dsmi-zoo verify` wants it, from its rows and settings."""
    target.mkdir(parents=True, exist_ok=True)
    for name in DATA:
        (target / name).write_bytes((board / name).read_bytes())
    published = read_published(target)
    write_page(published.rows, published.record, target, release=published.release)
    write_sums(target)
