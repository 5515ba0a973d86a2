"""What the page says of a search on a budget of time."""

from collections.abc import Collection
from typing import Any

from ..data_catalog.words import counted
from ..pipeline.record import Dropped, SearchNote
from .wording import fixed


def search_context(note: SearchNote | None, measured: Collection[str]) -> dict[str, Any] | None:
    """The stages of a search in words, and who was dropped on the way, the last ones first; None without a search.

    Models that are ``measured`` on all images by now were not dropped for good.
    """
    if not note:
        return None
    stages = []
    dropped: list[dict[str, Any]] = []
    for stage in note.stages:
        stages.append(
            f"{counted(stage.models, 'model')} on {stage.images} images ({stage.seconds:.0f} s)"
        )
        for_good = [entry for entry in stage.dropped if entry.model not in measured]
        dropped = [*(_dropped(entry, stage.images) for entry in for_good), *dropped]
    return {
        "words": f"With {note.budget_s:.0f} s to spend: {'; then '.join(stages)}.",
        "left_out": [model for model in note.left_out if model not in measured],
        "dropped": dropped,
    }


def _dropped(entry: Dropped, images: int) -> dict[str, Any]:
    return {
        "model": entry.model,
        "images": images,
        "accuracy": fixed(entry.accuracy, 1),
        "ci": f"{fixed(entry.low, 1)} to {fixed(entry.high, 1)}",
        "reason": entry.reason,
    }
