"""Test whether "probe, then fine-tune three" finds a network that is best after fine-tuning.

    python benchmarks/probe_then_tune.py [--draws 2] [--out FILE.csv]

The study was declared before it was run. Rules choose among the 48 networks of the digits zoo or those of the fashion
zoo, for images of digits or of Fashion-MNIST, so two of four settings are transfers. A draw is a practitioner's set: 30
images of each class, from the part that no network was trained on. The truth of a network is its accuracy on the
``test`` part, which no rule sees, after fine-tuning on the whole draw by the recipe of ``dsmi-zoo finetune``.

A rule picks one network, and its regret is the truth of the best of the 48 minus that of its pick, in points:

- ``static``: the highest accuracy on the data set of the networks' training, which stands for the published top-1
- ``probe``, ``centre``: the highest ``probe_accuracy``, ``centre_accuracy`` on the draw
- ``tune 3``: the best in cross-validation with fine-tuning, among the first three by the probe and the static pick, as
  ``finetune --top 3`` recommends
- ``random``: the mean of the 48

"Probe, then tune three" counts as confirmed if the mean regret of ``tune 3`` is at most 1 point and at most half of
that of ``probe``; as refuted unless it is below those of ``probe`` and ``static``; else as open. The truth comes from
one training, so the best of the 48 is partly lucky: ``again`` is the regret of that network trained with another seed.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import dsmi_zoo
from dsmi_zoo.data_catalog.models.registry import TRAINED_ZOOS, trained_models
from dsmi_zoo.pipeline.config.finetuning import FineTuning
from dsmi_zoo.pipeline.embedding.views import part_view

PER_CLASS = 30
TOP = 3
RECIPE = FineTuning()
SCORES = ("probe_accuracy", "centre_accuracy")


class Setting(NamedTuple):
    """One setting: the networks of a zoo, and a draw of images of a data set."""

    zoo: str
    dataset: str
    draw: int


class DrawnImages(NamedTuple):
    """Views, uint8 [n, h, w, 3], and labels of the draw and of the test part."""

    view: np.ndarray
    labels: np.ndarray
    test_view: np.ndarray
    test_labels: np.ndarray


def draw_images(setting: Setting, cache: Path) -> DrawnImages:
    """Return the images of a setting."""
    first = trained_models(setting.zoo)[0]
    assert first.preprocessing is not None
    assert first.img_size is not None
    (view, labels), (test_view, test_labels) = (
        part_view(cache, setting.dataset, None, part, first.img_size, first.preprocessing)
        for part in ("validation", "test")
    )
    rng = np.random.default_rng([setting.draw, *setting.dataset.encode()])
    of_classes = [
        rng.permutation(np.flatnonzero(labels == one))[:PER_CLASS] for one in np.unique(labels)
    ]
    numbers = np.sort(np.concatenate(of_classes))
    return DrawnImages(view[numbers], labels[numbers], test_view, test_labels)


def network(setting: Setting, place: int, cache: Path) -> Any:
    """Return a network of the zoo with its trained weights; they are trained unless the cache has them."""
    from dsmi_zoo.pipeline.embedding.train import train_weights
    from dsmi_zoo.pipeline.networks.timm import build_model

    entry = trained_models(setting.zoo)[place]
    assert entry.preprocessing is not None
    assert entry.img_size is not None
    train, test = (
        part_view(cache, setting.zoo, None, part, entry.img_size, entry.preprocessing)
        for part in ("train", "test")
    )
    weights = train_weights(
        cache / "tuning" / f"{setting.zoo}-{entry.model}.safetensors", entry, train, test
    )
    return build_model(entry, weights)


def scored(task: tuple[Setting, int, Path]) -> dict[str, Any]:
    """Return the scores of a network without fine-tuning, and its accuracy on the data set of its training."""
    import torch

    from dsmi_zoo.pipeline.embedding.embed import embed
    from dsmi_zoo.pipeline.embedding.train import stored_top1

    setting, place, cache = task
    torch.set_num_threads(1)
    entry, images = trained_models(setting.zoo)[place], draw_images(setting, cache)
    assert entry.preprocessing is not None
    model = network(setting, place, cache)
    Z = embed(model, images.view, entry.preprocessing, torch.device("cpu")).values
    top1 = stored_top1(cache / "tuning" / f"{setting.zoo}-{entry.model}.safetensors")
    values = dsmi_zoo.measure(Z, images.labels, scores=SCORES)
    return {**setting._asdict(), "place": place, "model": entry.model, "top1": top1, **values}


def tuned(task: tuple[Setting, int, str, Path]) -> dict[str, Any]:
    """Return the accuracy (%) of a fine-tuned network, on the test part or in cross-validation."""
    import torch

    setting, place, what, cache = task
    torch.set_num_threads(1)
    images = draw_images(setting, cache)
    if what == "cross-validation":
        parts = RECIPE.held_out(images.labels)
        hits = [
            after_tuning(
                setting,
                place,
                images,
                np.setdiff1d(np.arange(len(images.labels)), part),
                part,
                fold,
                cache,
            )
            for fold, part in enumerate(parts)
        ]
        accuracy = 100 * float(np.concatenate(hits).mean())
    else:
        whole = DrawnImages(
            np.concatenate([images.view, images.test_view]),
            np.concatenate([images.labels, images.test_labels]),
            *images[2:],
        )
        n = len(images.labels)
        unseen = np.arange(n, len(whole.labels))
        hits_there = after_tuning(
            setting, place, whole, np.arange(n), unseen, 100 * (what == "again"), cache
        )
        accuracy = 100 * float(hits_there.mean())
    return {**setting._asdict(), "place": place, what: accuracy}


def after_tuning(
    setting: Setting,
    place: int,
    images: DrawnImages,
    train: np.ndarray,
    unseen: np.ndarray,
    fold: int,
    cache: Path,
) -> np.ndarray:
    """Fine-tune a network on the images ``train``; return which images ``unseen`` it classifies correctly, bool [k]."""
    import torch

    from dsmi_zoo.pipeline.embedding.embed import View
    from dsmi_zoo.pipeline.embedding.finetune import fine_tune, predicted, with_new_classifier

    entry, cpu, seed = trained_models(setting.zoo)[place], torch.device("cpu"), RECIPE.seed + fold
    assert entry.preprocessing is not None
    view = View(images.view, entry.preprocessing)
    classes = np.unique(images.labels, return_inverse=True)[1]
    torch.manual_seed(seed)
    model = with_new_classifier(network(setting, place, cache), int(classes.max()) + 1, None, view)
    fine_tune(model, view, classes, train, RECIPE, cpu, seed)
    return np.asarray(predicted(model, view, unseen, cpu) == classes[unseen])


def run_setting(pool: Any, setting: Setting, cache: Path) -> pd.DataFrame:
    """Return the 48 networks of a setting with scores and accuracies; only finalists have a cross-validated one."""
    count = len(trained_models(setting.zoo))
    found = pd.DataFrame(pool.map(scored, [(setting, place, cache) for place in range(count)], 1))
    found = found.set_index("place")
    by_probe = found["probe_accuracy"].sort_values(ascending=False, kind="stable").index[:TOP]
    finalists = dict.fromkeys([*by_probe, found["top1"].idxmax()])
    tasks = [(setting, place, "truth", cache) for place in range(count)]
    tasks += [(setting, place, "cross-validation", cache) for place in finalists]
    for number, values in enumerate(pool.imap_unordered(tuned, tasks, 1)):
        print(f"{setting}: {number + 1} of {len(tasks)}", end="\r", file=sys.stderr, flush=True)
        what = "truth" if "truth" in values else "cross-validation"
        found.loc[values["place"], what] = values[what]
    best = int(found["truth"].idxmax())
    found.loc[best, "again"] = pool.apply(tuned, ((setting, best, "again", cache),))["again"]
    return found


def regrets(found: pd.DataFrame) -> dict[str, float]:
    """Return the regret of each rule in a setting, in points."""
    truth = found["truth"]
    picks = {
        "static": found["top1"].idxmax(),
        "probe": found["probe_accuracy"].idxmax(),
        "centre": found["centre_accuracy"].idxmax(),
        f"tune {TOP}": found["cross-validation"].idxmax(),
    }
    best = truth.max()
    values = {rule: float(best - truth[pick]) for rule, pick in picks.items()}
    again = float(best - found["again"].dropna().iloc[0])
    return values | {"random": float(best - truth.mean()), "again": again}


def verdict(mean: "pd.Series[float]") -> str:
    """Return the verdict of the declared rule on the mean regrets."""
    tune, probe, static = mean[f"tune {TOP}"], mean["probe"], mean["static"]
    if tune >= probe or tune >= static:
        return "refuted"
    return "confirmed" if tune <= 1 and tune <= probe / 2 else "open"


def results(draws: int, cache: Path, out: Path) -> Iterator[tuple[Setting, pd.DataFrame]]:
    """Yield all settings with their networks; settings that are in ``out`` are not recomputed."""
    done = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=Setting._fields)
    context = get_context("spawn")
    with context.Pool(os.cpu_count()) as pool:
        for draw, zoo, dataset in product(range(draws), TRAINED_ZOOS, TRAINED_ZOOS):
            setting = Setting(zoo, dataset, draw)
            is_this = (done[list(Setting._fields)] == list(setting)).all(axis=1)
            found = (
                done[is_this].set_index("place")
                if is_this.any()
                else run_setting(pool, setting, cache)
            )
            if not is_this.any():
                found.reset_index().to_csv(out, mode="a", header=not out.exists(), index=False)
            yield setting, found


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/probe_then_tune.csv"),
        help="networks, kept between runs",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "dsmi-zoo",
        help="of trained networks",
    )
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for setting, found in results(arguments.draws, arguments.cache, arguments.out):
        columns = ["top1", *SCORES]
        rho = {
            f"rho {name}": found[name].corr(found["truth"], method="spearman") for name in columns
        }
        rows.append({**setting._asdict(), "best": found["truth"].max(), **regrets(found), **rho})
        print(
            pd.DataFrame(rows[-1:]).to_string(index=False, float_format="{:.2f}".format), flush=True
        )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    mean = table.drop(columns=list(Setting._fields)).mean()
    print("mean", mean.round(2).to_dict(), f"probe, then tune {TOP}: {verdict(mean)}", sep="\n")


if __name__ == "__main__":
    main()
