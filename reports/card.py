"""The data set card of a release: what a hub, or a reader of the folder, must know of it."""

from typing import Any

import pandas as pd

from ..pipeline.record import RunRecord
from ..pipeline.release import ROWS, Release
from ..pipeline.schema import COLUMN_NAMES, COLUMNS

TAGS = ("timm", "representation-learning", "transferability", "leaderboard")


def card_context(rows: pd.DataFrame) -> dict[str, Any]:
    """What the card shows beyond what the page does."""
    known = [column for column in COLUMNS if not rows[column.name].isna().all()]
    return {
        "columns": known,
        "further": [str(name) for name in rows.columns if name not in COLUMN_NAMES],
    }


def front_matter(release: Release, run: RunRecord) -> str:
    """The card's head in YAML, which the hub reads: license, tags, and which file the data viewer shows."""
    from huggingface_hub import DatasetCardData

    head = DatasetCardData(
        pretty_name=release.title,
        license=release.license or "unknown",
        tags=[*TAGS, run.subset.dataset.partition("/")[0]],
        configs=[{"config_name": "default", "data_files": ROWS}],
    )
    return f"---\n{head.to_yaml()}\n---\n\n"
