"""Hostile files of embeddings and labels: each gives an array or a one-line refusal."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from hostile_input import ODD_TEXT, answer_or_refusal, bounded
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo.pipeline.measures.files import read_array, read_labels
from dsmi_zoo.pipeline.store.embedding_file import read_embedding

EMBEDDING = np.random.default_rng(0).normal(size=(8, 3))
LABELS = np.array(["a", "b"] * 4)


def in_memory(save: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def npy_of(shape: str, dtype: str = "<f8") -> bytes:
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}", bytes(64))


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def claiming(archive: bytes, size: int) -> bytes:
    """Return a zip archive whose directory claims that its first member unpacks to ``size`` bytes."""
    changed = bytearray(archive)
    directory = changed.rindex(b"PK\x01\x02")
    struct.pack_into("<I", changed, directory + 24, size)
    struct.pack_into("<I", changed, 22, size)
    return bytes(changed)


def safetensors_of(header: dict[str, Any] | bytes, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**about: Any) -> dict[str, Any]:
    return {"z": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | about}


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "npy of petabytes": ("npy", lambda: npy_of("(1000000000, 1000000)")),
    "npy of 80 GB": ("npy", lambda: npy_of("(10000000000,)")),
    "npy of 2 GB": ("npy", lambda: npy_of("(250000000,)")),
    "npy of a number without end": ("npy", lambda: npy_of(f"({'9' * 6000},)")),
    "npy of many numbers": ("npy", lambda: npy_of(f"({'9' * 300}, {'9' * 300})")),
    "npy of fewer than none": ("npy", lambda: npy_of("(-1, 8)")),
    "npy of nothing, often": ("npy", lambda: npy_of("(1000000000000,)", "|V0")),
    "npy of a call": ("npy", lambda: npy("__import__('os').system('true')")),
    "npy of deep brackets": ("npy", lambda: npy("(" * 9000)),
    "npy of objects": ("npy", lambda: npy_of("(8,)", "|O")),
    "npy whose header never ends": ("npy", lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{"),
    "npz of petabytes": ("npz", lambda: zipped("z.npy", npy_of("(1000000000, 1000000)"))),
    "npz that claims 4 GB": ("npz", lambda: claiming(zipped("z.npy", npy_of("(536870000,)")), 2**32 - 2)),
    "npz of no array": ("npz", lambda: zipped("z.npy", b"PK" * 50)),
    "npz of nothing": ("npz", lambda: in_memory(lambda file: zipfile.ZipFile(file, "w").close())),
    "safetensors of exabytes": ("safetensors", lambda: struct.pack("<Q", 2**62) + b"{}"),
    "safetensors of gigabytes": ("safetensors", lambda: safetensors_of(tensor(shape=[2**40], data_offsets=[0, 2**42]))),
    "safetensors of too many": ("safetensors", lambda: safetensors_of(tensor(shape=[2**62, 2**62]))),
    "safetensors of less": ("safetensors", lambda: safetensors_of(tensor(data_offsets=[64, 0]))),
    "safetensors of deep brackets": ("safetensors", lambda: safetensors_of(b"[" * 100_000)),
    "safetensors of a strange kind": ("safetensors", lambda: safetensors_of(tensor(dtype="F33"))),
    "safetensors of no UTF-8": ("safetensors", lambda: safetensors_of(b'{"\xff": 1}')),
    "truncated pt": ("pt", lambda: in_memory(lambda file: torch.save(torch.ones(9, 9), file))[:300]),
    "pt in deflated parts": ("pt", lambda: zipped("archive/data.pkl", bytes(9**7))),
    "pt of code": ("pt", lambda: b"cos\nsystem\n(S'touch was-run'\ntR."),
    "pt that holds itself": ("pt", lambda: b"\x80\x02]q\x00h\x00a."),
    "pt of a long number": ("pt", lambda: b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\1."),
    "csv of UTF-16": ("csv", lambda: "a,b\n1,2\n".encode("utf-16")),
    "csv of NUL": ("csv", lambda: b"a,b\n1,\0\n"),
    "csv of a long cell": ("csv", lambda: b"a,b\n1," + b"x" * 200_000 + b"\n"),
    "csv of long numbers": ("csv", lambda: b"a,b\n1," + b"9" * 6000 + b"\n2," + b"9" * 6000 + b"\nx,y"),
    "csv of ragged lines": ("csv", lambda: b"a,b\n1,2,3\n1\n"),
    "csv of quotes": ("csv", lambda: b'"a,b\n1,2\n'),
    "csv of nothing": ("csv", lambda: b"\n\n"),
    "parquet of garbage": ("parquet", lambda: b"PAR1" + b"\xff" * 100 + b"\x10\0\0\0PAR1"),
    "parquet of a long footer": ("parquet", lambda: b"PAR1" + b"\xff" * 100 + struct.pack("<I", 2**31 - 1) + b"PAR1"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suffix, content = HOSTILE[what]
    path = tmp_path / f"any.{suffix}"
    path.write_bytes(content())
    # Whether an archive's member has its claimed size shows only when it is unpacked: memory for it may be lacking.
    _, line = answer_or_refusal(lambda: read_array(path), path, may_lack_memory=True)
    assert line
    assert not (tmp_path / "was-run").exists()


def test_zeros_that_are_really_there_are_read_however_small_their_file(tmp_path: Path) -> None:
    zeros = np.zeros((30_000, 100))
    np.savez_compressed(tmp_path / "z.npz", z=zeros)
    torch.save(torch.zeros(1).expand(1000, 100), tmp_path / "z.pt")
    assert read_array(tmp_path / "z.npz").shape == (30_000, 100)
    assert read_array(tmp_path / "z.pt").shape == (1000, 100)


def parquet(file: io.BytesIO) -> None:
    pd.DataFrame(EMBEDDING, columns=["a", "b", "c"]).assign(y=LABELS).to_parquet(file)


WHOLE = {
    "npy": in_memory(np.save, EMBEDDING),
    "npz": in_memory(np.savez_compressed, z=EMBEDDING),
    "safetensors": safetensors.numpy.save({"z": EMBEDDING}),
    "pt": in_memory(lambda file: torch.save(torch.tensor(EMBEDDING), file)),
    "pth": in_memory(
        lambda file: torch.save(torch.tensor(EMBEDDING), file, _use_new_zipfile_serialization=False)
    ),
    "csv": b"a,b,c\n1,2,3\n4,5.5,-6e3\n",
    "parquet": in_memory(parquet),
}
CHANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=5)


@pytest.mark.parametrize("suffix", WHOLE)
@bounded(60)
@given(CHANGES, st.integers(0, 5000), st.booleans())
def test_a_damaged_file_is_an_array_or_refused_in_one_line(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int]], cut: int, is_cut: bool
) -> None:
    content = bytearray(WHOLE[suffix])
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path / f"any.{suffix}"
    path.write_bytes(content[: cut % len(content)] if is_cut else content)
    for read in (lambda: read_array(path), lambda: read_labels(path, 8)):
        # PyTorch's old format is a chain of pickles, and allocates what any of them claims: memory may be lacking.
        array, _ = answer_or_refusal(read, path, may_lack_memory=suffix in ("npz", "pth"))
        assert array is None or isinstance(array, np.ndarray)


CSV = st.lists(st.lists(ODD_TEXT | st.floats().map(str), min_size=1, max_size=4).map(",".join), max_size=4).map(
    lambda lines: "\n".join(lines).encode("utf-8", "replace")
)  # fmt: skip
HEADERS = st.tuples(st.sampled_from(["<f8", "|u1", "<U3", "|O", "|V0", "<f2", ">c16", "<M8[s]"]), st.lists(
    st.sampled_from([-1, 0, 1, 4, 8, 2**31, 2**62, 2**63, 2**64, 10**30]), max_size=4)).map(
    lambda parts: npy_of(str(tuple(parts[1])), parts[0])
)  # fmt: skip
TENSORS = st.builds(
    lambda dtype, shape, offsets, rest: safetensors_of(tensor(dtype=dtype, shape=shape, data_offsets=offsets) | rest),
    st.sampled_from(["F32", "BF16", "F8_E4M3", "BOOL", "I64", "F4", ""]),
    st.lists(st.sampled_from([0, 1, 4, 16, 2**32, 2**63, -1]), max_size=4),
    st.lists(st.sampled_from([0, 16, 32, 64, 2**40, 2**64 - 1]), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3), max_size=2),
)  # fmt: skip
ANY = st.one_of(
    *(st.tuples(st.just(suffix), st.binary(max_size=200)) for suffix in WHOLE),
    st.tuples(st.just("csv"), CSV),
    st.tuples(st.just("npy"), HEADERS),
    st.tuples(st.just("npz"), HEADERS.map(lambda content: zipped("z.npy", content))),
    st.tuples(st.just("safetensors"), TENSORS),
)


@bounded(300)
@given(ANY)
def test_any_file_is_an_array_or_refused_in_one_line(
    tmp_path: Path, any_file: tuple[str, bytes]
) -> None:
    suffix, content = any_file
    path = tmp_path / f"any.{suffix}"
    path.write_bytes(content)
    for read in (lambda: read_array(path), lambda: read_labels(path, 3)):
        array, _ = answer_or_refusal(read, path, may_lack_memory=suffix in ("npz", "pt", "pth"))
        assert array is None or isinstance(array, np.ndarray)


def claiming_tables() -> dict[str, pa.Table]:
    """Return tables that take a few kilobytes on disk but 1.2 GB (numbers) or 1 TB (texts) in memory."""
    number = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(150_000_000, np.int8)), pa.array([1.5])
    )
    text = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(1_000_000, np.int8)), pa.array(["x" * 10**6])
    )
    return {"numbers": pa.table({"z": number}), "texts": pa.table({"z": text})}


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_a_small_parquet_file_of_many_values_is_refused_without_them(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "any.parquet"
    pq.write_table(claiming_tables()[kind], path, row_group_size=2**28)
    _, line = answer_or_refusal(lambda: read_array(path), path)
    assert "bytes that claim to be" in line


def test_a_tensor_that_repeats_one_number_a_terabyte_long_is_refused(tmp_path: Path) -> None:
    for path, is_zip in ((tmp_path / "any.pt", True), (tmp_path / "old.pth", False)):
        torch.save(torch.zeros(1).expand(10**12), path, _use_new_zipfile_serialization=is_zip)
        _, line = answer_or_refusal(lambda file=path: read_array(file), path)
        assert "bytes that claim to be a tensor of 4e+12 bytes" in line


@pytest.mark.parametrize("what", [what for what in HOSTILE if what.startswith("np")])
def test_a_hostile_kept_embedding_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "kept.npy"
    path.write_bytes(HOSTILE[what][1]())
    _, line = answer_or_refusal(lambda: read_embedding(path, "0" * 64), path)
    assert "; rerun this model" in line
