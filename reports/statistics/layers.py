"""Profiles over the layers of networks: scores by depth, and whether a layer other than the penultimate is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo.pipeline.measures.core.hits import unpack_hits

from .correlation import holm
from .paired import two_sided_p
from .ranking import ACCURACY, Quantity, tied_for_first
from .sample import (
    families_of,
    further_layers,
    known_number,
    names,
    networks_of,
    succeeded,
    texts,
    values,
)

SCORES = ("dse_z", "dsmi_z_y", "neighbour_accuracy", "probe_accuracy")
"""The columns that a profile shows."""
GRID = np.linspace(0, 1, 11)
"""The relative depths at which the models of a family are averaged."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network (None: the penultimate), the depth at its end (0 to 1), and its ``SCORES`` (NaN: none)."""

    name: str | None
    depth: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Best:
    """A network's best layer by the ridge probe, and the gain from choosing a layer other than the penultimate.

    Attributes
    ----------
    layer
        None if it is the penultimate.
    accuracy, penultimate
        In percent.
    p_holm
        The p value of the difference, by the exact paired test on the same images, after Holm's correction over the
        layers; None for the penultimate layer itself.
    chosen_on_others
        Accuracy (%) of layers chosen on one half of the images and scored on the other, over both halves.
    """

    layer: str | None
    accuracy: float
    penultimate: float
    p_holm: float | None
    chosen_on_others: float


@dataclass(frozen=True)
class Profile:
    """The layers of one network in the order of their depths; ``best`` is None without hits of the penultimate."""

    model: str
    img_size: int | None
    family: str
    layers: Sequence[Layer]
    best: Best | None = None

    @property
    def name(self) -> str:
        """The model's name, with its image size if that is known."""
        return self.model if self.img_size is None else f"{self.model}@{self.img_size}"


@dataclass(frozen=True)
class Choice:
    """The model chosen by its penultimate layer, and the model chosen by a layer that was selected on other images.

    They may differ by chance: ``may_be_chance`` is whether the first is tied with the second.
    """

    penultimate: str
    any_layer: str
    is_same: bool
    may_be_chance: bool


@dataclass(frozen=True)
class Depths:
    """The profiles of a run, and the choice among its models by them (None for a single model)."""

    profiles: Sequence[Profile]
    choice: Choice | None

    def as_json(self) -> dict[str, Any]:
        """Return the part ``layers`` of ``summary.json``."""
        profiles = []
        for one in self.profiles:
            best = None if one.best is None else vars(one.best)
            layers = [
                {"layer": layer.name, "depth": known_number(layer.depth)}
                | {name: known_number(value) for name, value in layer.scores.items()}
                for layer in one.layers
            ]
            profiles.append(
                {
                    "model": one.model,
                    "img_size": one.img_size,
                    "family": one.family,
                    "layers": layers,
                    "best": best,
                }
            )
        return {"profiles": profiles, "choice": None if self.choice is None else vars(self.choice)}


def depths(rows: pd.DataFrame, quantity: Quantity = ACCURACY) -> Depths | None:
    """Return the profiles of the networks with rows of more than one layer; None if there are none.

    Parameters
    ----------
    quantity
        The quantity by which models and layers are compared.
    """
    ok = succeeded(rows)
    networks = np.array(networks_of(ok), dtype=object)
    several = dict.fromkeys(networks[further_layers(ok)].tolist())
    if not several:
        return None
    families = families_of(ok)[1].to_numpy(dtype=object)
    profiles: list[Profile] = []
    chosen: list[tuple[str, np.ndarray, np.ndarray]] = []
    for network in several:
        part = ok[networks == network]
        profile = _profile(part, str(families[networks == network][0]))
        hits = _hits(part)
        if hits is not None:
            best, of_others = _best(*hits, quantity)
            profile = replace(profile, best=best)
            chosen.append((profile.name, hits[1][hits[0].index(None)], of_others))
        profiles.append(profile)
    return Depths(profiles, _choice(chosen, quantity))


def _profile(part: pd.DataFrame, family: str) -> Profile:
    layers = texts(part, "layer")
    ends = values(part, "layer_depth")
    ends = np.array([1.0 if name is None else end for name, end in zip(layers, ends, strict=True)])
    scores = {name: values(part, name) for name in SCORES}
    order = np.argsort(ends, kind="stable")  # unknown depths come last
    own = order[0] if None not in layers else layers.index(None)
    name = names(part)[own]
    if layers[own] is not None:
        name["model"] = name["model"].removesuffix(f":{layers[own]}")
    found = [
        Layer(layers[i], float(ends[i]), {name: float(of[i]) for name, of in scores.items()})
        for i in order
    ]
    return Profile(name["model"], name["img_size"], family, found)


def _hits(part: pd.DataFrame) -> tuple[list[str | None], np.ndarray] | None:
    """Return the layers with hits and the hits, bool [k, m]; None without the penultimate or another layer."""
    known = part[part["probe_hits"].notna()]
    layers = texts(known, "layer")
    if None not in layers or len(layers) < 2:
        return None
    return layers, np.array([unpack_hits(text) for text in known["probe_hits"]])


def _best(
    layers: list[str | None], hits: np.ndarray, quantity: Quantity
) -> tuple[Best, np.ndarray]:
    """Return the best layer, and the hits, bool [m], of layers that were chosen on the other half of the images."""
    weights = quantity.weights(hits.shape[1])
    accuracy = 100 * hits @ weights
    own = layers.index(None)
    first = _greatest(accuracy, own)
    others = [i for i in range(len(layers)) if i != own]
    p = dict(zip(others, two_sided_p(hits[own], hits[others], weights).tolist(), strict=True))
    corrected = holm(p)
    # Halves are random: in an order that alternates classes, every second image may come from half of the classes.
    halves = np.random.default_rng(0).permutation(hits.shape[1]) % 2 == 0
    crossed = np.empty(hits.shape[1], dtype=bool)
    for half in (halves, ~halves):
        picked = _greatest(hits[:, half] @ weights[half], own)
        crossed[~half] = hits[picked, ~half]
    best = Best(
        layers[first],
        float(accuracy[first]),
        float(accuracy[own]),
        None if first == own else corrected[first],
        float(100 * crossed @ weights),
    )
    return best, crossed


def _greatest(numbers: np.ndarray, favourite: int) -> int:
    """Return the place of the greatest number; ties go to the favourite, or else to the first."""
    return favourite if numbers[favourite] == numbers.max() else int(numbers.argmax())


def _choice(
    chosen: Sequence[tuple[str, np.ndarray, np.ndarray]], quantity: Quantity
) -> Choice | None:
    if len(chosen) < 2:
        return None
    models = [name for name, _, _ in chosen]
    weights = quantity.weights(len(chosen[0][1]))
    by_own = np.array([own for _, own, _ in chosen]) @ weights
    crossed = np.array([any_layer for _, _, any_layer in chosen])
    by_any = crossed @ weights
    before = int(by_own.argmax())
    after = _greatest(by_any, before)
    order = np.argsort(-by_any, kind="stable")
    order = np.concatenate([[after], order[order != after]])
    tied = tied_for_first(list(crossed[order]), weights)
    is_tied = bool(tied[order.tolist().index(before)])
    return Choice(models[before], models[after], before == after, is_tied)


def of_family(profiles: Sequence[Profile], score: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative depths [k] and a score of each profile there [k, models], interpolated between layers.

    Depths that not all of the models' layers span are left out.
    """
    lines = []
    for one in profiles:
        x = np.array([layer.depth for layer in one.layers])
        y = np.array([layer.scores[score] for layer in one.layers])
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() > 1:
            lines.append(np.interp(GRID, x[known], y[known], left=np.nan, right=np.nan))
    if not lines:
        return np.zeros(0), np.zeros((0, 0))
    of_models = np.array(lines).T
    spanned = np.isfinite(of_models).all(axis=1)
    return GRID[spanned], of_models[spanned]
