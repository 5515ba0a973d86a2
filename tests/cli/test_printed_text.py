"""Output of untrusted text: characters that control a terminal are shown as escapes."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_input import bounded
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import is_printable, one_line, printable, shortened, shown
from dsmi_zoo.jobs.doctor.report import Finding
from dsmi_zoo.jobs.progress import Display, follow
from dsmi_zoo.jobs.runs.status import status
from dsmi_zoo.jobs.terminal import LogLines, print_error, print_line
from dsmi_zoo.jobs.tools.catalog import list_entries, show
from dsmi_zoo.pipeline.plan.job import Outcome
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import write_run

HOSTILE = "\x1b]0;owned\x07 \x1b[2J \r \x08 \x85 \x9b31m \u202eab\u202c \u2066 \u2028 \ud800 \0"
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=30) | st.sampled_from(
    [HOSTILE, "\ud83d", "\udcff"]
)


@bounded(300)
@given(ANY_TEXT)
def test_any_text_is_printed_without_what_a_terminal_obeys(text: str) -> None:
    for output in (
        printable(text),
        one_line(text),
        shown(text),
        shortened(text),
        str(InputError(text)),
    ):
        assert is_printable(output)
        assert "\x1b" not in output
        output.encode()
        assert len(output.splitlines()) <= 1
    assert printable(printable(text)) == printable(text)


def test_text_without_such_characters_stays_as_it_is() -> None:
    for text in ("", "a b", "café ñ 漢字 عربى 🙂", "C:\\n", "a  b", "[red]x[/red]", "\u200d\u200e"):
        assert printable(text) == text
        assert str(InputError(text)) == text


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("\x1b[0m", "\\x1b[0m"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("a\nb", "a\\nb"),
        ("\x9b", "\\x9b"),
    ],
)
def test_an_escape_names_the_character(text: str, output: str) -> None:
    assert printable(text) == output


def test_what_is_too_large_to_show_is_said_to_be() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(10**6000) == "a int that is too large to show"
    assert shown(deep) == "a list that is too large to show"
    assert len(shown("x" * 10**6)) == 100


def assert_harmless(output: str) -> None:
    assert output
    for line in output.split("\n"):
        assert is_printable(line)


def test_a_command_tells_text_and_errors_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(HOSTILE)
    print_error(HOSTILE)
    said = capsys.readouterr()
    assert_harmless(said.out)
    assert_harmless(said.err)
    assert said.out == f"{printable(HOSTILE)}\n"
    assert said.err == f"dsmi-zoo: {printable(HOSTILE)}\n"


def test_the_log_and_the_progress_of_a_hostile_network_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsmi_zoo.jobs.terminal._terminal", lambda: Display(Console()))
    log, lines = logging.getLogger("dsmi_zoo"), LogLines()
    # Pytest would capture the raw text, which it cannot pass on.
    monkeypatch.setattr(log, "propagate", False)
    log.addHandler(lines)
    level = log.level
    log.setLevel(logging.DEBUG)
    try:
        follow(
            [
                Outcome("a", HOSTILE, True, "", 1.0),
                Outcome("b", "b", False, f"OSError: {HOSTILE}", 1.0),
            ],
            2,
        )
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
    said = capsys.readouterr().out
    assert said.count("\\x1b]0;owned\\x07") == 2
    assert_harmless(said)


def test_what_a_spinner_says_is_escaped_and_no_markup() -> None:
    screen = io.StringIO()
    terminal = Display(Console(file=screen, force_terminal=True, width=200, color_system=None))
    with terminal.status("[red]\x07\u202e[/red]"):
        pass
    with terminal.status("") as update:
        update("[/x]\x1b]0;owned\x07")
    said = screen.getvalue()
    assert "[red]\\x07\\u202e[/red]" in said
    assert "[/x]\\x1b]0;owned\\x07" in said
    assert "\x07" not in said


def test_a_status_of_somebody_elses_run_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(
        tmp_path,
        record_of(EntryRecord(model="net\x1b[2J\n\u202e", img_size=8, slug="net-8-0", row_id="r")),
    )
    status(tmp_path)
    said = capsys.readouterr().out
    assert "  missing: net\\x1b[2J\\n\\u202e@8: not computed yet\n" in said
    assert_harmless(said)


def test_a_catalogue_is_listed_and_shown_without_what_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsmi_zoo.data_catalog.models.entry import ModelEntry
    from dsmi_zoo.data_catalog.models.filters import Filters

    hostile = ModelEntry(
        model="\x1b[31mnet", architecture="\u202earch", license="\x07", model_kwargs={"a": "\x9b"}
    )
    monkeypatch.setattr("dsmi_zoo.jobs.tools.catalog.load_models", lambda *_: [hostile])
    list_entries("mine.csv", (), Filters())
    show("\x1b[31mnet", "mine.csv")
    said = capsys.readouterr().out
    assert "\\x1b[31mnet  \\u202earch" in said
    assert_harmless(said)


def test_what_doctor_found_is_escaped_line_by_line() -> None:
    finding = Finding(
        level="problem", what="job", found="its log:\n\x1b[2Jline\nlast", do="\u202emend"
    )
    lines = [line.plain for line in finding.lines(3)]
    assert len(lines) == 4
    assert all(map(is_printable, lines))


@pytest.mark.long
def test_an_error_line_with_half_a_character_is_printed_whatever_the_encoding(
    tmp_path: Path,
) -> None:
    command = Path(sys.executable).with_name("dsmi-zoo")
    for encoding in ("ascii", "utf-8"):
        done = subprocess.run(
            [str(command), "status", "--out", os.fsencode("é") + b"\xff\x1b"], cwd=tmp_path, capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding}, timeout=60,
        )  # fmt: skip
        output = done.stderr.decode()
        assert done.returncode == 2
        assert output.startswith("dsmi-zoo: --out: must be one line of UTF-8")
        assert "\\udcff\\x1b" in output
        assert_harmless(output)


def test_a_refusal_shows_a_hostile_model_escaped(
    tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    output = refused("catalog list --catalog digits --models a\x1b[31m\u202eb", tmp_path)
    assert output.count("\n") == 1
    assert "\\x1b[31m\\u202eb" in output
    assert_harmless(output)
