"""What one sees while entries finish: lines of the log, and where a terminal is, a bar or a spinner below them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from dsmi_zoo._util.text import printable
from dsmi_zoo.pipeline.engine.outcome import Outcome

log = logging.getLogger(__name__)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


class Display:
    """Where it is shown how far something is: nowhere, for calls from Python have the log."""

    @property
    def has_bars(self) -> bool:
        """Whether somebody sees the bars."""
        return False

    @property
    def step_level(self) -> int:
        """The level at which the log tells of single steps: they are details where a bar counts them."""
        return logging.DEBUG if self.has_bars else logging.INFO

    def status(self, text: str) -> AbstractContextManager[Callable[[str], None]]:
        """Say what is being done, until it is done; what it yields changes the text."""
        return nullcontext(_show_nothing)

    def bar(
        self,
        *columns: ProgressColumn,
        total: float | None = None,
        description: str = "",
        visible: bool = True,
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show a bar of these columns; what it yields takes the arguments of rich's ``Progress.update``."""
        return nullcontext(_show_nothing)


def _show_nothing(*_: object, **__: object) -> None:
    pass


SILENT = Display()


class Terminal(Display):
    """The command line's: bars and spinners if the console is a terminal, lines of the log above them."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @property
    def has_bars(self) -> bool:
        """Whether somebody sees the bars."""
        return self.console.is_terminal

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Say what is being done, until it is done; what it yields changes the text."""
        if not self.has_bars:
            yield _show_nothing
            return
        with self.console.status(_as_it_is(text)) as status:
            yield lambda text: status.update(_as_it_is(text))

    @contextmanager
    def bar(
        self,
        *columns: ProgressColumn,
        total: float | None = None,
        description: str = "",
        visible: bool = True,
    ) -> Iterator[Callable[..., None]]:
        """Show a bar of these columns; what it yields takes the arguments of rich's ``Progress.update``."""
        with Progress(
            *columns, console=self.console, disable=not self.has_bars, transient=True
        ) as bar:
            yield partial(bar.update, bar.add_task(description, total=total, visible=visible))

    def line(self, text: str) -> None:
        """Print one line, as it is: no markup, no colours, no line breaks of ours; control characters as escapes."""
        self.console.print(
            printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True
        )


def _as_it_is(text: str) -> Text:
    """The text in one line, in which brackets are no markup."""
    return Text(printable(text))


def follow(
    finished: Iterable[Outcome],
    total: int,
    display: Display = SILENT,
    noun: str = "model",
    costs: Mapping[str, float] | None = None,
) -> tuple[int, list[Outcome]]:
    """Show entries as they finish.

    Parameters
    ----------
    costs
        What each entry is expected to cost, by slug, in any unit: the time that is left goes by them, for the last of
        a list may take a hundred times as long as the first. Without them all are taken for equal.

    Returns
    -------
    (int, list of Outcome)
        How many went well, and those that failed.
    """
    started, good = monotonic(), 0
    failed: list[Outcome] = []
    of_all, of_done = (sum(costs.values()), 0.0) if costs else (float(total), 0.0)

    def rate() -> str:
        spent = monotonic() - started
        seconds = spent / (good + len(failed))
        pace = f"{seconds:.1f} s a {noun}" if seconds > 1 else f"{1 / seconds:.1f} {noun}s a second"
        is_last = good + len(failed) == total
        left = spent * (of_all - of_done) / of_done if of_done else 0.0
        return f"{len(failed)} failed, {pace}" + (
            "" if is_last else f", about {duration(left)} left"
        )

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with display.bar(*columns, total=total, description="0 failed, starting") as update:
        for done in finished:
            if done.ok:
                good += 1
            else:
                failed.append(done)
            of_done += costs.get(done.slug, 0.0) if costs else 1.0
            update(advance=1, description=rate())
            if done.ok:
                step = (
                    f"[{good + len(failed)}/{total}] {done.name} in {done.seconds:.1f} s; {rate()}"
                )
                log.log(display.step_level, step)
            else:
                log.warning(f"{done.name} failed: {done.message}")
    return good, failed
