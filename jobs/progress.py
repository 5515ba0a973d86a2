"""What one sees while entries finish: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Iterable
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..pipeline.task import Done


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(count: int, noun: str) -> str:
    """``1 model``, ``2 models``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def follow(finished: Iterable[Done], total: int, console: Console, noun: str = "model") -> tuple[int, list[Done]]:
    """Show entries as they finish.

    Returns
    -------
    (int, list of Done)
        How many went well, and those that failed.
    """
    started, good = monotonic(), 0
    failed: list[Done] = []

    def rate() -> str:
        seconds = (monotonic() - started) / (good + len(failed))
        pace = f"{seconds:.1f} s a {noun}" if seconds > 1 else f"{1 / seconds:.1f} {noun}s a second"
        left = total - good - len(failed)
        return f"{len(failed)} failed, {pace}" + (f", about {duration(left * seconds)} left" if left else "")

    with Progress(
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        shown = bar.add_task("0 failed, starting", total=total)
        for done in finished:
            if done.ok:
                good += 1
            else:
                failed.append(done)
            bar.update(shown, advance=1, description=rate())
            if not done.ok:
                plain(console, f"{done.name} failed: {done.message}")
            elif not console.is_terminal:
                plain(console, f"[{good + len(failed)}/{total}] {done.name} in {done.seconds:.1f} s; {rate()}")
    return good, failed


def plain(console: Console, text: str) -> None:
    """One line, as it is: no markup, no colours, no line breaks of ours."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
