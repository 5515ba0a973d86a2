"""The account of a data set: found = used + left out by reason, and how ambiguous input was read."""

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict

from dsmi_zoo._util.text import counted, printable

EXAMPLES = 3  # names that are kept for each reason


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class LeftOut(_Frozen):
    """Files or images that are not used, all for one reason, with the first few of their names.

    ``by_choice`` if the user's settings ask for fewer images.
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
    """An input that can be read in two ways: how it was read, how else it could be, and the option that decides."""

    taken: str
    other: str
    option: str

    def __str__(self) -> str:
        return f"{self.taken}, not {self.other}; {self.option} decides"


class Account(_Frozen):
    """What became of everything that a data set holds.

    ``left_out`` has one item for each reason, in the order in which the reasons were applied.
    """

    left_out: tuple[LeftOut, ...] = ()
    readings: tuple[Reading, ...] = ()

    def leaving_out(self, reason: str, names: Iterable[str], *, by_choice: bool = False) -> Self:
        """Return the account with these names left out as well, for a reason that no other item has."""
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
        """Whether nothing was left out that the user did not ask to leave out."""
        return all(part.by_choice for part in self.left_out)

    def balance(self, used: int) -> str:
        """Return what was found, used and left out, in one line: ``44 found = 40 images used + 4 left out: ...``."""
        left_out = sum(part.count for part in self.left_out)
        line = f"{used + left_out:,} found = {counted(used, 'image')} used + {left_out:,} left out"
        parts = "; ".join(str(part) for part in self.left_out)
        return f"{line}: {parts}" if parts else line


WHOLE = Account()
"""The account of a data set that is used as a whole, and can be read in one way."""
