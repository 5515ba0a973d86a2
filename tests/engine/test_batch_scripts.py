"""Batch scripts from hostile folders, arguments and profiles: every line is intended, or no script is written."""

import os
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hostile_input import ODD_TEXT, answer_or_refusal, bounded, refusal
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.clusters.profile import Profile
from dsmi_zoo.jobs.clusters.slurm.scripts import batch_script, check_needs_no_quotes
from dsmi_zoo.jobs.runs.submit import _array_scripts, _driver_scripts
from dsmi_zoo.pipeline.config.run import RunConfig

REQUESTED = {
    "--job-name", "--output", "--open-mode", "--ntasks", "--partition", "--account", "--cpus-per-task", "--mem",
    "--time", "--gres", "--array", "--signal", "--requeue", "--mine",
}  # fmt: skip
HOSTILE = [
    'a"\n#SBATCH --uid=0', "a\n#SBATCH --uid=0", "a\r#SBATCH --uid=0", "a\x0b#SBATCH --uid=0", "a\u2028#SBATCH --uid=0",
    'a" --uid=0 "', "a' ; touch was-run ; '", "$(touch was-run)", "a # b", "a\\", "%j", "a b", "-x", "--wrap=touch x",
]  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=10) | ODD_TEXT


def assert_meant(script: str, arguments: list[str], folder: Path) -> None:
    """Assert known directives, each once, then the folder, then commands whose arguments are intact."""
    lines = script.split("\n")
    assert script.splitlines() == lines[:-1]  # no line contains another line separator
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[1 : 1 + len(directives)] == directives
    for line in directives:
        name = line.removeprefix("#SBATCH ").partition("=")[0]
        assert name in REQUESTED
    names = [line.partition("=")[0] for line in directives]
    assert len(set(names)) == len(names)
    output = next(line for line in directives if "--output" in line)
    assert output.count('"') == 2
    assert output.endswith('.out"')
    assert shlex.split(lines[1 + len(directives)]) == ["cd", str(folder)]
    words = [word for line in lines if "dsmi-zoo run" in line for word in shlex.split(line)]
    assert not words or [argument for argument in arguments if argument not in words] == []


@bounded(250)
@example(out='a"\n#SBATCH --uid=0', arguments=[], folder="x", partition="p", prologue=[])
@example(out="a", arguments=["a\n#SBATCH --uid=0"], folder="x", partition="p", prologue=[])
@example(out="a", arguments=[], folder="a\n#SBATCH --uid=0", partition="p", prologue=[])
@example(
    out="a",
    arguments=[],
    folder="x",
    partition="p\n#SBATCH --uid=0",
    prologue=["a\n#SBATCH --uid=0"],
)
@given(
    out=TEXTS,
    arguments=st.lists(TEXTS, max_size=2),
    folder=TEXTS,
    partition=TEXTS,
    prologue=st.lists(TEXTS, max_size=1),
)
def test_every_line_of_a_script_is_one_that_was_meant(
    tmp_path: Path, out: str, arguments: list[str], folder: str, partition: str, prologue: list[str]
) -> None:
    try:
        profile = Profile(
            partition=partition, account="a", prologue=tuple(prologue), directives=("--mine=1",)
        )
    except ValidationError:
        profile = Profile(partition="p", account="a", directives=("--mine=1",))
    here = Path.cwd()
    there = tmp_path / folder.replace("\0", "").replace("/", "")[:50]
    there.mkdir(exist_ok=True)
    config = RunConfig().model_copy(update={"out": tmp_path / out.replace("\0", "")})
    os.chdir(there)
    try:
        for scripts in (_driver_scripts, partial(_array_scripts, tasks=3)):
            made, _ = answer_or_refusal(
                lambda scripts=scripts: scripts(config, profile, arguments), ""
            )
            for script in (made or {}).values():
                assert_meant(script, arguments, there)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("out", ['a"b', "a\\b", "a'b\"c"])
def test_quotes_and_backslashes_in_out_are_refused_where_a_script_is_made(
    tmp_path: Path, out: str
) -> None:
    line = refusal(lambda: batch_script("x", [], tmp_path / out / "logs" / "x.out", []), "--out")
    assert "Slurm takes no quotes and no backslashes" in line


def test_a_percent_sign_of_the_folder_is_none_of_slurms_names(tmp_path: Path) -> None:
    script = batch_script("x", [], Path("/data/50%j/logs/driver-%j.out"), [])
    assert '#SBATCH --output="/data/50%%j/logs/driver-%j.out"' in script


@pytest.mark.parametrize(
    "out",
    ["/a;touch was-run", "/a b", "/$(x)", "/a'b", '/a"b', "/a\\b", "/a%j", "/a#b", "/a\nb", "/~"],
)
def test_a_folder_that_a_shell_would_read_is_not_handed_to_dask_jobqueue(out: str) -> None:
    refusal(lambda: check_needs_no_quotes(Path(out)), "--out")


def test_folders_with_letters_of_any_language_are(tmp_path: Path) -> None:
    check_needs_no_quotes(tmp_path / "résultats_2026-01,é@x+y=z:1")


FLAGS = {
    "--out": ["status", "report", "rerun a", "remeasure", "run", "submit slurm --dry-run", "merge x", "validate"],
    "--cache": ["run", "prefetch", "validate", "doctor"],
    "--data-root": ["run", "validate", "doctor"],
    "--profile": ["run", "submit slurm --dry-run", "doctor --cluster slurm"],
    "--config": ["run", "submit slurm --dry-run"],
}  # fmt: skip
COMMANDS = [(command, flag) for flag, commands in FLAGS.items() for command in commands]


@pytest.mark.parametrize(("command", "flag"), COMMANDS, ids=str)
def test_a_path_with_a_control_character_is_refused_by_its_flag(
    command: str, flag: str, tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    # `refused` splits at white space, so a line break cannot be tested here.
    told = refused(f"{command} {flag} a\x1b[31mb", tmp_path)
    assert told.count("\n") == 1
    assert (
        f"{flag}: must be one line of UTF-8 without control characters, not 'a\\x1b[31mb'" in told
    )
    assert list(tmp_path.iterdir()) == []


def test_scripts_of_a_hostile_folder_are_read_by_bash_as_they_were_meant(
    tmp_path: Path, cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    folder = tmp_path / "a'; touch was-run; $(touch was-run) #"
    folder.mkdir()
    done = cli(
        "submit", "slurm", "--dry-run", "--models", "$(touch was-run)*", "--out", "o", cwd=folder
    )
    script = done.stdout.partition("\n")[2]
    assert script.startswith("#!/usr/bin/env bash")
    stub = 'cd() { builtin cd "$1" && pwd; }\n'
    said = subprocess.run(["bash", "-c", f"{stub}{script.partition('--models')[0].rpartition(chr(10))[0]}"],
                          capture_output=True, text=True, cwd=tmp_path, check=True)  # fmt: skip
    assert said.stdout.strip() == str(folder)
    assert not list(tmp_path.rglob("was-run"))


def test_an_array_of_hostile_arguments_is_refused_before_it_is_submitted(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path / "out")
    with pytest.raises(
        InputError, match=r"a line of the batch script, .*holds a control character"
    ):
        _array_scripts(config, Profile(), ["--models", "a\n#SBATCH --uid=0"], 2)
