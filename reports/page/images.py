"""Images to look at on the page of a choice: those that the best models disagree on, and those that none recognises."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.core.hits import unpacked

from ..statistics.classes import Images
from ..statistics.images import Judged, judged
from ..statistics.ranking import Ranking
from ..statistics.sample import names, succeeded
from .classes import OfModel
from .rendering import table_of_words

SHOWN = 10
Thumbnails = Callable[[Sequence[str]], dict[str, str]]
"""Returns the data URIs of some images by their names; of one that cannot be read, none."""


def judged_images(
    rows: pd.DataFrame,
    ranking: Ranking,
    images: Images,
    models: Sequence[OfModel],
    image_names: Sequence[str],
) -> Judged | None:
    """Return the images with the models that recognise them; None if no model beats the baseline."""
    ok = succeeded(rows)
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(ok))}
    able = [model for model in ranking.models if model.beats_baseline]
    if not able:
        return None
    packed = ok["probe_hits"].to_numpy()
    hits = np.array([unpacked(packed[place_of[one.model, one.img_size]]) for one in able])
    is_best = np.array([one.tied_for_first for one in able])
    return judged(images, image_names, hits, is_best, models[0].taken_for if models else None)


def images_context(found: Judged, thumbnails: Thumbnails | None) -> dict[str, Any] | None:
    """Return the template's variables; None if there is no image to look at."""
    parts = [_part(found, found.disputed, "disputed"), _part(found, found.missed, "missed")]
    if thumbnails is not None:
        shown = [name for part in parts for name in part["names"]]
        uris = thumbnails(shown)
        for part in parts:
            part["thumbnails"] = [
                (uris[name], caption)
                for name, caption in zip(part["names"], part["captions"], strict=True)
                if name in uris
            ]
    if not any(part["count"] for part in parts):
        return None
    best, models = (int(found.table[name].iloc[0]) for name in ("best", "models"))
    return {
        "disputed": parts[0],
        "missed": parts[1],
        "best": counted(best, "best model"),
        "models": counted(models, "model"),
    }


def _part(found: Judged, places: np.ndarray, what: str) -> dict[str, Any]:
    shown = found.table.iloc[places[:SHOWN]]
    heads, rows = ["Image", "Class", "Taken for"], []
    if what == "disputed":
        heads.append("Best models right")
    for row in shown.to_dict("records"):
        taken_for = "" if row["taken_for"] == row["class"] else row["taken_for"]
        right = f"{row['best_right']} of {row['best']}"
        rows.append([row["image"], row["class"], taken_for, right][: len(heads)])
    return {
        "count": len(places),
        "table": table_of_words(None, heads, rows, text_columns=(0, 1, 2)),
        "names": [row[0] for row in rows],
        "captions": [_caption(*row) for row in rows],
        "thumbnails": [],
    }


def _caption(image: str, of_class: str, taken_for: str, right: str = "") -> str:
    taken = f", taken for {taken_for}" if taken_for else ""
    return f"{image}: {of_class}{taken}" + (f"; {right} right" if right else "")
