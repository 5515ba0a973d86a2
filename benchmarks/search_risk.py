"""Risk and cost of a search: how often it drops the model that is best on all images, accuracy lost, images spent.

    dsmi-zoo run --out runs/digits
    dsmi-zoo run --catalog fashion --out runs/fashion
    python benchmarks/search_risk.py runs/digits runs/fashion --draws 20
    python benchmarks/search_risk.py runs/digits runs/fashion --refit --draws 20
    python benchmarks/search_risk.py               only simulated models
    python benchmarks/search_risk.py hits.npz      arrays ``hits``, bool [models, images], and ``labels``, [images]

A population has the hits of a run's probes on images drawn with replacement, class by class: the largest class has
``--images``, and the others fall geometrically to 1/skew of that. With ties, half of the models are copies of the best
one whose hits are permuted among a fifth of the images of each class, so that all are equally good. Models whose skill
differs between classes are simulated, too. Each draw has another population, other models and another choice of
images. With ``--refit`` the images are the run's, and each stage fits the probes to its images, as a search does. A
file of hits is used unchanged.

Rules: ``now`` is the search's; ``before`` took equally many images of each class and tested at 5% in each stage. A line
has the share of draws in which a model that is best on all images was dropped, with the standard error of the
simulation; the share in which all best models were, so that accuracy was lost; the mean and greatest loss in percentage
points; the share of models left for all images; and the images spent, in percent of all models on all images.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from dsmi_zoo.data_catalog.datasets.sampling import Sample, samples
from dsmi_zoo.jobs.runs.search import MIN_IMAGES_PER_CLASS, SHRINK
from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import read_subset
from dsmi_zoo.reports.statistics.paired import ERROR_RATE, may_be_best
from dsmi_zoo.reports.statistics.ranking import Quantity, tied_for_first

SKEWS = (1, 5, 20, 100)
CLASSES = (2, 10)
MODELS = (8, 48)
PERMUTED = 0.2
Fit = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # models and images to hits, bool [models, images]


def chosen(sizes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return random images, ``sizes`` of each class."""
    of_classes = [rng.permutation(np.flatnonzero(labels == i))[:n] for i, n in enumerate(sizes)]
    return np.sort(np.concatenate(of_classes))


def kept_by_stage_tests(hits: np.ndarray) -> np.ndarray:
    """Return the models that the earlier rule keeps after a stage, bool [k]."""
    order = np.argsort(-hits.sum(axis=1), kind="stable")
    left = np.zeros(len(hits), dtype=bool)
    left[order] = tied_for_first(list(hits[order]))
    return left


def search(
    fit: Fit, models: int, labels: np.ndarray, metric: str, rule: str, seed: int
) -> tuple[np.ndarray, int]:
    """Return the models that a search keeps for all images, and the number of images that it spends in total.

    Parameters
    ----------
    fit
        A function that returns the hits of some models on some images.
    labels
        The class of each image, numbered from 0, each with at least one image.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(labels)
    if rule == "before":
        smallest, stages = int(sizes.min()), []
        while smallest // SHRINK >= MIN_IMAGES_PER_CLASS:
            smallest //= SHRINK
            stages.insert(0, Sample(most=smallest))
    else:
        balanced = metric == "balanced_accuracy"
        stages = samples(sizes, balanced=balanced, shrink=SHRINK, fewest=MIN_IMAGES_PER_CLASS)
    left, spent = np.arange(models), 0
    for stage in stages:
        taken = stage.sizes(sizes, seed)
        images = chosen(taken, labels, rng)
        hits = fit(left, images)
        spent += hits.size
        if rule == "before":
            left = left[kept_by_stage_tests(hits)]
        else:
            weights = stage.weights(sizes, taken)[labels[images]]
            level = ERROR_RATE / len(stages)
            left = left[may_be_best(hits, weights, level=level, compared=models)]
    return left, spent + len(left) * len(labels)


def skewed_sizes(largest: int, classes: int, skew: int) -> np.ndarray:
    """Return the images of each class, from ``largest`` geometrically down to 1/skew of it, at least 2."""
    return np.maximum(2, np.rint(largest * skew ** -np.linspace(0, 1, classes))).astype(int)


def with_ties(hits: np.ndarray, labels: np.ndarray, best: int, rng: np.random.Generator) -> None:
    """Make half of the models as good as the ``best`` one in each class, with other hits."""
    for model in rng.permutation(np.delete(np.arange(len(hits)), best))[: len(hits) // 2]:
        hits[model] = hits[best]
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            some = of_class[rng.random(len(of_class)) < PERMUTED]
            hits[model, some] = hits[model, rng.permutation(some)]


def simulated(models: int, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return hits of models that differ in skill, also in single classes, on images that differ in difficulty."""
    skill = rng.normal(1.0, 0.5, models)[:, None] + rng.normal(0, 0.3, (models, labels.max() + 1))
    difficulty = rng.normal(0, 1, len(labels))
    return skill[:, labels] - difficulty + rng.normal(0, 0.7, (models, len(labels))) > 0


def crossed() -> tuple[np.ndarray, np.ndarray]:
    """Return hits and labels for which the most accurate model is not the best in the mean over the classes."""
    sizes = np.rint(np.geomspace(4677, 250, 8)).astype(int)
    labels, rng = np.repeat(np.arange(8), sizes), np.random.default_rng(22)
    skill = rng.normal(1.6, 0.05, (8, 1)) + rng.normal(0, 0.3, (8, 8))
    difficulty = rng.normal(size=len(labels))
    return skill[:, labels] - difficulty + rng.normal(0, 0.7, (8, len(labels))) > 0, labels


class Zoo:
    """The hits of a run's probes, and its embeddings."""

    def __init__(self, out: Path) -> None:
        rows = read_results(out)
        rows = rows[rows["status"] == "ok"]
        self.name = out.name
        self.hits = np.array([unpack_hits(text) for text in rows["probe_hits"]])
        self.labels = np.unique(read_subset(out)["label"], return_inverse=True)[1]
        slugs = {(entry.model, entry.img_size): entry.slug for entry in read_run(out).entries}
        keys = zip(rows["model"], rows["img_size"], strict=True)
        self.paths = [embedding_path(out, slugs[key]) for key in keys]

    def population(
        self, models: int, sizes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return hits of random models on images drawn with replacement from random classes, and their labels."""
        labels = np.repeat(np.arange(len(sizes)), sizes)
        of_label = rng.permutation(self.labels.max() + 1)[: len(sizes)]
        images = [
            rng.choice(np.flatnonzero(self.labels == label), size)
            for label, size in zip(of_label, sizes, strict=True)
        ]
        rows = rng.permutation(len(self.hits))[:models]
        return self.hits[np.ix_(rows, np.concatenate(images))], labels


def one_draw(
    fit: Fit, hits: np.ndarray, labels: np.ndarray, metric: str, rule: str, seed: int
) -> dict:
    """Return the outcome of a search among models whose hits on all images are ``hits``."""
    weights = Quantity(metric, labels).weights(len(labels))  # type: ignore[arg-type]
    values = np.round(100 * hits @ weights, 9)
    left, spent = search(fit, len(hits), labels, metric, rule, seed)
    best = np.flatnonzero(values == values.max())
    loss = values.max() - values[left].max()
    return {
        "metric": metric, "rule": rule, "lost": not np.isin(best, left).all(), "all lost": loss > 0,
        "loss": loss, "left": len(left) / len(hits), "spent": spent / hits.size,
    }  # fmt: skip


def on_hits(hits: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[dict]:
    """Yield the outcomes of all rules and metrics, with the same hits in every stage."""
    for metric, rule in product(("accuracy", "balanced_accuracy"), ("now", "before")):
        yield one_draw(lambda m, i: hits[np.ix_(m, i)], hits, labels, metric, rule, seed)


def drawn(zoos: list[Zoo], draws: int, largest: int) -> Iterator[dict]:
    """Yield outcomes on populations of all kinds."""
    kinds = [(zoo, n) for zoo in zoos for n in CLASSES] + [(None, 10), (None, 100)]
    for (zoo, classes), skew, models, ties in product(kinds, SKEWS, MODELS, (False, True)):
        sizes = skewed_sizes(largest if classes < 100 else largest // 5, classes, skew)
        kind = {"zoo": zoo.name if zoo else "simulated", "classes": classes, "skew": f"1:{skew}"}
        kind |= {"models": models, "ties": "half" if ties else "none"}
        for draw in range(draws):
            seed = [draw, classes, skew, models, ties]
            rng = np.random.default_rng(seed)
            if zoo is None:
                labels = np.repeat(np.arange(classes), sizes)
                hits = simulated(models, labels, rng)
            else:
                hits, labels = zoo.population(models, sizes, rng)
            if ties:
                with_ties(hits, labels, int(hits.sum(axis=1).argmax()), rng)
            for outcome in on_hits(hits, labels, int(rng.integers(2**31))):
                yield {**kind, **outcome}


def fitted(
    embeddings: list[np.ndarray], labels: np.ndarray, models: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Return hits of the probes of some models, fitted to some images."""
    found = [measure(embeddings[i][images], labels[images], scores="probe_hits") for i in models]
    return np.array([unpack_hits(str(values["probe_hits"])) for values in found])


def refitted(zoos: list[Zoo], draws: int) -> Iterator[dict]:
    """Yield outcomes of searches that fit the probes to the images of each stage."""
    for zoo, skew in product(zoos, SKEWS):
        embeddings = [np.load(path) for path in zoo.paths]
        sizes = np.bincount(zoo.labels)
        sizes = skewed_sizes(int(sizes.min()), len(sizes), skew)
        for draw in range(draws):
            images = chosen(sizes, zoo.labels, np.random.default_rng([draw, skew]))
            labels = zoo.labels[images]

            fit = partial(fitted, [Z[images] for Z in embeddings], labels)
            hits = fit(np.arange(len(embeddings)), np.arange(len(images)))
            kind = {"zoo": zoo.name, "classes": len(sizes), "skew": f"1:{skew}"}
            kind |= {"models": len(hits), "ties": "as found"}
            for metric, rule in product(("accuracy", "balanced_accuracy"), ("now", "before")):
                yield {**kind, **one_draw(fit, hits, labels, metric, rule, draw)}


def from_file(path: Path, draws: int) -> Iterator[dict]:
    """Yield outcomes of searches on the hits in a file."""
    content = np.load(path)
    yield from on_one_matrix(path.stem, content["hits"].astype(bool), content["labels"], draws)


def on_one_matrix(name: str, hits: np.ndarray, of: np.ndarray, draws: int) -> Iterator[dict]:
    """Yield outcomes of searches on the same hits."""
    labels = np.unique(of, return_inverse=True)[1]
    sizes = np.bincount(labels)
    kind = {"zoo": name, "classes": len(sizes), "skew": f"1:{sizes.max() / sizes.min():.3g}"}
    for draw in range(draws):
        for outcome in on_hits(hits, labels, draw):
            yield {**kind, "models": len(hits), "ties": "as found", **outcome}


def table(outcomes: pd.DataFrame, by: list[str]) -> str:
    """Return a Markdown table of the outcomes, a line for each value of the columns ``by``."""
    heads = [*by, "draws", "best lost", "accuracy lost", "mean loss", "greatest", "left", "spent"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for key, group in outcomes.groupby(by, sort=False):
        share = group["lost"].mean()
        error = np.sqrt(share * (1 - share) / len(group))
        cells = [*map(str, key), str(len(group)), f"{100 * share:.1f}% ± {100 * error:.1f}"]
        cells += [f"{100 * group['all lost'].mean():.1f}%", f"{group['loss'].mean():.3f}"]
        cells += [f"{group['loss'].max():.1f}", f"{group['left'].mean():.0%}"]
        cells.append(f"{group['spent'].mean():.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", type=Path, nargs="*", metavar="OUT|HITS.npz")
    parser.add_argument("--draws", type=int, default=20, help="of each kind")
    parser.add_argument("--images", type=int, default=400, help="of the largest class")
    parser.add_argument("--refit", action="store_true", help="fit the probes in each stage")
    parser.add_argument(
        "--crossed", action="store_true", help="models that differ between classes of 250 to 4,677"
    )
    parser.add_argument("--csv", type=Path, help="file for the outcome of each draw")
    arguments = parser.parse_args()
    outcomes: list[dict] = []
    sources: list[Iterator[dict]] = [
        from_file(path, arguments.draws) for path in arguments.paths if path.suffix == ".npz"
    ]
    zoos = [Zoo(path) for path in arguments.paths if path.suffix != ".npz"]
    if arguments.crossed:
        sources.append(on_one_matrix("crossed", *crossed(), arguments.draws))
    elif zoos and arguments.refit:
        sources.append(refitted(zoos, arguments.draws))
    elif zoos or not arguments.paths:
        sources.append(drawn(zoos, arguments.draws, arguments.images))
    for source in sources:
        for outcome in source:
            outcomes.append(outcome)
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes)} searches", end="\r", file=sys.stderr)
    frame = pd.DataFrame(outcomes)
    if arguments.csv is not None:
        frame.to_csv(arguments.csv, index=False)
    for by in (["zoo"], ["skew"], ["models"], ["ties"]):
        print(table(frame, ["metric", "rule", *by]), end="\n\n")
    every = ["metric", "rule", "zoo", "classes", "skew", "models", "ties"]
    worst = frame[frame["rule"] == "now"].groupby(every, sort=False)["lost"].mean()
    print(f"worst kind, now: {100 * worst.max():.1f}% {worst.idxmax()}")


if __name__ == "__main__":
    main()
