"""Accuracy per class, from the rows' hits, and confusions, from the kept embeddings, on the choice page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_records import record_of
from sklearn.linear_model import RidgeClassifier

from dsmi_zoo._util.files import array_sha256
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.hits import pack_hits, wilson_interval
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.scores.probe import hits
from dsmi_zoo.pipeline.store.embedding_file import array_bytes, embedding_path
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.pipeline.store.subset_file import write_subset
from dsmi_zoo.reports.page import classes as classes_module
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.classes import per_class, predictions
from dsmi_zoo.reports.statistics.classes import images_of, most_confused
from dsmi_zoo.reports.statistics.ranking import rank

PER_CLASS = 8


def run_of(out: Path, k: int, models: int = 2) -> tuple[pd.DataFrame, RunRecord]:
    """Write and return a run of k classes, which are clusters on a circle, so that neighbours are confused."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(k), PER_CLASS)
    files = [f"class<{label}>/{i}.png" for i, label in enumerate(labels)]
    subset = pd.DataFrame({"image": files, "label": labels, "number": range(len(labels))})
    write_subset(out, subset.assign(repeat=0, input_cluster=0))
    entries, rows = [], []
    for m in range(models):
        angle = 2 * np.pi * labels / k
        Z = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(
            size=(len(labels), 2)
        )
        Z = Z.astype(np.float32)
        entry = EntryRecord(model=f"net{m}", img_size=64, slug=f"net{m}", row_id=f"r{m}")
        embedding_path(out, entry.slug).parent.mkdir(exist_ok=True)
        embedding_path(out, entry.slug).write_bytes(array_bytes(Z))
        right = hits(MeasureContext(Z, labels, np.array(files), None, MeasureSettings()))
        low, high = wilson_interval(int(right.sum()), len(right))
        rows.append({
            "model": entry.model, "img_size": 64, "status": "ok", "own_measures": "", "architecture": entry.model,
            "row_id": entry.row_id, "embedding_id": "e", "embedding_sha256": array_sha256(Z),
            "n_samples": len(labels), "embedding_dim": 2, "probe_accuracy": 100 * right.mean(), "probe_low": low,
            "probe_high": high, "probe_hits": pack_hits(right), "dsmi_z_y": 0.5, "versions": "{}",
            "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
        })  # fmt: skip
        entries.append(entry)
    record = record_of(*entries)
    subset_settings = record.config.subset.model_copy(update={"dataset": "imagefolder"})
    config = record.config.model_copy(update={"subset": subset_settings})
    return rows_frame(rows), record.model_copy(update={"config": config})


def test_confusions_are_those_of_ridge_classifiers_that_have_not_seen_the_image(
    tmp_path: Path,
) -> None:
    rows, record = run_of(tmp_path, 3)
    best = list(rank(rows).models)
    found = per_class(rows, record, best, tmp_path, recompute=True)
    assert found is not None
    images, models = found
    assert images.names == ("class<0>", "class<1>", "class<2>")
    for model in models:
        assert model.matrix is not None
        diagonal = [accuracy.correct for accuracy in model.accuracies]
        assert np.diag(model.matrix).tolist() == diagonal
        assert model.matrix.sum(axis=1).tolist() == [PER_CLASS] * 3
    Z = np.load(embedding_path(tmp_path, "net0"))
    subset = classes_module.read_subset(tmp_path)
    by_us = predictions(Z, subset, images)
    labels = subset["label"].to_numpy()
    least = np.inf
    centred = Z - Z.mean(0)
    scale = (centred.astype(float) ** 2).sum() / 2
    for penalty in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0):
        scores = np.empty((len(Z), 3))
        for i in range(len(Z)):
            # Centred and scaled with all images, because the penalty is in units of the total scatter.
            others = np.arange(len(Z)) != i
            probe = RidgeClassifier(alpha=penalty * scale).fit(centred[others], labels[others])
            scores[i] = probe.decision_function(centred[i : i + 1])[0]
        error = ((np.where(labels[:, None] == np.arange(3), 1, -1) - scores) ** 2).sum()
        if error < least:
            least, by_sklearn = error, scores.argmax(axis=1)
    assert (by_us != labels).any()
    np.testing.assert_array_equal(by_us, by_sklearn)


def test_few_classes_have_a_matrix_for_each_of_the_best_models(tmp_path: Path) -> None:
    rows, record = run_of(tmp_path, 3)
    page = write_page(rows, record, tmp_path / "report", source=tmp_path).read_text()
    assert "Accuracy per class" in page
    assert page.count("<summary>Confusion matrix: net") == 2
    assert "class&lt;0&gt;" in page
    assert "class<0>" not in page
    table = pd.read_csv(tmp_path / "report" / "classes.csv")
    assert table.groupby("model")["correct"].sum().to_dict() == {
        f"{row.model}@64": round(row.probe_accuracy * row.n_samples / 100)
        for row in rows.itertuples()
    }
    confused = pd.read_csv(tmp_path / "report" / "confusions.csv")
    assert confused["images"].sum() == 2 * 3 * PER_CLASS


def test_many_classes_show_the_worst_and_the_most_confused_pairs(tmp_path: Path) -> None:
    rows, record = run_of(tmp_path, 100, models=1)
    page = write_page(rows, record, tmp_path / "report", source=tmp_path).read_text()
    section = page.split("Accuracy per class")[1].split('id="explore"')[0]
    assert "<summary>Most confused classes: net0@64" in section
    accuracies, confused = section.split("<tbody>")[1:3]
    assert accuracies.split("</tbody>")[0].count("<tr>") == 10
    assert confused.split("</tbody>")[0].count("<tr>") == 10
    assert "90 other classes" in section
    assert len(pd.read_csv(tmp_path / "report" / "classes.csv")) == 100


def dropped(out: Path) -> None:
    for path in (out / "embeddings").iterdir():
        path.unlink()


def changed(out: Path) -> None:
    for path in (out / "embeddings").iterdir():
        path.write_bytes(array_bytes(np.load(path) + 1))


@pytest.mark.parametrize(
    ("lose", "why"),
    [
        (dropped, "No confusions of net0@64: its embedding was dropped."),
        (changed, "is not the one that its row was computed from; rerun this model."),
    ],
)
def test_without_its_embedding_a_model_keeps_its_accuracies_and_the_page_says_why(
    tmp_path: Path, lose: Any, why: str
) -> None:
    rows, record = run_of(tmp_path, 3, models=1)
    lose(tmp_path)
    page = write_page(rows, record, tmp_path / "report", source=tmp_path).read_text()
    assert "Accuracy per class" in page
    assert "Confusion matrix" not in page
    assert why in page
    assert not (tmp_path / "report" / "confusions.csv").exists()


def test_too_much_work_is_left_out_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, record = run_of(tmp_path, 3)
    work = 24 * 2 * 2
    best = [model for model in rank(rows).models if model.tied_for_first]
    for most, matrices in ((2 * work, 2), (work, 1), (work - 1, 0)):
        monkeypatch.setattr(classes_module, "MOST_WORK", most)
        found = per_class(rows, record, best, tmp_path, recompute=True)
        assert found is not None
        assert [model.matrix is not None for model in found[1]].count(True) == matrices
        assert all(model.matrix is not None or "too long" in model.why for model in found[1])


def test_the_names_of_classes_come_from_the_record_then_folders_then_labels() -> None:
    subset = pd.DataFrame({"image": ["a/1", "a/2", "3", "4"], "label": [2, 2, 5, 5]})
    assert images_of(subset, ("cat", "dog")).names == ("cat", "dog")
    assert images_of(subset, None).names == ("a", "5")
    repeated = pd.concat([subset, subset])
    assert images_of(repeated, None).sizes.tolist() == [2, 2]


def test_pairs_that_are_never_confused_are_not_listed() -> None:
    assert most_confused(np.array([[5, 2, 0], [0, 7, 3], [0, 0, 7]]), 5) == [(1, 2, 3), (0, 1, 2)]


def test_a_published_page_follows_from_its_rows_and_has_no_confusions(tmp_path: Path) -> None:
    rows, record = run_of(tmp_path, 3)
    found = per_class(rows, record, list(rank(rows).models), tmp_path, recompute=False)
    assert found is not None
    assert all(model.matrix is None and not model.why for model in found[1])
