"""Labelled images: the interface of every data set, and the account of what was found, used and left out."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from dsmi_zoo._util.text import counted, printable

EXAMPLES = 3  # names kept per reason
Part = Literal["train", "test", "validation"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class LeftOut(_Frozen):
    """Files or images left out for one reason, with the first few of their names.

    ``by_choice`` is True if the user's settings exclude them.
    """

    reason: str
    count: int
    examples: tuple[str, ...] = ()
    by_choice: bool = False

    def __str__(self) -> str:
        if self.by_choice or not self.examples:
            return f"{self.count:,} {self.reason}"
        more = ", ..." if self.count > len(self.examples) else ""
        names = ", ".join(printable(name) for name in self.examples)
        return f"{self.count:,} {self.reason} ({names}{more})"


class Reading(_Frozen):
    """An ambiguous input: the reading taken, the other possible one, and the option that decides between them."""

    taken: str
    other: str
    option: str

    def __str__(self) -> str:
        return f"{self.taken}, not {self.other}; {self.option} decides"


class Account(_Frozen):
    """A record of what was left out of a data set, and of how ambiguous input was read.

    ``left_out`` has one item for each reason, in the order in which the reasons were applied.
    """

    left_out: tuple[LeftOut, ...] = ()
    readings: tuple[Reading, ...] = ()

    def leaving_out(self, reason: str, names: Iterable[str], *, by_choice: bool = False) -> Self:
        """Return the account with these names also left out; the reason must be new to the account."""
        names = list(names)
        if not names:
            return self
        examples = tuple(names[:EXAMPLES])
        added = LeftOut(reason=reason, count=len(names), examples=examples, by_choice=by_choice)
        return self.model_copy(update={"left_out": (*self.left_out, added)})

    def reading(self, taken: str, *, other: str, option: str) -> Self:
        """Return the account with one more ambiguous input."""
        added = Reading(taken=taken, other=other, option=option)
        return self.model_copy(update={"readings": (*self.readings, added)})

    @property
    def is_all_by_choice(self) -> bool:
        """Whether everything left out was left out at the user's request."""
        return all(part.by_choice for part in self.left_out)

    def balance(self, used: int) -> str:
        """Return the numbers found, used and left out, in one line: ``44 found = 40 images used + 4 left out: ...``."""
        left_out = sum(part.count for part in self.left_out)
        line = f"{used + left_out:,} found = {counted(used, 'image')} used + {left_out:,} left out"
        parts = "; ".join(str(part) for part in self.left_out)
        return f"{line}: {parts}" if parts else line


NOTHING_LEFT_OUT = Account()
"""The account of a data set that is used in full and has no ambiguous input."""


class LabelledImages(Protocol):
    """All or some images of a data set, with their classes."""

    @property
    def name(self) -> str:
        """The data set's name and, if it has parts, its part: ``digits/validation``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The images' unique names."""

    @property
    def labels(self) -> np.ndarray:
        """The images' classes, int64 [n]."""

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names."""

    @property
    def classifier_width(self) -> int | None:
        """The number of outputs of a classifier whose argmax is a label; None if unknown."""

    @property
    def account(self) -> Account:
        """What was left out of the data set, by reason, and how ambiguous input was read."""

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits per channel."""

    def fingerprint(self, number: int) -> str:
        """Return a hash of the image's content."""

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""


@dataclass(frozen=True)
class ImageArray:
    """Images in memory, uint8 [n, h, w] or [n, h, w, 3]."""

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray
    classes: tuple[str, ...] = tuple("0123456789")
    account: Account = NOTHING_LEFT_OUT

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names by label."""
        return dict(enumerate(self.classes))

    @property
    def classifier_width(self) -> int | None:
        """One output per class."""
        return len(self.classes)

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB."""
        return Image.fromarray(self.pixels[number]).convert("RGB")

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the pixels."""
        return hashlib.sha256(self.pixels[number].tobytes()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, labels=self.labels[numbers], pixels=self.pixels[numbers])


def split_numbers(
    labels: np.ndarray, part: Part, *, train: int, test: int, seed: int = 0
) -> np.ndarray:
    """Return the sorted indices of one of three disjoint, stratified parts, int64 [n]; validation is the remainder."""
    from sklearn.model_selection import train_test_split

    parts: dict[str, np.ndarray] = {"train": np.arange(0)}
    rest = np.arange(len(labels))
    if train:
        parts["train"], rest = train_test_split(
            rest, train_size=train, stratify=labels, random_state=seed
        )
    parts["test"], parts["validation"] = train_test_split(
        rest, train_size=test, stratify=labels[rest], random_state=seed
    )
    return np.sort(parts[part])
