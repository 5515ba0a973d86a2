"""Which arguments of a network a catalogue may give: those that shape it, none that fetch its weights."""

from collections.abc import Iterable

SOURCES = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
)  # fmt: skip


def sources_problem(model_kwargs: Iterable[str]) -> str:
    """What is wrong with arguments for timm by which it would load other weights than the entry's; empty if nothing.

    timm downloads what they name by itself, also where downloads are forbidden. For entries without a builder only: a
    builder may give such names a meaning of its own.
    """
    forbidden = [f"{name!r}" for name in SOURCES if name in model_kwargs]
    if not forbidden:
        return ""
    names = ", ".join(forbidden)
    return f"model_kwargs may not hold {names}: name a model's weights in the column weights or checkpoint"
