"""Embeddings and labels from files: common formats, refusals, and pickles that are never executed."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import scipy.sparse
import torch
from conftest import Command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.files import read_array, read_labels

EMBEDDING = np.random.default_rng(0).normal(size=(30, 4))
CLASSES = np.random.default_rng(1).integers(0, 3, size=30)
NAMES = np.array(["cat", "dog", "NA"])[CLASSES]
TABLE = pd.DataFrame(EMBEDDING, columns=["a", "b", "c", "d"])


def numbered(table: np.ndarray = EMBEDDING) -> pd.DataFrame:
    return pd.DataFrame(table)


def in_memory(save: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "Z.npy": lambda path: np.save(path, EMBEDDING),
    "Z.npz": lambda path: np.savez(path, features=EMBEDDING),
    "Z.npz:features": lambda path: np.savez_compressed(path, features=EMBEDDING, labels=CLASSES),
    "Z.NPY": lambda path: path.write_bytes(in_memory(np.save, EMBEDDING)),
    "a:b.npy": lambda path: np.save(path, EMBEDDING),
    "Z.pt": lambda path: torch.save(torch.tensor(EMBEDDING, requires_grad=True), path),
    "Z.pth": lambda path: torch.save({"features": torch.tensor(EMBEDDING)}, path),
    "Z.pt:features": lambda path: torch.save(
        {"features": torch.tensor(EMBEDDING), "epoch": 3}, path
    ),
    "Z.pt:0": lambda path: torch.save({0: torch.tensor(EMBEDDING), 1: None}, path),
    "legacy.pt": lambda path: torch.save(
        torch.tensor(EMBEDDING), path, _use_new_zipfile_serialization=False
    ),
    "rows.pt": lambda path: torch.save(list(torch.tensor(EMBEDDING)), path),
    "Z.safetensors": lambda path: safetensors.torch.save_file({"z": torch.tensor(EMBEDDING)}, path),
    "Z.safetensors:layer.1": lambda path: safetensors.torch.save_file(
        {"layer.1": torch.tensor(EMBEDDING), "y": torch.tensor(CLASSES)}, path
    ),
    "Z.parquet": lambda path: TABLE.to_parquet(path),
    "nullable.parquet": lambda path: TABLE.convert_dtypes().to_parquet(path),
    "indexed.parquet": lambda path: TABLE.set_index(NAMES).to_parquet(path),
    "lists.parquet": lambda path: pd.DataFrame({"z": EMBEDDING.tolist()}).to_parquet(path),
    "more.parquet:z": lambda path: pd.DataFrame(
        {"z": EMBEDDING.tolist(), "label": NAMES}
    ).to_parquet(path),
    "bare.csv": lambda path: TABLE.to_csv(path, index=False, header=False),
    "names.csv": lambda path: TABLE.to_csv(path, index=False),
    "index.csv": lambda path: TABLE.to_csv(path),
    "files.csv": lambda path: TABLE.set_index(NAMES).to_csv(path),
    "numbers.csv": lambda path: numbered().to_csv(path, index=False),
    "both.csv": lambda path: numbered().to_csv(path),
    "marked.csv": lambda path: TABLE.to_csv(path, index=False, encoding="utf-8-sig"),
    "spaces.csv": lambda path: np.savetxt(path, EMBEDDING, fmt="%.17g", delimiter=", "),
    "quoted.csv": lambda path: TABLE.to_csv(path, index=False, quoting=1),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_embedding_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    file = name if name.startswith("a:") else name.split(":")[0]
    WRITERS[name](tmp_path / file)
    last_bits = 1e-15 if name.endswith(".csv") else 0  # older versions of pandas round them
    np.testing.assert_allclose(read_array(f"{tmp_path}/{name}"), EMBEDDING, rtol=last_bits)
    np.testing.assert_allclose(read_array(Path(f"{tmp_path}/{name}")), EMBEDDING, rtol=last_bits)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_short_floats_are_read_exactly(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    short = torch.tensor(EMBEDDING).to(dtype)
    path = tmp_path / f"z.{suffix}"
    if suffix == "pt":
        torch.save(short, path)
    else:
        safetensors.torch.save_file({"z": short}, path)
    np.testing.assert_array_equal(read_array(path), short.double().numpy())


def test_whole_numbers_that_begin_like_a_header_of_two_columns_stay_data(tmp_path: Path) -> None:
    small = np.array([[0, 1], [3, 4], [5, 6]])
    numbered(small).to_csv(tmp_path / "Z.csv", index=False, header=False)
    np.testing.assert_array_equal(read_array(tmp_path / "Z.csv"), small)
    (tmp_path / "gap.csv").write_text("0.5,,1\n2,3,4\n")
    np.testing.assert_array_equal(read_array(tmp_path / "gap.csv"), [[0.5, np.nan, 1], [2, 3, 4]])


def test_the_labels_may_be_a_column_of_the_embeddings_own_table(tmp_path: Path) -> None:
    for name in ("all.csv", "all.parquet"):
        table = TABLE.assign(species=NAMES)
        table.to_csv(tmp_path / name, index=False) if name.endswith("csv") else table.to_parquet(
            tmp_path / name
        )
        labels = f"{tmp_path / name}:species"
        np.testing.assert_allclose(read_array(tmp_path / name, labels), EMBEDDING)
        assert read_labels(labels, len(NAMES)).tolist() == list(NAMES)
        with pytest.raises(
            InputError,
            match=r"column 'species' of dtype \w+, not real numbers: '\w+' in row 0; drop",
        ):
            read_array(tmp_path / name)


def test_codes_with_leading_zeros_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("code\n001\n01\n1\n2\n")
    assert read_labels(tmp_path / "y.csv", 4).tolist() == ["001", "01", "1", "2"]


def test_another_separator_is_told(tmp_path: Path) -> None:
    (tmp_path / "Z.csv").write_text("a;b\n1;2\n")
    with pytest.raises(
        InputError, match=r"Z\.csv: its columns are separated by ';'; separate them by commas"
    ):
        read_array(tmp_path / "Z.csv")


def test_nothing_advises_to_read_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "Z.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "junk.npy").write_bytes(b"junk" * 9)
    for name in ("Z.npy", "junk.npy"):
        with pytest.raises(InputError, match=r"pickled objects are never read|dtype"):
            read_array(tmp_path / name)


def test_a_first_line_that_might_be_data_is_said_to_be_taken_for_names(
    tmp_path: Path, info_log
) -> None:
    (tmp_path / "Z.csv").write_text("0,1\n0.5,0.25\n")
    np.testing.assert_array_equal(read_array(tmp_path / "Z.csv"), [[0.5, 0.25]])
    assert [record.getMessage() for record in info_log.records] == [
        f"{tmp_path / 'Z.csv'}: its first line, 0,1, is taken for names of columns, as pandas writes them; if it is "
        "data, put a line of names above it"
    ]
    (tmp_path / "Z.csv").write_text("a,b\n0,1\n0.5,0.25\n")
    np.testing.assert_array_equal(read_array(tmp_path / "Z.csv"), [[0, 1], [0.5, 0.25]])
    assert len(info_log.records) == 1


WRITERS_OF_LABELS: dict[str, Callable[[Path], Any]] = {
    "y.npy": lambda path: np.save(path, NAMES),
    "y.npz:y": lambda path: np.savez(path, y=NAMES, Z=EMBEDDING),
    "y.pt": lambda path: torch.save(torch.tensor(CLASSES), path),
    "y.pt:y": lambda path: torch.save({"y": NAMES.tolist(), "z": 1}, path),
    "y.safetensors": lambda path: safetensors.torch.save_file({"y": torch.tensor(CLASSES)}, path),
    "y.parquet": lambda path: pd.DataFrame({"y": pd.Categorical(NAMES)}).to_parquet(path),
    "y.parquet:y": lambda path: pd.DataFrame({"x": 0.5, "y": NAMES}).to_parquet(path),
    "bare.csv": lambda path: path.write_text("\n".join(NAMES) + "\n\n"),
    "bare-numbers.csv": lambda path: path.write_text("\n".join(map(str, CLASSES))),
    "floats.csv": lambda path: np.savetxt(path, CLASSES),
    "named.csv": lambda path: pd.Series(NAMES, name="class").to_csv(path, index=False),
    "numbered.csv": lambda path: pd.Series(CLASSES).to_csv(path, index=False),
    "indexed.csv": lambda path: pd.Series(NAMES).to_csv(path),
    "table.csv:y": lambda path: pd.DataFrame({"file": range(30), "y": NAMES, "z": 0.5}).to_csv(
        path
    ),
    "quoted.csv": lambda path: path.write_text("\n".join(f'"{name}, a pet"' for name in NAMES)),
}


@pytest.mark.parametrize("name", WRITERS_OF_LABELS)
def test_labels_of_anything_are_the_same_classes(tmp_path: Path, name: str) -> None:
    WRITERS_OF_LABELS[name](tmp_path / name.split(":")[0])
    labels = read_labels(f"{tmp_path}/{name}", 30)
    assert measure(EMBEDDING, labels) == measure(EMBEDDING, CLASSES)


def test_the_header_of_too_few_labels_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("label\n1\n2\n")
    assert read_labels(tmp_path / "y.csv", 3).tolist() == [1, 2]


def test_an_empty_cell_is_a_missing_label_and_the_word_nan_is_text(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text('cat\n""\nnan\nNone\n\nNA\n')
    assert read_labels(tmp_path / "y.csv", 6).tolist() == ["cat", None, "nan", "None", None, "NA"]


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def npz_of_a_pickle(path: Path, payload: Payload) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        member = in_memory(np.save, np.array([payload], dtype=object), allow_pickle=True)
        archive.writestr("Z.npy", member)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (
            "objects.npy",
            lambda path, payload: np.save(
                path, np.array([payload], dtype=object), allow_pickle=True
            ),
        ),
        ("plain.npy", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
        ("objects.npz", npz_of_a_pickle),
        ("plain.npz", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
        ("plain.pt", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
        ("new.pt", lambda path, payload: torch.save({"Z": payload}, path)),
        (
            "old.pth",
            lambda path, payload: torch.save([payload], path, _use_new_zipfile_serialization=False),
        ),
        ("plain.safetensors", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
        ("plain.parquet", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
        ("plain.csv", lambda path, payload: path.write_bytes(pickle.dumps(payload))),
    ],
)
def test_a_pickle_is_refused_and_not_executed(
    tmp_path: Path, name: str, write: Callable[[Path, Payload], object]
) -> None:
    executed = tmp_path / "executed"
    write(tmp_path / name, Payload(executed))
    refused(tmp_path / name)
    assert not executed.exists()


@pytest.mark.parametrize("name", [name for name in WRITERS if ":" not in name])
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kept=st.floats(0, 1), changed=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_damaged_file_gives_an_array_or_one_line(
    tmp_path: Path, name: str, kept: float, changed: float, byte: int
) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * (len(whole) - 1))])
    read_or_refuse(path)
    position = int(changed * (len(whole) - 1))
    path.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
    read_or_refuse(path)


def read_or_refuse(path: Path) -> None:
    for read in (read_array, lambda path: read_labels(path, 30)):
        try:
            assert isinstance(read(path), np.ndarray)
            continue
        except InputError as error:
            output = str(error)
        assert output.startswith(f"{path}: ")
        assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["Z.npy", "Z.npz", "Z.pt", "Z.pth", "Z.safetensors", "Z.parquet", "bare.csv"]
)
def test_an_empty_file_and_one_cut_in_half_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert re.search(
        rf"not a {path.suffix} file|is empty; copy or download it again", refused(path)
    )
    if name != "bare.csv":
        path.write_bytes(whole[: len(whole) // 2])
        assert re.search(rf"not a {path.suffix} file|is cut off", refused(path))


def test_a_file_of_tensors_is_read_by_its_content_and_named_if_it_is_another(
    tmp_path: Path,
) -> None:
    WRITERS["Z.safetensors"](tmp_path / "Z.pt")
    WRITERS["Z.pt"](tmp_path / "Z.safetensors")
    for name in ("Z.pt", "Z.safetensors"):
        np.testing.assert_array_equal(read_array(tmp_path / name), EMBEDDING)
    np.save(tmp_path / "Z.npy", EMBEDDING)
    path = (tmp_path / "Z.npy").rename(tmp_path / "Y.pt")
    assert "is an array of NumPy; save the array by torch.save or numpy.save" in refused(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    assert "is a Git LFS pointer, not the file itself: run git lfs pull" in refused(path)


def test_several_arrays_are_listed_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train=EMBEDDING, test=EMBEDDING)
    for name in ("a.npz", "a.npz:valid"):
        assert f"write {tmp_path}/a.npz:NAME with one of train, test" in refused(tmp_path / name)
    torch.save({f"layer{i}": torch.ones(2) for i in range(12)}, tmp_path / "a.pt")
    assert "layer9 and 2 more" in refused(tmp_path / "a.pt")
    torch.save({}, tmp_path / "b.pt")
    assert "it is empty" in refused(tmp_path / "b.pt")
    TABLE.assign(label=NAMES).to_csv(tmp_path / "a.csv", index=False)
    assert "labels are one column; write" in refused_labels(tmp_path / "a.csv")
    assert "has no column 'e'" in refused_labels(tmp_path / "a.csv:e")
    assert "leave out ':x'" in refused(saved(tmp_path / "one.npy"), ":x")


def test_a_column_of_text_in_an_embedding_is_named(tmp_path: Path) -> None:
    TABLE.assign(label=NAMES).to_csv(tmp_path / "a.csv", index=False)
    TABLE.assign(label=NAMES).to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        assert "column 'label'" in refused(tmp_path / name)
    (tmp_path / "cells.csv").write_text("a,b\n1,2\n3,four\n")
    assert "column 'b'" in refused(tmp_path / "cells.csv")
    (tmp_path / "german.csv").write_text("0,5;1,5\n2,5;3,5\n")
    refused(tmp_path / "german.csv")


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "gone.npy")
    assert "No such file" in refused(tmp_path / "gone.npz:Z")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "Z.txt").write_text("1 2")
    assert "save it as one of .npy" in refused(tmp_path / "Z.txt")
    scipy.sparse.save_npz(tmp_path / "sparse.npz", scipy.sparse.csr_matrix(EMBEDDING))
    assert "holds several arrays" in refused(tmp_path / "sparse.npz")
    torch.save({"Z": torch.eye(3).to_sparse(), "net": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert "make it dense" in refused(tmp_path / "a.pt", ":Z")
    assert "'net' is a dict" in refused(tmp_path / "a.pt", ":net")
    torch.save([torch.ones(3, 2), torch.ones(2, 2)], tmp_path / "batches.pt")
    assert "concatenate the batches" in refused(tmp_path / "batches.pt")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    refused(tmp_path / "ragged.csv")
    (tmp_path / "ragged-labels.csv").write_text("a\n1,2\n")
    refused_labels(tmp_path / "ragged-labels.csv")


def saved(path: Path) -> Path:
    np.save(path, EMBEDDING)
    return path


def refused(path: Path, name: str = "") -> str:
    return line_of(lambda: read_array(f"{path}{name}"), path)


def refused_labels(path: Path) -> str:
    return line_of(lambda: read_labels(path, 30), path)


def line_of(read: Callable[[], object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read()
    output = str(caught.value)
    assert output.startswith(f"{path.parent}/{path.name.split(':')[0]}: ")
    assert len(output.splitlines()) == 1
    return output


def test_the_command_measures_a_tensor_with_the_labels_of_a_table(
    tmp_path: Path, cli: Command
) -> None:
    torch.save(
        {"epoch": 5, "features": torch.tensor(EMBEDDING, requires_grad=True)}, tmp_path / "Z.pt"
    )
    pd.DataFrame({"file": np.arange(30), "class": NAMES}).to_csv(tmp_path / "y.csv", index=False)
    (tmp_path / "mine.py").write_text("def largest(Z, labels):\n    return labels.max()\n")
    options = ("--json", "--measure", "mine:largest")
    values = json.loads(
        cli("measure", "Z.pt:features", "y.csv:class", *options, cwd=tmp_path).stdout
    )
    expected = measure(EMBEDDING, CLASSES, scores="default")
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert values["largest"] == 2, "a measure of one's own gets classes as numbers, as in a run"
    output = cli("measure", "Z.pt:features", "y.csv", cwd=tmp_path, code=2).stderr
    assert (
        output
        == "dsmi-zoo: y.csv: labels are one column; write y.csv:NAME with one of file, class\n"
    )
