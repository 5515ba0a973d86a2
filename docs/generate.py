"""Write the pages generated from the code: ``python docs/generate.py`` after a setting or a column has changed."""

from collections.abc import Iterable
from pathlib import Path

from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.config.run import settings_table
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES, COLUMNS

HERE = Path(__file__).parent

SETTINGS = """# Settings

Every setting of a run: an option of `dsmi-zoo run`, a key of the `--config` file (`subset.seed` is `seed` in the table
`[subset]`), and, with `_` for `-`, a keyword of `dsmi_zoo.run`. The command line overrides the file. *This page is
generated.*

{table}
"""

COLUMNS_PAGE = """# Columns

One row per entry. An empty value is unknown, not computed, or undefined; for scores, `undefined_scores` says why. *This
page is generated.*

## Scores

[Measures](measures.md#all-scores) says what each score is. Each also has a standard error, `dse_z_se` and so on, in the
same unit: its spread over other samples of as many images of the same classes.

{scores}

## Catalogue and settings

- From the [catalogue](catalogues.md), empty values filled in by timm: {entry}, and its other columns
- [Settings](settings.md) of the measures, as used: {settings}

## Other columns

Units are in brackets. Your own measures follow these columns.

{table}
"""

SETTINGS_OF_MEASURES = frozenset(MeasureSettings.model_fields) - {"precision"}
"""The column ``precision`` is that of the forward pass."""


def listed(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def columns_page() -> str:
    """Return the page of columns: scores by unit, names that other pages explain, and a table of the others."""
    columns = [column for column in COLUMNS if not column.name.endswith("_se")]
    scores = [column for column in columns if f"{column.name}_se" in COLUMN_NAMES]
    entry = [column.name for column in columns if column.name in ModelEntry.model_fields]
    settings = [column.name for column in columns if column.name in SETTINGS_OF_MEASURES]
    explained = {*(score.name for score in scores), *entry, *settings}
    units = sorted({score.unit for score in scores}, key=["bits", "nats", "%", ""].index)
    by_unit = [
        f"- {unit or 'no unit'}: {listed(score.name for score in scores if score.unit == unit)}"
        for unit in units
    ]
    lines = ["| column | meaning |", "| --- | --- |"]
    for column in columns:
        if column.name not in explained:
            unit = f" [{column.unit}]" if column.unit else ""
            lines.append(f"| `{column.name}` | {column.meaning}{unit} |")
    return COLUMNS_PAGE.format(
        scores="\n".join(by_unit),
        entry=listed(entry),
        settings=listed(settings),
        table="\n".join(lines),
    )


def pages() -> dict[Path, str]:
    """Return the content of each generated page, by its path."""
    return {
        HERE / "settings.md": SETTINGS.format(table=settings_table()),
        HERE / "columns.md": columns_page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
