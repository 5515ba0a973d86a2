"""Pairs of backbones: the probe on both embeddings, the gain of choosing a pair, the command and its section."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.tools.pairs import pair_models
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
from dsmi_zoo.pipeline.measures.scores.probe import comparable, pair_hits
from dsmi_zoo.pipeline.store.pairs import PairHits, pairs_path, read_pairs, write_pairs
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.reports.page.build import write_report
from dsmi_zoo.reports.statistics.paired import gain_interval
from dsmi_zoo.reports.statistics.pairs import of_pairs
from dsmi_zoo.reports.statistics.ranking import ACCURACY, Quantity

N, CLASSES = 240, 6
LABELS = np.arange(N) % CLASSES
IMAGES = np.array([f"{i}.png" for i in range(N)])


def embedding(seed: int, sees: NDArray[np.int64], noise: float = 0.7) -> NDArray[np.float32]:
    """Return an embedding that tells only some groups of classes apart, [n, 12]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(sees.max() + 1, 12))
    return (centres[sees[LABELS]] + noise * rng.normal(size=(N, 12))).astype(np.float32)


ODD, THIRDS = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])


def accuracy(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return 100 * float(pair_hits(comparable(first), comparable(second), LABELS, IMAGES).mean())


def alone(Z: NDArray[np.float32]) -> float:
    return float(dsmi_zoo.measure(Z, LABELS, scores=("probe_accuracy",))["probe_accuracy"])


def test_a_pair_is_the_probe_on_both_embeddings_of_equal_variance() -> None:
    first, second = embedding(0, ODD), 1000 * embedding(1, THIRDS)
    both = np.hstack([(Z - Z.mean(0)) / np.sqrt(Z.var(0).sum()) for Z in (first, second)])
    text = dsmi_zoo.measure(both, LABELS, scores=("probe_hits",))["probe_hits"]
    ours = pair_hits(comparable(first), comparable(second), LABELS, IMAGES)
    np.testing.assert_array_equal(ours, unpack_hits(str(text)))


def test_a_partner_gains_what_it_sees_and_nothing_by_itself_or_shuffled() -> None:
    first, second = embedding(0, ODD), embedding(1, THIRDS)
    assert accuracy(first, second) > max(alone(first), alone(second)) + 30
    every = embedding(3, np.arange(CLASSES), noise=1.5)
    assert 60 < alone(every) < 95
    assert accuracy(every, every) == pytest.approx(alone(every), abs=1)
    assert accuracy(every, np.zeros_like(every)) == pytest.approx(alone(every), abs=1)
    rng = np.random.default_rng(2)
    gains = [accuracy(every, rng.permutation(second)) - alone(every) for _ in range(10)]
    assert np.mean(gains) < 0.5


def test_choosing_a_pair_of_many_gains_nothing_where_all_models_are_equal() -> None:
    truths, apparent = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        names = [f"m{i}" for i in range(12)]
        singles = {name: rng.random(N) < 0.7 for name in names}
        pairs = [
            PairHits(one, two, rng.random(N) < 0.7)
            for place, one in enumerate(names)
            for two in names[:place]
        ]
        found = of_pairs(singles, pairs, LABELS, ACCURACY)
        assert found is not None
        truths += found.low <= 0 <= found.high
        apparent.append(found.pairs[0].accuracy - found.best_accuracy)
    assert truths >= 35, "the interval of the gain holds the true one, 0"
    assert np.mean(apparent) > 1, "the best of many pairs looks better than it is"


@pytest.mark.parametrize("skew", [1, 10])
def test_the_interval_of_a_gain_holds_the_true_gain_as_often_as_it_says(skew: int) -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], [100, 100 // skew])
    quantity = Quantity("balanced_accuracy", classes)
    weights = quantity.weights(len(classes))
    held = 0
    for _ in range(1000):
        u = rng.random(len(classes))  # both right to 0.7, the first to 0.8, the second from 0.95
        low, high = gain_interval(u < 0.8, (u < 0.7) | (u > 0.95), weights)
        held += low <= 100 * (0.8 - 0.75) <= high
    assert held >= 930


@pytest.fixture
def out(small_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_run, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.long
@pytest.mark.usefixtures("without_drawing")
def test_the_command_pairs_all_models_and_the_page_says_what_a_second_one_adds(
    out: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert pair_models(out, ()) == 0
    rows = read_results(out)
    count = int((rows["status"] == "ok").sum())
    assert len(read_pairs(out)) == count * (count - 1) // 2
    page = out / "report" / "index.html"
    summary = json.loads(page.with_name("summary.json").read_text())["pairs"]
    assert summary["answer"] in capsys.readouterr().out
    assert '<h2 id="pairs">Two backbones</h2>' in page.read_text()
    assert (out / "report" / "pairs.csv").read_text().count("\n") == 1 + summary["pairs"]

    first, *others = read_pairs(out)
    write_pairs(out, [first._replace(first="0" * 16), *others])
    with caplog.at_level(logging.WARNING):
        write_report(out)
    assert "1 pair in" in caplog.text
    pairs_path(out).write_bytes(b"PAR1")
    write_report(out)
    assert "pairs.parquet: unreadable" in caplog.text


def test_pairs_that_cannot_be_are_refused_in_one_line(out: Path) -> None:
    with pytest.raises(InputError, match="has no model"):
        pair_models(out, ("resnet18",))
    name = read_results(out)["model"].iloc[0]
    with pytest.raises(InputError, match="a pair needs two models"):
        pair_models(out, (name, name))
    shutil.rmtree(out / "embeddings")
    with pytest.raises(InputError, match="0 models with a kept embedding"):
        pair_models(out, ())
