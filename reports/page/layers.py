"""The section on the layers of networks: profiles over depth, and whether a layer is better than the penultimate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted

from ..figures.curves import Line, Panel, curves
from ..statistics.layers import SCORES, Depths, Profile, of_family
from ..wording import fixed, measure_title, measure_unit, p_in_words
from .rendering import AnyCell, Illustration, Section, Table, number, prose, table_of_words

MOST_LINES = 8  # models that one figure can show
CLEAR = 0.05
PENULTIMATE = "penultimate"


@dataclass(frozen=True)
class LayersPart:
    """The section, and the table of all layers for ``layers.csv``."""

    section: Section
    table: pd.DataFrame


def layers_part(depths: Depths) -> LayersPart:
    """Return the section on layers, and the table of all layers."""
    text = prose("layers", found=_found(depths.profiles), choice=_chosen(depths))
    figures = _figures(depths.profiles)
    section = Section("layers", "Layers", text, [_best_table(depths.profiles)], figures)
    return LayersPart(section, _table(depths.profiles))


def _found(profiles: Sequence[Profile]) -> str:
    """Return a sentence on the number of networks in which another layer is better than the penultimate."""
    known = [one.best for one in profiles if one.best is not None]
    if not known:
        return ""
    better = [best for best in known if best.p_holm is not None and best.p_holm < CLEAR]
    others = sum(best.layer is not None for best in known) - len(better)
    of = f"In {len(better)} of {counted(len(known), 'network')} another layer is shown to be better"
    return f"{of}, in {others} the lead of another may be chance."


def _chosen(depths: Depths) -> str:
    """Return a sentence on whether choosing the layer, too, changes which model is chosen."""
    choice = depths.choice
    if choice is None:
        return ""
    if choice.is_same:
        return f"By the penultimate layer and by any layer one chooses the same model, {choice.penultimate}."
    may = ", but the two cannot be told apart" if choice.may_be_chance else ""
    return f"By the penultimate layer one chooses {choice.penultimate}, by any layer {choice.any_layer}{may}."


def _figures(profiles: Sequence[Profile]) -> list[Illustration]:
    """Draw the profile of each model if they are few, and of each family if any has several models."""
    figures = []
    if len(profiles) <= MOST_LINES:
        figures.append(_drawn("layers_models", "each model", _lines_of_models(profiles)))
    families: dict[str, list[Profile]] = {}
    for one in profiles:
        families.setdefault(one.family, []).append(one)
    if len(families) < len(profiles):
        largest = sorted(families, key=lambda name: -len(families[name]))[:MOST_LINES]
        lines = _lines_of_families({name: families[name] for name in largest})
        figures.append(
            _drawn("layers_families", "each family, with the range of its models", lines)
        )
    return figures


def _lines_of_models(profiles: Sequence[Profile]) -> Callable[[str], list[Line]]:
    def lines(score: str) -> list[Line]:
        found = []
        for one in profiles:
            x = np.array([layer.depth for layer in one.layers])
            y = np.array([layer.scores[score] for layer in one.layers])
            known = np.isfinite(x) & np.isfinite(y)
            if known.any():
                found.append(Line(one.name, x[known], y[known], y[known], y[known]))
        return found

    return lines


def _lines_of_families(families: dict[str, list[Profile]]) -> Callable[[str], list[Line]]:
    def lines(score: str) -> list[Line]:
        found = []
        for name, profiles in families.items():
            x, y = of_family(profiles, score)
            if len(x):
                found.append(Line(name, x, y.mean(axis=1), y.min(axis=1), y.max(axis=1)))
        return found

    return lines


def _drawn(name: str, of: str, lines_of: Callable[[str], list[Line]]) -> Illustration:
    panels = []
    for score in SCORES:
        lines = lines_of(score)
        if lines:
            title = measure_title(score)
            panels.append(Panel(title, "relative depth", measure_unit(score), lines))
    titles = ", ".join(panel.title for panel in panels)
    description = f"{titles} over the depth of the layer in the network, of {of}."
    narrow = curves(panels, description, columns=1, is_for_files=False)
    caption = f"{description} Depth 1 is the penultimate layer."
    return Illustration(name, curves(panels, description, columns=2), caption, narrow)


def _best_table(profiles: Sequence[Profile]) -> Table:
    heads = [
        "Model",
        "Best layer",
        "Depth",
        "Probe (%)",
        "Penultimate (%)",
        "Chosen on other images (%)",
    ]
    rows: list[list[AnyCell]] = []
    for one in profiles:
        best = one.best
        if best is None:
            continue
        depth = next(layer.depth for layer in one.layers if layer.name == best.layer)
        p = "" if best.p_holm is None else f"p {p_in_words(best.p_holm)}"
        rows.append(
            [
                one.name,
                best.layer or PENULTIMATE,
                fixed(depth),
                (fixed(best.accuracy, 1), p),
                number(best.penultimate, digits=1),
                number(best.chosen_on_others, digits=1),
            ]
        )
    return table_of_words("Best layer by the ridge probe", heads, rows, text_columns=(0, 1))


def _table(profiles: Sequence[Profile]) -> pd.DataFrame:
    """Return every layer of every network, in the order of depth."""
    return pd.DataFrame(
        [
            {"model": one.model, "img_size": one.img_size, "family": one.family}
            | {"layer": layer.name or PENULTIMATE, "depth": layer.depth, **layer.scores}
            for one in profiles
            for layer in one.layers
        ]
    )
