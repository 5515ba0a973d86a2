"""Write the pages generated from the code: ``python docs/generate.py`` after a setting or a column has changed."""

from pathlib import Path

from dsmi_zoo.pipeline.config.run import settings_table
from dsmi_zoo.pipeline.store.schema import markdown_table

HERE = Path(__file__).parent

SETTINGS = """# Settings

Every setting of a run: an option of `dsmi-zoo run`, a key of the `--config` file (`subset.seed` is `seed` in the table
`[subset]`), and, with `_` for `-`, a keyword of `dsmi_zoo.run`. The command line overrides the file. *This page is
generated.*

{table}
"""

COLUMNS = """# Columns

One row per entry: these columns, then the catalogue's other columns and your own measures. An empty value is unknown,
not computed, or undefined; for scores, `undefined_scores` says why. *This page is generated.*

Each score but `dsmi_z_y_null` also has its standard error over images, in its unit: `dse_z_se` and so on. That is its
spread over other images of the same classes, as many of each.

{table}
"""


def pages() -> dict[Path, str]:
    """Return the content of each generated page, by its path."""
    return {
        HERE / "settings.md": SETTINGS.format(table=settings_table()),
        HERE / "columns.md": COLUMNS.format(table=markdown_table()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
