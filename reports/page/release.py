"""The data set card of a release, and the notices on superseded ones."""

import html
from typing import Any

import pandas as pd

from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import ROWS, Release
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES, COLUMNS

TAGS = ("timm", "representation-learning", "transferability", "leaderboard")


def card_context(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the template variables of the card beyond those of the page."""
    known = [column for column in COLUMNS if not rows[column.name].isna().all()]
    return {
        "columns": known,
        "further": [str(name) for name in rows.columns if name not in COLUMN_NAMES],
    }


def front_matter(release: Release, run: RunRecord) -> str:
    """Return the YAML front matter of the card, for the hub: license, tags, and the file for the data viewer."""
    from huggingface_hub import DatasetCardData

    head = DatasetCardData(
        pretty_name=release.title,
        license=release.license or "unknown",
        tags=[*TAGS, run.subset.dataset.partition("/")[0]],
        configs=[{"config_name": "default", "data_files": ROWS}],
    )
    return f"---\n{head.to_yaml()}\n---\n\n"


MARK = "<!-- superseded -->"
"""The place of the notice in released pages and cards."""


def page_with_notice(page: str, newer: Release) -> str:
    """Return the page of an earlier release with a link to the newer one, two folders above."""
    words = html.escape(_words(newer))
    link = '<a href="../../index.html">Read that one.</a>'
    return page.replace(MARK, f'<p class="warning superseded" role="note">{words} {link}</p>', 1)


def card_with_notice(card: str, newer: Release) -> str:
    """Return the data set card of an earlier release with a link to the newer one."""
    return card.replace(MARK, f"> **{_words(newer)}** [Read that one.](../../README.md)", 1)


def _words(newer: Release) -> str:
    return f"Superseded by release {newer.id}."
