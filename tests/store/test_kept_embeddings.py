"""Kept embeddings: read back with labels and file names, or refused with a one-line, actionable message."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_records import record_of

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256
from dsmi_zoo.pipeline.store.embedding_file import array_bytes, embedding_path
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import write_row, write_run
from dsmi_zoo.pipeline.store.subset_file import write_subset

Z = np.arange(12, dtype=np.float32).reshape(4, 3)
FILES = ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]


def entry(model: str, size: int) -> EntryRecord:
    return EntryRecord(model=model, img_size=size, slug=f"{model}-{size}", row_id=f"{model}{size}")


ENTRIES = (entry("vit", 32), entry("vit", 64), entry("resnet", 32), entry("lost", 32))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_run(tmp_path, record_of(*ENTRIES))
    subset = pd.DataFrame({"image": FILES, "label": [0, 0, 1, 1], "number": range(4), "repeat": 0})
    write_subset(tmp_path, subset.assign(input_cluster=0))
    (tmp_path / "embeddings").mkdir()
    for one in ENTRIES[:3]:
        path = embedding_path(tmp_path, one.slug)
        path.write_bytes(array_bytes(Z))
        facts = {"embedding_sha256": array_sha256(Z), "own_measures": "", "embedding_id": "e"}
        facts |= {"model": one.model, "img_size": one.img_size, "row_id": one.row_id}
        write_row(tmp_path, one.slug, {**facts, "status": "ok"})
    return tmp_path


def test_an_embedding_comes_with_its_labels_and_the_names_of_its_files(out: Path) -> None:
    found = dsmi_zoo.embedding(out, "vit@64")
    assert found.Z.dtype == np.float32
    np.testing.assert_array_equal(found.Z, Z)
    assert found.labels.tolist() == [0, 0, 1, 1]
    values, labels, files = dsmi_zoo.embedding(str(out), "resnet")
    assert (values.shape, labels.shape, list(files)) == ((4, 3), (4,), FILES)


def test_rows_say_where_their_embedding_lies(out: Path) -> None:
    embedding_path(out, "resnet-32").unlink()
    rows = dsmi_zoo.read_results(out).set_index(["model", "img_size"])["embedding_file"]
    assert rows["resnet", 32] is None
    assert rows["vit", 32] == "embeddings/vit-32.npy"
    np.testing.assert_array_equal(np.load(out / rows["vit", 64]), Z)


def test_rows_of_a_remeasured_run_name_the_other_runs_file(out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_run(again, record_of(*ENTRIES).model_copy(update={"embeddings_from": out}))
    for name in ("results", "subset.parquet"):
        (again / name).symlink_to(out / name)
    files = dsmi_zoo.read_results(again)["embedding_file"]
    assert files.tolist()[0] == str(out / "embeddings" / "resnet-32.npy")
    np.testing.assert_array_equal(dsmi_zoo.embedding(again, "resnet").Z, Z)


def dropped(out: Path) -> None:
    embedding_path(out, "resnet-32").unlink()


def damaged(out: Path) -> None:
    path = embedding_path(out, "resnet-32")
    path.write_bytes(path.read_bytes()[:-1])


def changed(out: Path) -> None:
    embedding_path(out, "resnet-32").write_bytes(array_bytes(Z + 1))


def failed(out: Path) -> None:
    row = {"model": "resnet", "img_size": 32, "row_id": "resnet32", "own_measures": ""}
    write_row(
        out, "resnet-32", {**row, "status": "failed", "error_type": "E", "error_message": "m"}
    )


@pytest.mark.parametrize(
    ("model", "prepare", "line"),
    [
        ("resent@32", None, "has no model 'resent@32'; did you mean resnet@32?"),
        ("zzz", None, "has no model 'zzz'; it has vit@32, vit@64, resnet@32 and 1 more"),
        ("vit", None, "has 'vit' at 2 sizes; choose one: vit@32, vit@64"),
        ("lost", None, "has no row of lost@32; the same `dsmi-zoo run` computes it"),
        (
            "resnet",
            dropped,
            "is missing: the run dropped its embeddings; `dsmi-zoo rerun resnet@32",
        ),
        ("resnet", damaged, "the kept embedding cannot be read"),
        ("resnet", changed, "is not the one that its row was computed from; rerun this model"),
        ("resnet", failed, "resnet@32 failed in"),
    ],
)
def test_an_embedding_that_cannot_be_had_is_refused_in_one_line(
    out: Path, model: str, prepare: Callable[[Path], None] | None, line: str
) -> None:
    if prepare is not None:
        prepare(out)
    with pytest.raises(InputError) as refused:
        dsmi_zoo.embedding(out, model)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        dsmi_zoo.embedding(tmp_path, "vit")
