"""The section on fine-tuned models: which is best, by how much, and whether the ranking predicted it."""

from pathlib import Path
from typing import Any

import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.store.finetuned import read_finetuned_row
from dsmi_zoo.pipeline.store.record import RunRecord

from ..statistics.finetuned import AfterTuning, Tuned, after_tuning
from ..statistics.ranking import Quantity
from ..wording import fixed, p_in_words, p_value, significant
from .rendering import AnyCell, Section, Table, number, prose, table_of_words

CLEAR = 0.05
STATIC_TITLES = {"top1": "published top-1", "embedding_dim": "embedding dimension"}


def tuned_models(
    rows: pd.DataFrame, run: RunRecord, quantity: Quantity, folder: Path
) -> AfterTuning | None:
    """Return the fine-tuned models of a run; None if there are none."""
    embeddings = dict(zip(rows["row_id"], rows["embedding_id"], strict=True))
    found = {}
    for entry in run.entries:
        row = read_finetuned_row(folder, entry.slug)
        if row is not None and row["embedding_id"] == embeddings.get(entry.row_id):
            found[entry.row_id] = row
    try:
        return after_tuning(rows, found, quantity) if found else None
    except ValueError as error:
        raise InputError(
            f"{folder / 'finetuned'}: {error}; delete it and fine-tune again"
        ) from None


def tuned_section(after: AfterTuning, quantity: Quantity) -> Section:
    """Return the section on fine-tuned models."""
    text = prose(
        "finetuned",
        answer=tuned_answer(after, quantity),
        images=str(after.images),
        trainings=str(after.trainings),
        failed="; ".join(f"{name}: {why}" for name, why in after.failed),
    )
    return Section("finetuned", "After fine-tuning", text, [_table(after)])


def tuned_answer(after: AfterTuning, quantity: Quantity) -> str:
    """Return sentences on the best model after fine-tuning, its lead, and whether the ranking predicted it."""
    best, title = after.best, quantity.title.replace("probe ", "")
    reaches = f"{best.finalist.name} reaches {_with_interval(best)} {title} after fine-tuning"
    if not after.beats_baseline:
        return (
            f"{reaches}, which is not shown to be better than always naming the largest class "
            f"({fixed(after.baseline, 1)}%)."
        )
    if len(after.models) == 1:
        return f"{reaches}."
    others = [one for one in after.tied if one is not best]
    second = after.models[1]
    lead = f"{fixed(best.accuracy - second.accuracy, 1)} points above {second.finalist.name}"
    if others:
        names = ", ".join(one.finalist.name for one in others)
        sentences = [f"{reaches}, {lead}; not shown to be better than {names}."]
    else:
        p = p_in_words(max(one.p_holm for one in after.models if one.p_holm is not None))
        sentences = [f"{reaches}, {lead} and better than every other by more than chance (p {p})."]
    return " ".join([*sentences, _ranking_agreement(after)])


def _ranking_agreement(after: AfterTuning) -> str:
    first = after.of_probe
    if first is after.best:
        return "The ranking had it first, too."
    behind = fixed(after.best.accuracy - first.accuracy, 1)
    p = first.p_holm
    chance = "may be chance" if p is None or p > CLEAR else "is more than chance"
    return f"The ranking had {first.finalist.name} first, which is {behind} points behind; that {chance}."


def _with_interval(one: Tuned) -> str:
    return f"{fixed(one.accuracy, 1)}% ({fixed(one.low, 1)} to {fixed(one.high, 1)})"


def _table(after: AfterTuning) -> Table:
    heads = (
        "Model", "Rank before", "Before (%)", "Fine-tuned (%)", "SD over trainings", "p (Holm)", "Minutes",
        "Memory (GB)", "Note",
    )  # fmt: skip
    rows: list[list[AnyCell]] = []
    for one in after.models:
        static = one.finalist.static
        rows.append(
            [
                one.finalist.name,
                str(one.finalist.place),
                fixed(one.finalist.probe, 1),
                number(one.accuracy, (one.low, one.high), digits=1),
                fixed(one.spread, 1),
                p_value(one.p_holm),
                significant(one.minutes),
                significant(one.memory_gb),
                "" if static is None else f"highest {STATIC_TITLES[static]}",
            ]
        )
    return table_of_words(None, heads, rows, text_columns=(0, 8))


def summary_of(after: AfterTuning, quantity: Quantity) -> dict[str, Any]:
    """Return the part ``finetuned`` of ``summary.json``."""
    return {
        "answer": tuned_answer(after, quantity),
        "models": after.as_json(),
        "failed": [{"model": name, "reason": why} for name, why in after.failed],
        "held_out_images": after.images,
        "trainings": after.trainings,
    }
