"""The primary correlation on other choices of rows, made by what is known of the inputs, never by the outcome."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from dsmi_zoo.pipeline.config.run import MeasureSettings
from dsmi_zoo.pipeline.measures.core.points import Points
from dsmi_zoo.pipeline.measures.dse.subsets import SpectralEntropies
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.subset_file import read_subset

from .correlation import Bootstraps, Coefficient, correlate, why_undefined
from .sample import (
    PRIMARY_MEASURE,
    PRIMARY_TARGET,
    effective_number,
    families_of,
    one_row_per_weights,
    succeeded,
    texts,
    values,
)

Part = tuple[str, pd.DataFrame, np.ndarray]
"""A variant's name, its rows and its measure."""

SMALLEST_M = 1.0  # million parameters; below are toys for tests
FEWEST = 10  # rows of a part that is shown on its own
SIZES = (
    (0, 224, "up to 224 pixels"),
    (225, 320, "225 to 320 pixels"),
    (321, np.inf, "above 320 pixels"),
)

# Liao et al. (arXiv 2312.04823), on ImageNet's validation images, by the authors' own script.
PUBLISHED = {
    "dsmi_z_y": {"pearson": 0.216, "spearman": 0.144},
    "dsmi_z_x": {"pearson": 0.076, "spearman": 0.008},
    "dse_z": {"pearson": 0.002, "spearman": -0.014},
}


@dataclass(frozen=True)
class Variant:
    """Spearman's correlation of the primary measure with a target on some of the rows."""

    name: str
    n: int
    families: int
    effective: float
    spearman: Coefficient


def variants(rows: pd.DataFrame, target: str, bootstraps: Bootstraps) -> list[Variant]:
    """The primary correlation on every variant of the sample.

    Parameters
    ----------
    rows
        All rows of a run; the primary sample is the first variant.
    """
    primary, unit = one_row_per_weights(rows), families_of(succeeded(rows))[1]
    choices = []
    for name, part, column in _parts(rows, primary, target):
        families = unit.loc[part.index]
        c = correlate(column, values(part, target), families, bootstraps, full=False)
        choices.append(Variant(name, c.n, c.units, effective_number(families), c.spearman))
    return choices


def _parts(rows: pd.DataFrame, primary: pd.DataFrame, target: str) -> Iterator[Part]:
    def part(name: str, keep: np.ndarray) -> Iterator[Part]:
        chosen = primary[keep]
        if 0 < len(chosen) < len(primary):
            yield name, chosen, values(chosen, PRIMARY_MEASURE)

    yield "one row per set of weights (primary)", primary, values(primary, PRIMARY_MEASURE)
    everything = succeeded(rows)
    if len(everything) > len(primary):
        yield "all image sizes of each model", everything, values(everything, PRIMARY_MEASURE)
    null = values(primary, "dsmi_z_y_null")
    if np.isfinite(null).any():
        yield (
            "DSMI(Z;Y) less its permutation null",
            primary,
            values(primary, PRIMARY_MEASURE) - null,
        )
    saturated = values(primary, "saturated") == 1
    yield from part("without saturated rows", ~saturated)
    extra = values(primary, "extra_data")
    yield from part("without extra pretraining data", extra != 1)
    small = values(primary, "params_m") < SMALLEST_M
    toys = np.array(
        [(text or "").startswith("test_") for text in texts(primary, "architecture")], dtype=bool
    )
    yield from part("without test_* and models under 1 M parameters", ~(small | toys))
    kinds = np.array(texts(primary, "kind"), dtype=object)
    for kind in sorted({k for k in kinds if k is not None}):
        if (kinds == kind).sum() >= FEWEST:
            yield from part(f"{kind} only", kinds == kind)
    size = values(primary, "img_size")
    for low, high, name in SIZES:
        inside = (size >= low) & (size <= high)
        if inside.sum() >= FEWEST:
            yield from part(name, inside)
    yield from _extreme_tags(primary, target, part)


def _extreme_tags(
    primary: pd.DataFrame, target: str, part: Callable[[str, np.ndarray], Iterator[Part]]
) -> Iterator[Part]:
    """Without each pretraining tag in turn, of which the least and the greatest correlation are shown."""
    tags = np.array(texts(primary, "pretraining"), dtype=object)
    x, y = values(primary, PRIMARY_MEASURE), values(primary, target)
    known = np.isfinite(x) & np.isfinite(y)
    rho_without: dict[str, float] = {}
    for tag in sorted({t for t in tags if t is not None}):
        keep = known & (tags != tag)
        if (tags == tag).sum() >= FEWEST and why_undefined(x[keep], y[keep]) is None:
            rho_without[tag] = float(spearmanr(x[keep], y[keep]).statistic)
    if rho_without:
        for word, tag in (
            ("least", min(rho_without, key=rho_without.__getitem__)),
            ("greatest", max(rho_without, key=rho_without.__getitem__)),
        ):
            yield from part(
                f"without the pretraining {tag} ({word} of {len(rho_without)} left out in turn)",
                tags != tag,
            )


def published(catalog: str | None, target: str | None) -> dict[str, dict[str, float]]:
    """The paper's own correlations, where this run's are comparable: its table of models and top-1 accuracy."""
    return PUBLISHED if catalog == "imagenet-2023" and target == PRIMARY_TARGET else {}


SUBSETS = 50


def class_subset_correlations(
    out: Path,
    rows: pd.DataFrame,
    run: RunRecord,
    target: str,
    subsets: int = SUBSETS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Spearman's correlation of DSMI(Z;Y) with the target on each of ``subsets`` random halves of the classes.

    Parameters
    ----------
    out
        The run's directory, with its kept embeddings; models without one are left out.
    progress
        Called with the number of models done, and of all.

    Returns
    -------
    list of float
        One for each half that leaves the correlation defined.
    """
    labels = read_subset(out)["label"].to_numpy()
    classes = np.unique(labels)
    halves = [
        np.sort(
            np.random.default_rng([0, i]).choice(classes, max(2, len(classes) // 2), replace=False)
        )
        for i in range(subsets)
    ]
    settings = run.config.measures
    origin = run.embeddings_from or out
    slugs = {(entry.model, entry.img_size): entry.slug for entry in run.entries}
    sample = one_row_per_weights(rows)
    paths = [
        embedding_path(origin, slugs[key])
        for key in zip(sample["model"], sample["img_size"], strict=True)
    ]
    dsmi = np.full((len(sample), subsets), np.nan)
    for number, (path, sha256) in enumerate(zip(paths, sample["embedding_sha256"], strict=True)):
        if path.exists():
            dsmi[number] = _dsmi_on(read_embedding(path, sha256), labels, halves, settings)
        progress(number + 1, len(sample))
    y = values(sample, target)
    known = [np.isfinite(column) & np.isfinite(y) for column in dsmi.T]
    return [
        float(spearmanr(x[k], y[k]).statistic)
        for x, k in zip(dsmi.T, known, strict=True)
        if why_undefined(x[k], y[k]) is None
    ]


def _dsmi_on(
    Z: np.ndarray, labels: np.ndarray, halves: list[np.ndarray], settings: MeasureSettings
) -> list[float]:
    """DSMI(Z;Y) on each choice of classes; distances are those of all points, once."""
    points, sigma = Points(Z.astype(np.float64)), settings.sigma_for(Z.shape[1])
    exact = settings.model_copy(update={"method": "exact", "precision": "float64"})
    values = []
    for half in halves:
        rows = np.flatnonzero(np.isin(labels, half))
        entropies = SpectralEntropies(points.part(rows), sigma, exact)
        values.append(entropies.information(np.searchsorted(half, labels[rows])).value)
    return values
