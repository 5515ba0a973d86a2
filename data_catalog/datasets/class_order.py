"""The mapping from the classes of a data set to the outputs of a classifier.

The data set numbers its labels, but whoever trained a classifier numbered its outputs: torchvision sorts the names of
folders as text, timm by the numbers in them, and a list of classes may have any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.text import natural_order, printable, shortened, shown

from .base import Account, LabelledImages
from .imagenet import imagenet_numbers
from .names import OWN_IMAGES

OPTION = "--class-order"
LEFT_EMPTY = "subset_top1 is left empty where it depends on the order of the classes"
LIST_FILES = ("classes.txt", "labels.txt")
SHOWN = 4  # class names of an order, in messages
MAX_OUTPUT = 10**6  # class names that are numbers below this may be output indices


@dataclass(frozen=True)
class ClassOrder:
    """The output index of each class, by label, in a classifier of ``width`` outputs; -1 where it is unknown.

    ``words`` describe the order in messages.
    """

    words: str
    outputs: tuple[int, ...]
    width: int

    def top1(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        """Return the percentage of correct predictions."""
        return 100 * float(np.mean(predictions == np.array(self.outputs)[labels]))


@dataclass(frozen=True)
class ClassOrders:
    """The possible orders of a classifier's outputs.

    Attributes
    ----------
    names : the classes' names, by label
    possible : the orders
    decided_by : str
        The option or file that determined the order, if any; the order is then part of an embedding's identity.
    is_open : bool
        Whether a list of classes in a network or its checkpoint takes precedence.
    """

    names: tuple[str, ...] = ()
    possible: tuple[ClassOrder, ...] = ()
    decided_by: str = ""
    is_open: bool = False

    @property
    def identity(self) -> list[str]:
        """The order's part of an embedding's identity; empty unless an option or a file determined the order."""
        if not self.decided_by:
            return []
        return [f"class_order={content_hash(*((o.outputs, o.width) for o in self.possible))}"]

    def as_listed(self, outputs: Mapping[str, int], width: int, source: str) -> Self | None:
        """Return the order in a network's own list of classes; None unless each class has its own valid output."""
        numbers = [outputs.get(name, -1) for name in self.names]
        if len(set(numbers)) < len(numbers) or not all(0 <= number < width for number in numbers):
            return None
        return replace(self, possible=(ClassOrder(f"as {source}", tuple(numbers), width),))

    def top1(
        self, predictions: np.ndarray, labels: np.ndarray, width: int
    ) -> tuple[float | None, str]:
        """Return the top-1 accuracy in percent of a classifier with ``width`` outputs.

        Returns
        -------
        value : None if no order has this width, or the orders that have it give different values
        reason : why ambiguous orders leave the value empty, else ""
        """
        values = {
            order.words: order.top1(predictions, labels)
            for order in self.possible
            if order.width == width
        }
        if len(set(values.values())) <= 1:
            return next(iter(values.values()), None), ""
        (words, value), *others = values.items()
        each = [f"{value:.1f}% if outputs are ordered {words}"]
        each += [f"{value:.1f}% if {words}" for words, value in others]
        return None, f"class order is ambiguous ({', '.join(each)}): {OPTION} decides"


NO_ORDER = ClassOrders()
"""For images whose classes are not known to match the outputs of any classifier."""


def class_orders(
    images: LabelledImages, root: Path | None, account: Account, given: str | None
) -> tuple[ClassOrders, Account]:
    """Return the possible orders for a data set, and the account with the list of classes that decided, if any.

    Parameters
    ----------
    root
        The folder of the images, which may hold a list of the classes.
    given
        ``text``, ``number``, or a file with one class name per line; None leaves it to the data set.

    Raises
    ------
    InputError
        For an order that does not apply to the data set, or a file that lacks a class.
    """
    if images.name not in OWN_IMAGES or root is None:
        if given is not None:
            sets = " and ".join(OWN_IMAGES)
            raise InputError(
                f"{OPTION} applies to the data sets {sets}; {images.name} numbers its classes itself"
            )
        width = images.classifier_width
        if width is None:
            return NO_ORDER, account
        by_label = ClassOrder("as labels", tuple(range(width)), width)
        return ClassOrders(possible=(by_label,)), account
    names = tuple(images.class_names[label] for label in sorted(images.class_names))
    if given is not None:
        order = _given_order(names, given)
        return ClassOrders(names, (order,), decided_by=OPTION), account
    possible = orders_by_name(names, are_outputs=images.name == "csv")
    return _order_beside(root, ClassOrders(names, possible, is_open=True), account)


def _order_beside(
    root: Path, by_name: ClassOrders, account: Account
) -> tuple[ClassOrders, Account]:
    """Return the order in a list of classes beside the images if it makes a difference, else the orders by name."""
    for file in LIST_FILES:
        if not is_file(root / file):
            continue
        order, problem = _listed_order(by_name.names, root / file)
        if order is not None:
            known = [(one.outputs, one.width) for one in by_name.possible]
            if known == [(order.outputs, order.width)]:
                return by_name, account
            account = account.reading(
                f"a classifier's outputs are the lines of {file}",
                other="the classes in the order of their names",
                option=OPTION,
            )
            return replace(by_name, possible=(order,), decided_by=file, is_open=False), account
        if file == "classes.txt":
            account = account.reading(
                "a classifier's outputs are the classes in the order of their names",
                other=f"the lines of {file}, because {problem}",
                option=OPTION,
            )
    return by_name, account


def with_open_order(account: Account, orders: ClassOrders) -> Account:
    """Return the account with a reading if several orders of the classes are possible."""
    words = [order.words for order in orders.possible if order.width == len(orders.names)]
    if len(words) < 2:
        return account
    return account.reading(
        f"{LEFT_EMPTY} ({' or '.join(words)})",
        other="computed by one of them",
        option=OPTION,
    )


def orders_by_name(names: Sequence[str], *, are_outputs: bool = False) -> tuple[ClassOrder, ...]:
    """Return the orders of outputs that the class names suggest; several if the names are ambiguous.

    Parameters
    ----------
    names
        The class names, by label.
    are_outputs
        Whether names that are the numbers from 0 on are output indices, as in a table of labels.
    """
    by_number, as_text = _by_number(names), sorted(names)
    values = _whole_numbers(names)
    if are_outputs and values is not None and set(values) == set(range(len(names))):
        return (ClassOrder("as labels", values, len(names)),)
    if by_number == as_text:
        orders = [_ranked(names, as_text, "as text", 0)]
    else:
        first = next(i for i, name in enumerate(as_text) if name != by_number[i])
        how = "by number" if any(c.isdigit() for c in "".join(names)) else "regardless of case"
        orders = [_ranked(names, by_number, how, first), _ranked(names, as_text, "as text", first)]
    if values is not None and max(values) >= len(names):
        width = max(values) + 1
        by_rank = _ranked(names, by_number, "by rank", 0)
        by_value = ClassOrder(f"{_first(by_number, 0)} by value", values, width)
        orders += [by_value, replace(by_rank, width=width)]
    numbers = imagenet_numbers(names)
    if numbers is not None:
        orders.append(ClassOrder("as ImageNet's classes", numbers, len(names)))
    return tuple(orders)


def _by_number(names: Sequence[str]) -> list[str]:
    """Sort as timm does: numbers by value, letters regardless of case."""
    return sorted(names, key=lambda name: (natural_order(name.lower()), name))


def _whole_numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the names as output indices; None unless all are distinct whole numbers below ``MAX_OUTPUT``."""
    if not all(name.isascii() and name.isdigit() and len(name) < 10 for name in names):
        return None
    values = tuple(int(name) for name in names)
    return values if len(set(values)) == len(values) and max(values) < MAX_OUTPUT else None


def _ranked(names: Sequence[str], ordered: Sequence[str], how: str, start: int) -> ClassOrder:
    output = {name: number for number, name in enumerate(ordered)}
    return ClassOrder(
        f"{_first(ordered, start)} {how}", tuple(output[name] for name in names), len(names)
    )


def _first(ordered: Sequence[str], difference: int) -> str:
    """Return a few names of an order, from just before its first difference from another order."""
    start = 0 if difference < SHOWN else difference - 1
    few = [printable(shortened(name, 30)) for name in ordered[start : start + SHOWN]]
    before = ["..."] if start else []
    after = ["..."] if start + SHOWN < len(ordered) else []
    return ", ".join([*before, *few, *after])


def _given_order(names: Sequence[str], given: str) -> ClassOrder:
    if given in ("text", "number"):
        return _ranked(names, sorted(names) if given == "text" else _by_number(names), given, 0)
    path = Path(given)
    if not is_file(path):
        raise InputError(f"{OPTION} {given}: must be text, number or a file of class names")
    order, problem = _listed_order(names, path)
    if order is None:
        raise InputError(
            f"{path}: {problem}; {OPTION} needs one class in each line, in the order of outputs"
        )
    return order


def _listed_order(names: Sequence[str], path: Path) -> tuple[ClassOrder | None, str]:
    """Return the order in a list of classes, which may hold other classes, too, or what is wrong with the list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return None, "it is not a text in UTF-8"
    output: dict[str, int] = {}
    lines = [line.strip() for line in text.rstrip().split("\n")]
    for number, line in enumerate(lines):
        if line in output and line in names:
            return None, f"the class {shown(line)} is in lines {output[line] + 1} and {number + 1}"
        output.setdefault(line, number)
    lacking = [name for name in names if name not in output]
    if lacking:
        more = f" and {len(lacking) - 1} more of the {len(names)}" if len(lacking) > 1 else ""
        return None, f"it lacks the class {shown(lacking[0])}{more}"
    return ClassOrder(f"as {path.name}", tuple(output[name] for name in names), len(lines)), ""
