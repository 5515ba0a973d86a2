"""How often a search drops the model that is best on all images, and the accuracy lost by it.

    dsmi-zoo run --out runs/digits
    python benchmarks/search_risk.py runs/digits --draws 100

Takes the stored embeddings of a run. A draw chooses random images of each class, measures every model's linear probe on
them, and drops those that McNemar's test with Holm's correction distinguishes from the best, as a search does. A line
has the images per class, how often the model that is best on all images was dropped, how often one tied with it was (in
percent of those), the mean and greatest loss in accuracy on all images of the best remaining model, in points, and the
number of remaining models.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.hits import unpacked
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import read_subset
from dsmi_zoo.reports.statistics.ranking import tied_for_first

IMAGES_PER_CLASS = (5, 15, 45)


def kept(hits: list[np.ndarray]) -> np.ndarray:
    """Return which models a stage keeps, bool [models], from their hits on its images."""
    order = np.argsort([-one.sum() for one in hits], kind="stable")
    is_kept = np.zeros(len(hits), dtype=bool)
    is_kept[order] = tied_for_first([hits[i] for i in order])
    return is_kept


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    slugs = {(entry.model, entry.img_size): entry.slug for entry in read_run(arguments.out).entries}
    rows = read_results(arguments.out)
    rows = rows[rows["status"] == "ok"]
    labels = read_subset(arguments.out)["label"].to_numpy()
    places = [
        slugs[model, size] for model, size in zip(rows["model"], rows["img_size"], strict=True)
    ]
    embeddings = [np.load(embedding_path(arguments.out, slug)) for slug in places]
    accuracy = rows["probe_accuracy"].to_numpy(dtype=float)
    best = int(accuracy.argmax())
    tied = kept([unpacked(text) for text in rows["probe_hits"]])
    print(
        f"{len(rows)} models; {tied.sum()} are tied for first on all images, the best has {accuracy[best]:.1f}%\n"
    )
    print(
        "| images per class | best dropped | tied ones dropped | mean loss | greatest loss | models left |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for per_class in IMAGES_PER_CLASS:
        if np.unique(labels, return_counts=True)[1].min() < per_class:
            continue
        lost, dropped, dropped_tied, left = [], [], [], []
        for draw in range(arguments.draws):
            generator = np.random.default_rng([draw, per_class])
            of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            chosen = np.concatenate(
                [generator.permutation(some)[:per_class] for some in of_classes]
            )
            measured = [measure(Z[chosen], labels[chosen], scores="probe_hits") for Z in embeddings]
            is_kept = kept([unpacked(str(values["probe_hits"])) for values in measured])
            dropped.append(not is_kept[best])
            dropped_tied.append((~is_kept[tied]).mean())
            lost.append(accuracy[best] - accuracy[is_kept].max())
            left.append(is_kept.sum())
            print(
                f"{per_class} a class: {draw + 1} of {arguments.draws}", end="\r", file=sys.stderr
            )
        print(
            f"| {per_class} | {100 * np.mean(dropped):.0f}% | {100 * np.mean(dropped_tied):.0f}% | {np.mean(lost):.2f} "
            f"| {np.max(lost):.1f} | {np.mean(left):.0f} of {len(rows)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
