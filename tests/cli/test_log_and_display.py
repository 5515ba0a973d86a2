"""Output of a call from Python, which prints nothing, and of the command, which prints the log."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from time import sleep

import pytest
from conftest import Command
from processes import start_script
from rich.console import Console

from dsmi_zoo.jobs import progress
from dsmi_zoo.jobs.progress import SILENT, Display, follow
from dsmi_zoo.jobs.terminal import show_log
from dsmi_zoo.pipeline.plan.job import Outcome

pytestmark = pytest.mark.long

CALL = """
import logging, sys
from pathlib import Path
import distributed
if "told" in sys.argv:
    logging.basicConfig(level=logging.INFO)
def levels():
    return {name: logger.level for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and name.startswith("distributed")}
before = levels()
from dsmi_zoo.jobs.runs.run import run
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig
if __name__ == "__main__":
    out = Path(sys.argv[1])
    code = run(RunConfig(models=("test_vit.100x3",), out=out, compute=ComputeSettings(workers=1)))
    after = {name: level for name, level in levels().items() if name in before}
    Path(sys.argv[2]).write_text(f"{code} {after == before} {len(logging.getLogger().handlers)}")
"""
BROKEN = Outcome("b", "b@32", False, "OSError: [red]no :smile: luck[/red]", 1.0)
FINISHED = (Outcome("a", "a@32", True, "", 1.0), BROKEN)


def call(tmp_path: Path, cache: Path, *arguments: str) -> tuple[str, str, str]:
    """Run a program that runs a model; return its stdout, its stderr and its note on the loggers."""
    noted = tmp_path / "noted"
    environment = {"DSMI_ZOO_CACHE": str(cache)}
    program = start_script(CALL, tmp_path / "out", noted, *arguments, environment=environment)
    stdout, stderr = program.communicate(timeout=300)
    assert program.returncode == 0, stderr
    return stdout, stderr, noted.read_text()


def test_a_run_called_from_python_prints_nothing_and_leaves_other_loggers_alone(
    tmp_path: Path, cache: Path, server: None
) -> None:
    stdout, stderr, noted = call(tmp_path, cache)
    assert (stdout, stderr) == ("", "")
    assert noted == "0 True 0"
    assert (tmp_path / "out" / "report" / "index.html").exists()


def test_a_run_called_from_python_tells_its_steps_to_the_log_by_module(
    tmp_path: Path, cache: Path, server: None
) -> None:
    stdout, stderr, noted = call(tmp_path, cache, "told")
    assert stdout == ""
    ours = [line for line in stderr.splitlines() if line.startswith("INFO:dsmi_zoo.")]
    assert [line.split(":")[1] for line in ours] == [
        f"dsmi_zoo.jobs.{name}"
        for name in ("runs.run", "workers", "progress", *["runs.conclude"] * 3)
    ]
    assert (
        "INFO:dsmi_zoo.jobs.runs.run:1 model to measure on 447 images of digits/validation" in ours
    )
    assert "INFO:distributed" not in stderr, "addresses of workers are Dask's business"
    assert noted == "0 True 1"


def test_the_command_prints_the_log_as_plain_lines_and_more_when_verbose(
    tmp_path: Path, cli: Command
) -> None:
    options = (
        "run",
        "--models",
        "test_vit.100x3",
        "--out",
        tmp_path / "out",
        "--cache",
        tmp_path,
        "--workers",
        1,
    )
    said = cli("-v", *options)
    lines = said.stdout.splitlines()
    assert said.stderr == ""
    assert lines[0] == "Reading catalogue and images"
    assert lines[1] == "1 model to measure on 447 images of digits/validation"
    lines = [line for line in lines if not line.endswith("so far")]
    assert lines[2].startswith("1 worker at tls://127.0.0.1:")
    assert lines[-1] == f"Report: {tmp_path / 'out' / 'report' / 'index.html'}"
    details = [
        line for line in lines if re.match("making the view|training|writing the report", line)
    ]
    assert len(details) == 5
    assert "training test_vit.100x3@32 on 900 images" in details
    quiet = cli(*options, images_per_class=None).stdout.splitlines()
    assert quiet[1] == "1 of 1 models are done already"
    assert not [line for line in quiet if line.startswith("writing")]


def test_without_a_terminal_each_entry_is_a_line_of_the_log(
    info_log: pytest.LogCaptureFixture,
) -> None:
    assert follow(FINISHED, 2) == (1, [BROKEN])
    first, second = info_log.records
    assert (first.name, first.levelname) == ("dsmi_zoo.jobs.progress", "INFO")
    assert first.getMessage().startswith("[1/2] a@32 in 1.0 s; 0 failed, ")
    assert (second.levelname, second.getMessage()) == (
        "WARNING",
        "b@32 failed: OSError: [red]no :smile: luck[/red]",
    )


def test_the_time_that_is_left_goes_by_what_the_rest_costs(
    info_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = chain([0], repeat(1))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    costs = {"a": 1.0, "b": 119.0}
    follow(FINISHED, 2, costs=costs)
    assert "about 2 min left" in info_log.records[0].getMessage(), (
        "of 120, 1 is done after a second"
    )


def test_without_a_terminal_a_line_breaks_each_silence_and_says_what_takes_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", 0.08)
    file = io.StringIO()
    pipe = Display(Console(file=file, width=80))

    def finished() -> Iterator[Outcome]:
        yield FINISHED[0]
        sleep(0.3)
        yield FINISHED[0]

    with pipe.never_silent("Reading catalogue and images"):
        assert file.getvalue() == "Reading catalogue and images\n", "at once"
        with pipe.status("Starting workers"):
            sleep(0.3)
        follow(finished(), 2, pipe)
    lines = file.getvalue().splitlines()
    assert "Starting workers: 0 s so far" in lines
    assert [line for line in lines if line.startswith("1 of 2 done, 0 failed, ")]
    before = file.getvalue()
    sleep(0.3)
    assert file.getvalue() == before, "it ends with the command"


def test_on_a_terminal_a_bar_counts_what_is_done_and_lines_stand_above_it() -> None:
    screen = io.StringIO()
    terminal = Display(Console(file=screen, force_terminal=True, width=80, color_system=None))
    log, lines = logging.getLogger("dsmi_zoo.jobs.progress"), _PrintedBy(terminal)
    log.addHandler(lines)
    try:
        follow(FINISHED, 2, terminal)
        with terminal.status("Reading the runs") as show:
            show("Joining")
    finally:
        log.removeHandler(lines)
    said = screen.getvalue()
    assert "b@32 failed: OSError: [red]no :smile: luck[/red]\n" in said
    assert "2/2" in said
    assert "[1/2]" not in said
    assert "Joining" in said


class _PrintedBy(logging.Handler):
    def __init__(self, terminal: Display) -> None:
        super().__init__(logging.INFO)
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self.terminal.line(record.getMessage())


def test_a_line_is_printed_as_it_is() -> None:
    printed = io.StringIO()
    line = "[bold]/data/:smile:/" + "long" * 40
    Display(Console(file=printed, width=20)).line(line)
    assert printed.getvalue() == f"{line}\n"


@pytest.mark.parametrize("display", [SILENT, Display(Console(file=io.StringIO()))])
def test_where_no_terminal_is_neither_bars_nor_spinners_are_shown(
    display: Display, capsys: pytest.CaptureFixture[str]
) -> None:
    with display.status("Reading") as show, display.bar(total=2) as update:
        show("Writing")
        update(advance=1)
        print("a line of the user's")
    assert not display.has_bars
    assert capsys.readouterr() == ("a line of the user's\n", "")
    if display.console is not None:
        assert isinstance(display.console.file, io.StringIO)
        assert display.console.file.getvalue() == ""


def test_connections_that_close_with_the_command_are_not_logged_by_asyncio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from distributed.comm.core import CommClosedError

    log = logging.getLogger("asyncio")
    handler = logging.StreamHandler(sys.stderr)
    ours = logging.getLogger("dsmi_zoo")
    before, filters, handlers = ours.level, log.filters.copy(), ours.handlers.copy()
    log.addHandler(handler)
    try:
        show_log()
        for error in (CommClosedError("lost"), ValueError("kept")):
            log.error("Future exception was never retrieved", exc_info=error)
    finally:
        log.removeHandler(handler)
        log.filters, ours.handlers = filters, handlers
        ours.setLevel(before)
    printed = capsys.readouterr().err
    assert "kept" in printed
    assert "lost" not in printed
