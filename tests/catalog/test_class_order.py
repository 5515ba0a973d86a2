"""The class of each classifier output: decided by an option or a list, else left open."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm.utils.misc
from hypothesis import assume, given
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.base import NOTHING_LEFT_OUT
from dsmi_zoo.data_catalog.datasets.class_order import (
    ClassOrders,
    class_orders,
    orders_by_name,
    with_open_order,
)
from dsmi_zoo.data_catalog.datasets.folders import ImageFiles
from dsmi_zoo.data_catalog.datasets.imagenet import imagenet_numbers, synsets
from dsmi_zoo.data_catalog.datasets.registry import open_dataset

words = st.sampled_from(["", "c", "Class", "class_", "z", "Z"])
numbers = st.integers(0, 120)
numbered = st.builds("{}{:0{}d}".format, words, numbers, st.integers(1, 3))
names_of_classes = st.lists(numbered | st.text("aBc9 _", min_size=1), min_size=2, unique=True)


def images_of(root: Path, names: list[str], dataset: str = "imagefolder") -> ImageFiles:
    labels = np.arange(len(names)).repeat(2)
    files = tuple(f"{number}.png" for number in range(len(labels)))
    return ImageFiles(dataset, root, files, labels, dict(enumerate(names)), len(names))


def perfect(ordered: list[str], names: list[str], labels: np.ndarray) -> np.ndarray:
    """Return the predictions of a perfect classifier whose outputs are the classes in this order."""
    return np.array([ordered.index(names[label]) for label in labels])


@given(names_of_classes, st.data())
def test_a_perfect_classifier_in_either_order_never_gets_a_wrong_value(
    names: list[str], data: st.DataObject
) -> None:
    """torchvision sorts class names as text, timm by number; a classifier may have either order."""
    names = sorted(names)
    text, number = names, sorted(names, key=timm.utils.misc.natural_key)
    # timm does not order names with equal keys.
    assume(len({str(timm.utils.misc.natural_key(name)) for name in names}) == len(names))
    labels = np.array(data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1)))
    orders = ClassOrders(tuple(names), orders_by_name(names))
    for ordered in (text, number):
        value, reason = orders.top1(perfect(ordered, names, labels), labels, len(names))
        assert value == 100 or (value is None and reason.startswith("class order is ambiguous ("))
    if text == number:
        assert value == 100


@given(st.sets(st.integers(0, 40), min_size=2))
def test_numbers_with_gaps_are_outputs_or_ranks_and_never_a_wrong_value(values: set[int]) -> None:
    names = [str(value) for value in sorted(values)]
    labels, width = np.arange(len(names)), max(values) + 1
    orders = ClassOrders(tuple(names), orders_by_name(names, are_outputs=True))
    for outputs in (np.array(sorted(values)), labels):
        value, reason = orders.top1(outputs, labels, width)
        assert value == 100 or (value is None and "by value" in reason and "by rank" in reason)


def test_an_ambiguity_names_both_orders_their_values_and_the_option() -> None:
    names = ["0", "1", "10", "2"]
    orders = ClassOrders(tuple(names), orders_by_name(names))
    labels = np.arange(4)
    assert orders.top1(np.array([0, 1, 3, 2]), labels, 4) == (
        None,
        "class order is ambiguous (100.0% if outputs are ordered 0, 1, 2, 10 by number, "
        "50.0% if 0, 1, 10, 2 as text): --class-order decides",
    )
    assert orders.top1(np.array([0, 1, 0, 0]), labels, 4) == (50, "")
    assert orders.top1(np.array([0, 1, 0, 0]), labels, 1000) == (None, "")


def test_a_difference_late_in_the_order_is_shown() -> None:
    names = sorted([*(f"a{letter}" for letter in "bcdefgh"), "b10", "b9"])
    _, reason = ClassOrders(tuple(names), orders_by_name(names)).top1(np.arange(9), np.arange(9), 9)
    assert "..., ah, b9, b10 by number" in reason


def test_the_numbers_of_a_table_are_the_outputs() -> None:
    names = [str(number) for number in range(12)]
    assert len(orders_by_name(names, are_outputs=True)) == 1
    assert len(orders_by_name(names)) == 2


def test_folders_of_a_thousand_synsets_have_one_order_but_not_those_of_words() -> None:
    (order,) = orders_by_name(sorted(synsets()))
    assert order.outputs == tuple(range(1000))
    words = [f"word {number:04d}" for number in range(997)]
    assert imagenet_numbers([*words, "tench", "goldfish", "great_white_shark"]) is None
    assert imagenet_numbers(["tench", "goldfish"]) is None


def test_an_option_names_an_order_or_a_file_of_classes_for_any_width(tmp_path: Path) -> None:
    images = images_of(tmp_path, ["1", "10", "2"])
    for option, outputs in (("text", (0, 1, 2)), ("number", (0, 2, 1))):
        orders, account = class_orders(images, tmp_path, NOTHING_LEFT_OUT, option)
        assert [order.outputs for order in orders.possible] == [outputs]
        assert not orders.is_open
        assert orders.identity
        assert account == NOTHING_LEFT_OUT
    listed = tmp_path / "outputs.txt"
    listed.write_bytes(b"\xef\xbb\xbf7\r\n2\r\n1\r\n7\r\n10\r\n")
    orders, _ = class_orders(images, tmp_path, NOTHING_LEFT_OUT, str(listed))
    assert [(order.outputs, order.width) for order in orders.possible] == [((2, 4, 1), 5)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1\n2\n", "it lacks the class '10'; --class-order needs one class in each line"),
        (b"a\nb\n", "it lacks the class '1' and 2 more of the 3"),
        (b"1\n2\n10\n2\n", "the class '2' is in lines 2 and 4"),
        (b"\xff\xfe1", "it is not a text in UTF-8"),
    ],
)
def test_a_file_that_lacks_a_class_or_has_it_twice_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    images = images_of(tmp_path, ["1", "10", "2"])
    with pytest.raises(InputError, match=re.escape(said)):
        class_orders(images, tmp_path, NOTHING_LEFT_OUT, str(tmp_path / "list.txt"))
    with pytest.raises(InputError, match="must be text, number or a file of class names"):
        class_orders(images, tmp_path, NOTHING_LEFT_OUT, "alphabetical")


def test_an_order_is_refused_where_labels_are_outputs() -> None:
    with pytest.raises(InputError, match="digits/validation numbers its classes itself"):
        class_orders(open_dataset("digits"), None, NOTHING_LEFT_OUT, "text")


def test_a_list_beside_the_images_decides_and_is_said(tmp_path: Path) -> None:
    images = images_of(tmp_path, ["1", "10", "2"])
    open_order, account = class_orders(images, tmp_path, NOTHING_LEFT_OUT, None)
    assert open_order.is_open
    assert open_order.identity == []
    assert account == NOTHING_LEFT_OUT
    (reading,) = with_open_order(account, open_order).readings
    assert "(1, 2, 10 by number or 1, 10, 2 as text)" in str(reading)
    (tmp_path / "classes.txt").write_text("10\n2\n1\n")
    orders, account = class_orders(images, tmp_path, NOTHING_LEFT_OUT, None)
    assert [order.outputs for order in orders.possible] == [(2, 0, 1)]
    assert not orders.is_open
    assert orders.identity
    assert "the lines of classes.txt, not" in str(account.readings[0])
    assert with_open_order(account, orders) == account


def test_a_list_that_changes_nothing_or_lacks_a_class_leaves_identities_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    same, account = class_orders(
        images_of(tmp_path, ["cat", "dog"]), tmp_path, NOTHING_LEFT_OUT, None
    )
    assert (same.identity, same.is_open, account) == ([], True, NOTHING_LEFT_OUT)
    other, account = class_orders(
        images_of(tmp_path, ["cat", "newt"]), tmp_path, NOTHING_LEFT_OUT, None
    )
    assert (other.identity, other.is_open) == ([], True)
    assert "because it lacks the class 'newt'; --class-order decides" in str(account.readings[0])
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    other, account = class_orders(
        images_of(tmp_path, ["cat", "dog"]), tmp_path, NOTHING_LEFT_OUT, None
    )
    assert other.is_open
    assert "because it is not a text in UTF-8" in str(account.readings[0])


def test_a_networks_own_list_decides_only_if_it_names_all_classes(tmp_path: Path) -> None:
    orders, _ = class_orders(
        images_of(tmp_path, ["1", "10", "2"]), tmp_path, NOTHING_LEFT_OUT, None
    )
    listed = orders.as_listed({"10": 0, "1": 1, "2": 2}, 3, "class_to_idx")
    assert listed is not None
    assert [order.outputs for order in listed.possible] == [(1, 0, 2)]
    assert orders.as_listed({"10": 0, "1": 1}, 3, "class_to_idx") is None
    assert orders.as_listed({"10": 0, "1": 1, "2": 1}, 3, "class_to_idx") is None
    assert orders.as_listed({"10": 0, "1": 1, "2": 3}, 3, "class_to_idx") is None
