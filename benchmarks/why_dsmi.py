"""Why DSMI may misorder networks: its two terms when labels are coarser than the classes that the networks separate.

    python benchmarks/why_dsmi.py --simulated docs/pictures/why-dsmi.png       half a minute
    python benchmarks/why_dsmi.py --lites                three networks with ImageNet weights
    python benchmarks/why_dsmi.py --seeds 0              trains and measures 96 networks: about five minutes
    python benchmarks/why_dsmi.py --seeds 1 2 --forms    the test of the three forms of docs/why-dsmi.md

DSMI is the entropy of random subsets of a class's size (``random``) minus that of the classes (``within``). The
networks of the digits and fashion zoos are scored on their ten classes, and on these merged into five, three and two
(label modulo 5, 3, 2). The first table has Spearman's rho of ``random``, -``within`` and DSMI with top-1 accuracy on
ten classes, for three kernels: the paper's, one on the directions from the mean (``angular``), and one on nearest
neighbours. The second table relates the terms to other properties of the networks.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import timm
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

import dsmi_zoo
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import TRAINED_ZOOS, trained_models
from dsmi_zoo.pipeline.embedding.embed import embed
from dsmi_zoo.pipeline.embedding.train import stored_top1, train_weights
from dsmi_zoo.pipeline.embedding.views import part_view
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.distances import Points, direction_points
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.dse.knn import TIME, KnnEntropies, adaptive_kernel
from dsmi_zoo.pipeline.measures.dse.spectrum import eigenvalues, normalise, spectrum_entropy
from dsmi_zoo.pipeline.measures.dse.subsets import SpectralEntropies, SubsetEntropies
from dsmi_zoo.pipeline.networks.timm import build_model
from dsmi_zoo.reports.statistics.bootstrap import Resamples

Labels = NDArray[np.int64]
CLASSES = (10, 5, 3, 2)
RESAMPLES = 1000
FINE = (10, 100)
SEPARATIONS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
POINTS = 300
PHOTOGRAPHS = (
    "astronaut", "coffee", "chelsea", "rocket", "camera", "motorcycle", "coins", "brick", "grass", "page"
)  # fmt: skip
CROPS = 20
LITE_TOP1 = (74.8, 76.6, 77.5)  # published
RIVALS = ("dsmi_z_y", "dsmi_z_y_angular", "dsmi_z_y_knn", "centre_accuracy", "neighbour_accuracy")


def angular_points(context: MeasureContext) -> Points:
    """Return the directions from the mean."""
    return direction_points(Points(context.centred_values))


def angular(context: MeasureContext) -> SubsetEntropies:
    """Return the entropies behind ``dsmi_z_y_angular``."""
    points = angular_points(context)
    settings = context.settings.model_copy(update={"t": 2.0})
    return SpectralEntropies(points, points.median_distance(0) / 2, settings)


KERNELS: dict[str, Callable[[MeasureContext], SubsetEntropies]] = {
    "paper": lambda context: SpectralEntropies(context.points, context.sigma, context.settings),
    "angular": angular,
    "neighbours": lambda context: KnnEntropies(context.points, context.settings),
}


def terms(entropies: SubsetEntropies, labels: Labels) -> tuple[float, float]:
    """Return the mean entropy of random subsets and that of the classes, both weighted by the classes' sizes."""
    sizes = np.bincount(labels)
    members = [np.flatnonzero(labels == of_class) for of_class in range(len(sizes))]
    within = np.array([entropy.value for entropy in entropies.of(members)])
    at_random = np.array([entropies.of_random(int(size)).value for size in sizes])
    shares = sizes / len(labels)
    return float(shares @ at_random), float(shares @ within)


def share(context: MeasureContext, labels: Labels) -> float:
    """Return angular DSMI as a share of what is attainable: 1 - within / random."""
    at_random, within = terms(angular(context), labels)
    return 1 - within / at_random


def masked(context: MeasureContext, labels: Labels) -> float:
    """Return minus the entropy that the neighbour graph gains when edges between classes are cut."""
    kernel = adaptive_kernel(angular_points(context).squares)
    entropies = []
    for one in (kernel * (labels[:, None] == labels), kernel):
        normalise(one)
        entropies.append(float(spectrum_entropy(eigenvalues(one), TIME)))
    return entropies[1] - entropies[0]


def cosine_entropy(context: MeasureContext, labels: Labels) -> float:
    """Return DSE of the rows' directions at a sigma of 0.3 of their median distance; labels are ignored."""
    points = context.direction_points
    entropies = SpectralEntropies(points, 0.3 * points.median_distance(0), context.settings)
    return entropies.of([np.arange(len(labels))])[0].value


FORMS: dict[str, Callable[[MeasureContext, Labels], float]] = {
    "share": share,
    "masked": masked,
    "cosine entropy": cosine_entropy,
}


def scored(Z: NDArray[np.float32], labels: Labels, forms: bool) -> pd.DataFrame:
    """Return the terms, and with ``forms`` the three forms and the rival scores, for each number of classes."""
    context = MeasureContext(Z, labels, None, None, MeasureSettings())
    entropies = {kernel: make(context) for kernel, make in KERNELS.items()}
    rows = []
    for classes in CLASSES:
        joined = labels % classes
        row: dict[str, float] = {"classes": classes}
        for kernel, of_kernel in entropies.items():
            row[f"{kernel} random"], row[f"{kernel} within"] = terms(of_kernel, joined)
        if forms:
            row |= {form: compute(context, joined) for form, compute in FORMS.items()}
            row |= {
                name: float(v) for name, v in dsmi_zoo.measure(Z, joined, scores=RIVALS).items()
            }
        rows.append(row)
    facts = {
        "dimension": Z.shape[1],
        "zeros": float(np.mean(np.abs(Z) < 1e-6)),
        "rms": float(np.sqrt(np.mean(np.square(Z, dtype=float)))),
        **dsmi_zoo.measure(Z, labels, scores=("participation_ratio", "within_over_between")),
    }
    return pd.DataFrame(rows).assign(**facts)


def of_zoo(zoo: str, seed: int, cache: Path, forms: bool) -> pd.DataFrame:
    """Return a row for each network and number of classes; networks are trained unless the cache has them."""
    entries = trained_models(zoo, seed)
    first = entries[0]
    assert first.recipe is not None
    assert first.preprocessing is not None
    assert first.img_size is not None
    train, test, validation = (
        part_view(cache, first.recipe.dataset, None, part, first.img_size, first.preprocessing)
        for part in ("train", "test", "validation")
    )
    parts = []
    for number, entry in enumerate(entries):
        print(f"{zoo}:{seed} {number + 1} of {len(entries)}", end="\r", file=sys.stderr, flush=True)
        weights = train_weights(
            cache / f"{zoo}-{seed}-{entry.model}.safetensors", entry, train, test
        )
        Z = embedding_of(entry, weights, validation[0])
        found = scored(Z, validation[1], forms)
        budget = int(np.prod([int(part) for part in entry.model.rsplit(".")[1].split("x")]))
        parts.append(
            found.assign(model=entry.model, seed=seed, budget=budget, top1=stored_top1(weights))
        )
    return pd.concat(parts, ignore_index=True)


def embedding_of(entry: ModelEntry, weights: Path, view: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the penultimate embedding of the images."""
    assert entry.preprocessing is not None
    model = build_model(entry, weights)
    values: NDArray[np.float32] = embed(
        model, view, entry.preprocessing, torch.device("cpu")
    ).values
    return values


def of_lites(folder: Path) -> pd.DataFrame:
    """Return the terms for the three EfficientNet-Lites on crops of ten photographs; each photograph is a class."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from real_weights import LITE, lite_weights, photograph

    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.5, size=(len(PHOTOGRAPHS), CROPS, 2))
    parts = []
    for number, size in LITE.items():
        images = []
        for name, of_photograph in zip(PHOTOGRAPHS, corners, strict=True):
            image = photograph(name)
            width, height = image.size
            for left, top in of_photograph * (width, height):
                crop = image.crop((left, top, left + width / 2, top + height / 2))
                images.append(np.asarray(crop.resize((size, size))))
        model = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=0).eval()
        state = safetensors.torch.load_file(lite_weights(number, folder))
        model.load_state_dict(state, strict=False)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            Z = torch.cat([model(batch) for batch in pixels.split(20)]).numpy()
        labels = np.repeat(np.arange(len(PHOTOGRAPHS)), CROPS)
        parts.append(
            scored(Z, labels, forms=True).assign(model=f"lite{number}", top1=LITE_TOP1[number])
        )
    return pd.concat(parts, ignore_index=True)


def simulated(width: int = 64) -> pd.DataFrame:
    """Return the terms for simulated networks that separate 10 or 100 fine Gaussian classes ever better."""
    parts = []
    for fine in FINE:
        for separation in SEPARATIONS:
            generator = np.random.default_rng(0)
            classes = np.arange(POINTS) % fine
            centres = generator.normal(size=(fine, width))
            Z = separation * centres[classes] + generator.normal(size=(POINTS, width))
            unit = (Z / np.sqrt(np.mean(Z**2))).astype(np.float32)
            found = scored(unit, classes, forms=True)
            parts.append(found.assign(fine=fine, separation=separation))
    return pd.concat(parts, ignore_index=True)


def picture(table: pd.DataFrame, path: Path) -> None:
    """Draw DSMI against the separation of the fine classes, for 10 and for 2 labels."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(KERNELS), sharex=True)
    for kernel, part in zip(KERNELS, axes, strict=True):
        for (fine, classes), rows in table.groupby(["fine", "classes"]):
            if classes not in (2, 10):
                continue
            dsmi = rows[f"{kernel} random"] - rows[f"{kernel} within"]
            style = {"color": f"C{FINE.index(fine)}", "linestyle": "-" if classes == 10 else "--"}
            part.plot(rows["separation"], dsmi, label=f"{fine} fine, {classes} labels", **style)
        part.axhline(0, color="#999999", linewidth=0.8)
        part.set_title(kernel)
        part.set_xlabel("separation of the fine classes")
    axes[0].set_ylabel("DSMI, bits")
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def rho(x: pd.Series, y: pd.Series) -> float:
    """Return Spearman's correlation."""
    return float(spearmanr(x, y).statistic)


def tested(table: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """Return mean rho over seeds, its 95% interval, and that of the difference from angular DSMI."""
    found = {}
    for classes, part in table.groupby("classes", sort=False):
        of_seeds = [one.sort_values("model") for _, one in part.groupby("seed")]
        architectures = pd.factorize(of_seeds[0]["model"].str.split(".").str[0])[0]
        resamples = Resamples.drawn(architectures, RESAMPLES, seed=0)
        drawn, values = {}, {}
        for name in scores:
            pairs = [(one[name].to_numpy(float), one["top1"].to_numpy(float)) for one in of_seeds]
            values[name] = float(np.mean([spearmanr(x, y).statistic for x, y in pairs]))
            drawn[name] = np.mean([resamples.spearman(x, y) for x, y in pairs], axis=0)
        for name in scores:
            low, high = np.quantile(drawn[name], [0.025, 0.975])
            worse, better = np.quantile(drawn[name] - drawn["dsmi_z_y_angular"], [0.025, 0.975])
            found[classes, name] = {
                "rho": values[name], "low": low, "high": high, "less angular": worse, "to": better
            }  # fmt: skip
    return pd.DataFrame(found).T


def correlations(table: pd.DataFrame, names: Sequence[str], target: str) -> pd.Series:
    """Return the mean over seeds of Spearman's rho between each column and ``target``."""
    of_seeds = [
        pd.Series({n: rho(p[n], p[target]) for n in names}) for _, p in table.groupby("seed")
    ]
    mean: pd.Series = pd.concat(of_seeds, axis=1).mean(axis=1)
    return mean


def decomposition(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rho over seeds of each term, and of DSMI, with top-1 accuracy."""
    found = {}
    for classes, part in table.groupby("classes", sort=False):
        for kernel in KERNELS:
            random, within = part[f"{kernel} random"], part[f"{kernel} within"]
            columns = {"random": random, "-within": -within, "DSMI": random - within}
            found[classes, kernel] = correlations(part.assign(**columns), list(columns), "top1")
    return pd.DataFrame(found).T


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--simulated", type=Path, metavar="PNG", help="Gaussian classes instead")
    parser.add_argument("--lites", action="store_true", help="three networks with ImageNet weights")
    parser.add_argument("--zoos", nargs="+", default=list(TRAINED_ZOOS))
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/why-dsmi"), help="weights and rows"
    )
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if arguments.simulated:
        table = simulated()
        for kernel in KERNELS:
            table[f"{kernel} DSMI"] = table[f"{kernel} random"] - table[f"{kernel} within"]
        picture(table, arguments.simulated)
        names = [*(f"{kernel} DSMI" for kernel in KERNELS), *FORMS]
        print(
            table.set_index(["fine", "classes", "separation"])[names]
            .round(2)
            .sort_index()
            .to_string()
        )
        return
    if arguments.lites:
        print(of_lites(arguments.cache).T.to_string(float_format="{:.3f}".format))
        return
    for zoo in arguments.zoos:
        parts = [of_zoo(zoo, seed, arguments.cache, arguments.forms) for seed in arguments.seeds]
        table = pd.concat(parts, ignore_index=True)
        name = "-".join(map(str, (zoo, *arguments.seeds)))
        table.to_csv(arguments.cache / f"{name}.csv", index=False)
        print(f"\n{zoo}, seeds {arguments.seeds}, {len(table) // len(CLASSES)} networks")
        print(decomposition(table).round(2).to_string())
        names = [f"{kernel} {term}" for kernel in KERNELS for term in ("random", "within")]
        two = table[table["classes"] == 2]
        facts = ("dimension", "zeros", "rms", "participation_ratio", "budget", "top1")
        print(pd.DataFrame({fact: correlations(two, names, fact) for fact in facts}).round(2))
        if arguments.forms:
            print(tested(table, [*FORMS, *RIVALS, "dimension"]).round(2).to_string())


if __name__ == "__main__":
    main()
