"""Embeddings and labels in the forms that users have: a right answer or a one-line refusal."""

import datetime
import decimal
import fractions
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.checks import as_classes, as_embedding, as_images

few = settings(max_examples=100, deadline=None, derandomize=True)

# Exact in every floating-point format.
NUMBERS = np.array([[0.0, 1.5], [-2.0, 3.0], [4.0, 0.25], [1.0, 1.0]])
CLASSES = [0, 1, 0, 2]

TENSORS: dict[str, Callable[[], Any]] = {
    "with a gradient": lambda: torch.tensor(NUMBERS, requires_grad=True) * 1,
    "bfloat16": lambda: torch.tensor(NUMBERS, dtype=torch.bfloat16, requires_grad=True),
    "float16": lambda: torch.tensor(NUMBERS, dtype=torch.float16),
    "float8": lambda: torch.tensor(NUMBERS).to(torch.float8_e5m2),
    "a view": lambda: torch.tensor(NUMBERS).t().contiguous().t(),
    "a negative view": lambda: (
        torch.complex(torch.zeros(4, 2), -torch.tensor(NUMBERS).float()).conj().imag
    ),
    "quantised": lambda: torch.quantize_per_tensor(
        torch.tensor(NUMBERS).float(), 0.25, 0, torch.qint8
    ),
    "a parameter": lambda: torch.nn.Parameter(torch.tensor(NUMBERS)),
    "a list of rows": lambda: list(torch.tensor(NUMBERS, requires_grad=True)),
    "a list of lists": lambda: [
        [torch.tensor(x, requires_grad=True) for x in row] for row in NUMBERS
    ],
}
TABLES: dict[str, Callable[[], Any]] = {
    "float32": lambda: pd.DataFrame(NUMBERS, columns=["a", "b"], dtype="float32"),
    "nullable": lambda: pd.DataFrame(NUMBERS).astype("Float64"),
    "of Arrow": lambda: pd.DataFrame(NUMBERS).astype("double[pyarrow]"),
    "categories": lambda: pd.DataFrame({"a": pd.Categorical(NUMBERS[:, 0]), "b": NUMBERS[:, 1]}),
    "two formats": lambda: pd.DataFrame(
        {"a": pd.array(NUMBERS[:, 0].astype(int), "Int8"), "b": NUMBERS[:, 1]}
    ),
    "one name twice": lambda: pd.DataFrame(NUMBERS, columns=["a", "a"], index=[7, 7, 0, 1]),
    "a series of arrays": lambda: pd.Series(list(NUMBERS)),
    "a series of lists": lambda: pd.Series(NUMBERS.tolist()),
}
PLAIN: dict[str, Callable[[], Any]] = {
    "lists": lambda: NUMBERS.tolist(),
    "tuples": lambda: tuple(map(tuple, NUMBERS.tolist())),
    "a list of arrays": lambda: list(NUMBERS),
    "a matrix": lambda: np.asmatrix(NUMBERS),
    "nothing masked": lambda: np.ma.masked_array(NUMBERS),
    "another byte order": lambda: NUMBERS.astype(">f4"),
}


@pytest.mark.filterwarnings("ignore:.*(quantize|PendingDeprecation|matrix subclass)")
@pytest.mark.parametrize(
    "made", [*TENSORS.values(), *TABLES.values(), *PLAIN.values()], ids=[*TENSORS, *TABLES, *PLAIN]
)
def test_an_embedding_in_any_form_is_the_same_numbers(made: Callable[[], Any]) -> None:
    embedding = as_embedding(made())
    assert embedding.dtype == np.float64
    np.testing.assert_array_equal(embedding, NUMBERS)


def test_a_measurement_leaves_the_tensor_and_its_gradient_alone() -> None:
    Z = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(12) % 3
    values = measure(Z, labels)
    assert values == measure(Z.detach().numpy(), labels.numpy())
    assert Z.requires_grad
    assert Z.grad is None


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "cat", "a bird"],
        np.array(["cat", "dog", "cat", "a bird"]),
        torch.tensor(CLASSES),
        torch.tensor(CLASSES, dtype=torch.bfloat16, requires_grad=True),
        torch.tensor([CLASSES]).T,
        [torch.tensor(label) for label in CLASSES],
        pd.Series([torch.tensor(label) for label in CLASSES]),
        pd.Series([3, 1, 3, 2], index=[9, 9, 1, 0]),
        pd.Series([3, 1, 3, 2], dtype="Int64"),
        pd.Series([3, 1, 3, 2], dtype="int64[pyarrow]"),
        pd.Series(["x", "y", "x", "z"]),
        pd.Series(["x", "y", "x", "z"], dtype="string"),
        pd.Series(["x", "y", "x", "z"], dtype="category"),
        pd.Series([5, 1, 5, 9], dtype="category"),
        pd.Series(pd.to_datetime(["2024-01-01", "2025-01-01", "2024-01-01", "2026-01-01"])),
        pd.DataFrame({"label": ["x", "y", "x", "z"]}),
        pd.Index(["x", "y", "x", "z"]),
        pd.Categorical(["x", "y", "x", "z"]),
        [2**63, -1, 2**63, 2**70],
        ["1", 1, "1", b"1"],
        ["a", "a\0", "a", "b"],
        pd.Series([(1, 2), (1, 3), (1, 2), (4, 4)]),
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_labels_in_any_form_are_the_same_classes(labels: Any) -> None:
    assert as_classes(labels, 4).tolist() == CLASSES
    assert as_images(labels, np.array(CLASSES)).tolist() == CLASSES


@pytest.mark.parametrize(
    "labels", [[True, False, True], torch.tensor([True, False, True]), np.array([1, 0, 1], bool)]
)
def test_two_truth_values_are_two_classes(labels: Any) -> None:
    assert as_classes(labels, 3).tolist() == [0, 1, 0]
    assert as_classes(pd.Series([True, False, True], dtype="boolean"), 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "Z is None"),
        ("Z.npy", "Z is text, not an array"),
        ({"features": NUMBERS, "labels": []}, "a dict, not an array; pass one of its values (features, labels)"),
        ({1, 2}, "Z is a set, not an array"),
        (iter(NUMBERS), "Z is a iterator"),
        (NUMBERS * 1j, "dtype complex128, not real numbers; take its absolute value"),
        (torch.tensor(NUMBERS) * 1j, "dtype torch.complex128, not real numbers"),
        (torch.tensor(NUMBERS).to_sparse(), "sparse tensor; make it dense, by Z.to_dense()"),
        (torch.zeros(3, 2, device="meta"), "meta device"),
        (scipy.sparse.csr_array(NUMBERS), "Z is sparse; make it dense, by Z.toarray()"),
        (scipy.sparse.coo_matrix(NUMBERS), "Z is sparse; make it dense, by Z.toarray()"),
        (pd.DataFrame(NUMBERS).astype(pd.SparseDtype("float64")), "Z is sparse; make it dense, by Z.sparse.to_dense()"),
        (np.ma.masked_less(NUMBERS, 0), "Z has masked values"),
        ([[1, 2], [3], [4, 5]], "its rows differ in length or shape"),
        ([1, [2, 3]], "its rows differ in length or shape"),
        ([[1, [2]], [3, 4]], "its rows differ in length or shape"),
        ([torch.ones(3, 2, requires_grad=True), torch.ones(2, 2)], "its rows differ in length or shape"),
        (pd.DataFrame({"a": [1.0, 2.0], "name": ["x", "y"]}), "dtype str, not real numbers: 'x' in row 0; drop it"),
        (pd.DataFrame({"name": ["x", "y"]}), "column 'name' of dtype str"),
        (pd.DataFrame([[1, "2"], [3, "x"]], columns=["a", "a"]), "'x' in row 1; drop it"),
        (pd.DataFrame({"a": [1, 2], "o": np.array([1, 2], dtype=object)}), "column 'o' of dtype object"),
        (pd.DataFrame({"a": [1, 2], "c": pd.Categorical(["x", "y"])}), "column 'c' of dtype category"),
        (pd.DataFrame({"a": [1, 2], ("t", 0): pd.to_datetime([1, 2])}), "column \"('t', 0)\" of dtype datetime64"),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1.0, 2.0]}), "1 values that are NaN"),
        (np.array([[1, 2], [3, "x"]], dtype=object), "dtype object, not real numbers: column 1 holds 'x' in row 1"),
        ([[1, 2], [3, "x"]], "column 1 holds 'x' in row 1"),
        (pd.Series([1.0, 2.0]), "shape [2] where [n, d] is needed"),
        (pd.DataFrame(index=range(3)), "empty"),
        (np.array([[1, 2]], dtype="datetime64[s]"), "dtype datetime64"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_is_told_in_one_line(bad: Any, words: str) -> None:
    refused(words, as_embedding, bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "labels is None"),
        (["a", np.nan, "b"], "1 missing entries, the first in row 1"),
        (pd.Series(["a", None, "b"]), "1 missing entries, the first in row 1"),
        (pd.Series(["a", None, "b"], dtype="category"), "1 missing entries"),
        (pd.Series([1, None, 2], dtype="category"), "1 missing entries"),
        (pd.Series([True, None, False], dtype="boolean"), "1 missing entries"),
        (pd.to_datetime(pd.Series(["2024-01-01", None, "2025-01-01"])), "1 missing entries"),
        ([decimal.Decimal("sNaN"), 1, 2], "1 missing entries"),
        ([fractions.Fraction(1, 2), 1, 2], "look continuous"),
        ([np.inf, 1, 2], "beyond 2^53"),
        (np.array([2.0**60, 2.0**60 + 1, 0]), "beyond 2^53"),
        (np.array([0, 1, 1j]), "dtype complex128"),
        (pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}), "[n] or [n, 1] is needed"),
        ({"a": 1}, "a dict"),
        (np.array([{"cat"}, {"dog"}, {"cat"}]), "numbers, strings or the like"),
        (scipy.sparse.csr_array(np.eye(3)), "sparse"),
        (torch.eye(3).to_sparse(), "sparse"),
    ],
)
def test_what_are_no_labels_is_told_in_one_line(bad: Any, words: str) -> None:
    refused(words, as_classes, bad, 3)


def test_missing_image_ids_are_refused_not_taken_for_images_of_their_own() -> None:
    refused(
        "image_ids has 1 missing entries, the first in row 2",
        as_images,
        ["a", "b", None],
        np.array([0, 1, 0]),
    )
    refused(
        "image_ids has 1 missing",
        as_images,
        pd.Series([1, None, 2], dtype="Int64"),
        np.array([0, 1, 0]),
    )


def refused(words: str, function: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1


# Arbitrary Python values

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.floats(-2, 2),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=2),
    st.decimals(),
    st.fractions(),
    st.dates(),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.sampled_from(
        [np.float32(1), np.int8(1), np.str_("a"), np.datetime64("NaT"), datetime.timedelta(1)]
    ),
    st.integers(0, 2).map(torch.tensor),
    st.floats(0, 2).map(lambda value: torch.tensor(value, requires_grad=True)),
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.lists(st.integers(0, 3), max_size=3).map(frozenset),
    ),
    max_leaves=12,
)
SHAPES = st.tuples(st.integers(0, 4), st.integers(0, 3))
DTYPES = [
    "bool",
    "int8",
    "uint64",
    "float16",
    "float64",
    "longdouble",
    "complex64",
    "U2",
    "S2",
    "datetime64[D]",
    "O",
]
PANDAS = [
    "Int8",
    "UInt64",
    "Float32",
    "boolean",
    "category",
    "string",
    "object",
    "double[pyarrow]",
    "Sparse[float64]",
]
TORCH = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
]


@st.composite
def containers(draw: st.DrawFn) -> Any:
    """Draw values in a container that a user may have."""
    shape = draw(
        st.one_of(SHAPES, st.integers(0, 4).map(lambda n: (n,)), st.just((2, 2, 2)), st.just(()))
    )
    values = draw(
        st.lists(
            st.sampled_from([0, 1, 2, 3]),
            min_size=int(np.prod(shape)),
            max_size=int(np.prod(shape)),
        )
    )
    array = np.array(values).reshape(shape)
    kind = draw(
        st.sampled_from(["numpy", "pandas", "torch", "masked", "sparse", "column of objects"])
    )
    if kind == "numpy":
        return array.astype(draw(st.sampled_from(DTYPES)))
    if kind == "torch":
        tensor = torch.tensor(array).to(draw(st.sampled_from(TORCH)))
        return tensor.to_sparse() if draw(st.booleans()) and tensor.ndim else tensor
    if kind == "masked":
        return np.ma.masked_equal(array, draw(st.integers(0, 4)))
    if kind == "sparse" and array.ndim == 2:
        return scipy.sparse.csc_matrix(array)
    if kind == "pandas" and array.ndim in (1, 2):
        dtype = draw(st.sampled_from(PANDAS))
        made = pd.Series(array) if array.ndim == 1 else pd.DataFrame(array)
        return made.astype("bool").astype(dtype) if dtype == "boolean" else made.astype(dtype)
    objects = np.empty(4, dtype=object)
    for position in range(4):
        objects[position] = draw(st.one_of(scalars, st.just(np.ones(2)), st.just([1, 2])))
    return draw(st.sampled_from([objects, pd.Series(objects), pd.DataFrame({"o": objects})]))


def result_or_line(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result, or None if it raises a one-line ValueError."""
    try:
        return function(*arguments)
    except ValueError as error:
        told = str(error)
    assert len(told.splitlines()) == 1, told
    assert len(told) < 300
    return None


@few
@given(st.one_of(nested, containers()))
def test_any_embedding_gives_its_numbers_or_one_line(values: Any) -> None:
    embedding = result_or_line(as_embedding, values)
    if embedding is None:
        return
    assert embedding.ndim == 2
    assert np.isfinite(embedding).all()
    rows = values.to_numpy() if isinstance(values, pd.DataFrame) else values
    for found, row in zip(embedding.tolist(), rows, strict=True):
        for number, value in zip(found, row, strict=True):
            assert number == float(value.item() if isinstance(value, torch.Tensor) else value)


@few
@given(st.one_of(nested, st.lists(scalars, min_size=2, max_size=6), containers()))
def test_any_labels_tell_apart_what_differs_or_give_one_line(values: Any) -> None:
    try:
        n = len(values)
    except TypeError:
        n = 3
    classes = result_or_line(as_classes, values, n)
    if classes is None:
        return
    plain = values.iloc[:, 0] if isinstance(values, pd.DataFrame) else values
    labels = [
        label.item() if isinstance(label, torch.Tensor | np.generic) else label for label in plain
    ]
    labels = [
        label[0] if isinstance(label, list | np.ndarray) and len(label) == 1 else label
        for label in labels
    ]
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            assert (classes[i] == classes[j]) == bool(first == second), (first, second)


def test_no_library_is_imported_for_a_measurement_of_arrays() -> None:
    code = (
        "import sys, numpy as np; from dsmi_zoo.pipeline.measures.core.checks import as_classes, as_embedding\n"
        "as_embedding([[1, 2], [3, 4]]); as_classes(['a', 'b'], 2)\n"
        "print({'torch', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_form_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in (
            *TABLES.values(),
            *(made for name, made in TENSORS.items() if name != "quantised"),
        ):
            as_embedding(made())
