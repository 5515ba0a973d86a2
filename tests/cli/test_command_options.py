"""Options of the commands: each setting is one field, and a change of the options must be deliberate.

``PYTHONPATH=tests python tests/cli/test_command_options.py`` writes ``command_options.txt``; review its diff.
"""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_tree import commands

from dsmi_zoo._util.settings import settings_of
from dsmi_zoo.data_catalog.datasets.names import DATASETS
from dsmi_zoo.jobs.cli.main import cli
from dsmi_zoo.pipeline.config.run import RunConfig

FROZEN = Path(__file__).with_name("command_options.txt")
ONLY_IN_A_FILE = {
    "measures.method",
    "measures.precision",
    "measures.tolerance",
    "subset.sample",
}


def described(option: click.Option) -> str:
    """Return the option with its value and the default that its help states."""
    value = (
        "" if option.is_flag else f" {option.metavar or option.make_metavar(click.Context(cli))}"
    )
    repeated = ", repeated" if option.multiple else ""
    _, told, default = (option.help or "").partition("[default: ")
    return f"  {option.opts[0]}{value}{repeated}{', default ' + default.removesuffix(']') if told else ''}"


def all_options() -> str:
    """Return all commands and their options as text."""
    lines: list[str] = []
    for name, command in sorted(commands(cli)):
        lines.append(name)
        options = [option for option in command.params if isinstance(option, click.Option)]
        lines += sorted(described(option) for option in options)
    return "\n".join(lines) + "\n"


def test_the_commands_and_options_are_those_that_people_rely_on() -> None:
    frozen = FROZEN.read_text(encoding="utf-8")
    assert all_options() == frozen, (
        "if it is meant so: PYTHONPATH=tests python tests/cli/test_command_options.py"
    )


def test_every_setting_of_a_run_has_an_option_or_is_known_to_be_only_in_a_file() -> None:
    run = dict(commands(cli))["run"]
    offered = {option for parameter in run.params for option in parameter.opts}
    reached = {setting.key for setting in settings_of(RunConfig) if setting.flag in offered}
    absent = {setting.key for setting in settings_of(RunConfig) if setting.option.absent}
    everything = {setting.key for setting in settings_of(RunConfig)}
    assert absent == ONLY_IN_A_FILE
    assert everything - reached <= absent
    assert len(offered - {"more_models"}) == len(everything - absent) + len(
        {"--config", "--plan", "--retry-failed", "--help-all"}
    )


def test_every_setting_says_what_it_means() -> None:
    for setting in settings_of(RunConfig):
        assert setting.help.endswith("."), setting.key


def test_the_help_names_every_data_set() -> None:
    dataset = next(setting for setting in settings_of(RunConfig) if setting.key == "subset.dataset")
    for name in (*DATASETS, "timm:NAME"):
        assert name in dataset.help


def shown_options(argument: str) -> list[str]:
    """Return the options that the help of `run` lists, each by its first long name."""
    shown = CliRunner().invoke(cli, ["run", argument])
    assert shown.exit_code == 0
    return re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown.output, flags=re.MULTILINE)


def test_the_help_of_run_shows_ten_options_and_how_to_see_all() -> None:
    assert set(shown_options("--help")) == {
        *("--catalog", "--models", "--dataset", "--data-root", "--images-per-class", "--out"),
        *("--workers", "--budget", "--max-download", "--plan", "--help-all", "--help"),
    }


def test_all_options_of_run_are_in_the_whole_help_once_and_by_group() -> None:
    run = dict(commands(cli))["run"]
    options = [option.opts[0] for option in run.params if isinstance(option, click.Option)]
    assert sorted(shown_options("--help-all")) == sorted([*options, "--help"])
    output = CliRunner().invoke(cli, ["run", "--help-all"]).output
    titles = re.findall(r"^(\w+):$", output, flags=re.MULTILINE)
    assert titles == ["Models", "Images", "Networks", "Measures", "Workers", "Run"]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
@pytest.mark.long
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dsmi_zoo.jobs.cli.main import cli\n"
        f"cli.main({arguments}, standalone_mode=False)\n"
        "heavy = {'numpy', 'pandas', 'torch', 'timm', 'dask', 'distributed', 'sklearn', 'PIL', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


if __name__ == "__main__":
    FROZEN.write_text(all_options(), encoding="utf-8")
