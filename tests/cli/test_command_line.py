"""The command line: its help, `measure`, `catalog list`, its imports, and one line for each refusal."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Command

from dsmi_zoo.jobs.cli.main import cli as command_line
from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy, measure

COMMANDS = (
    "run", "submit slurm", "rerun", "remeasure", "prefetch", "status", "merge", "doctor", "report", "validate",
    "measure", "catalog list", "catalog show", "catalog check",
)  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    text = (
        CliRunner().invoke(command_line, [*command.split(), "--help"], prog_name="dsmi-zoo").output
    )
    assert "Usage: dsmi-zoo" in text
    if command != "status":
        assert "dsmi-zoo " + (command or "run") in text.split("Usage:", 1)[1].split("\n", 1)[1]


def test_the_bare_command_shows_its_help(cli: Command) -> None:
    assert cli(code=2).stdout == cli("--help").stdout


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    np.save(tmp_path / "Z.npy", rng.normal(size=(40, 8)) + labels[:, None])
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "short.npy", labels[:-3])
    np.save(tmp_path / "nan.npy", np.full((40, 8), np.nan))
    np.save(tmp_path / "flat.npy", np.zeros(40))
    np.save(tmp_path / "objects.npy", np.array([{}] * 40, dtype=object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=labels, b=labels)
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "mine.py").write_text(
        "def half(Z, labels):\n    return 0.5\n\ndef dse_z(Z, labels):\n    return 0\n"
    )
    (tmp_path / "bad.py").write_text("def words(Z, labels):\n    return 'many'\n")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    return tmp_path


def test_measure_prints_every_measure_of_two_files(arrays: Path, cli: Command) -> None:
    Z, y = np.load(arrays / "Z.npy"), np.load(arrays / "y.npy")
    text = cli("measure", "Z.npy", "y.npy", "--scores", "all", cwd=arrays).stdout
    values = measure(Z, y)
    assert f"undefined_scores: {values.pop('undefined_scores')}" in text
    for name, value in values.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else f"{value:z.4f}"
        assert any(line.split()[:2] == [name, shown] for line in text.splitlines()), name
    values = json.loads(cli("measure", "Z.npy", "y.npy", "--json", "--sigma", 2, cwd=arrays).stdout)
    expected = measure(Z, y, scores="default", sigma=2)
    assert values.pop("undefined_scores") == expected.pop("undefined_scores")
    assert values == pytest.approx(expected)


def test_measure_prints_no_zero_with_a_sign(tmp_path: Path, cli: Command) -> None:
    np.save(tmp_path / "Z.npy", np.ones((30, 4)))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    assert "-0.0000" not in cli("measure", "Z.npy", "y.npy", cwd=tmp_path).stdout


def test_measure_without_labels_gives_the_entropies(arrays: Path, cli: Command) -> None:
    arguments = ("measure", "Z.npy", "--json", "--scores", "all")
    values = json.loads(cli(*arguments, cwd=arrays).stdout)
    without_labels = {
        "dse_z",
        "cse_z",
        "rankme",
        "clid",
        "dse_z_knn",
        "participation_ratio",
        "offset_share",
        "nesum",
        "matrix_entropy",
        "two_nn_dimension",
    }
    assert set(values) == {
        *(
            "embedding_rms",
            "median_distance_over_sigma",
            "saturated",
            "mst_dimension",
            "undefined_scores",
        ),
        *(without_labels | {f"{name}_se" for name in without_labels}),
    }
    assert "alpha_req" in values["undefined_scores"]
    assert values["dse_z"] == pytest.approx(diffusion_spectral_entropy(np.load(arrays / "Z.npy")))


def test_measure_takes_a_measure_of_ones_own(arrays: Path, cli: Command) -> None:
    values = json.loads(
        cli("measure", "Z.npy", "y.npy", "--json", "--measure", "mine:half", cwd=arrays).stdout
    )
    assert values["half"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("measure Z.npy short.npy", ["Z.npy with short.npy", "40", "37"]),
        ("measure nan.npy y.npy", ["nan.npy", "NaN"]),
        ("measure flat.npy", ["flat.npy", "[n, d]"]),
        ("measure gone.npy", ["gone.npy", "No such file"]),
        ("measure text.npy", ["text.npy", "not a .npy file"]),
        ("measure objects.npy", ["objects.npy", "not a .npy file of numbers"]),
        ("measure many.npz", ["many.npz: holds several arrays", "many.npz:NAME with one of a, b"]),
        ("measure Z.npy many.npz:c", ["many.npz: has no array 'c'"]),
        ("measure mine.py", ["mine.py: its format is unknown", ".npy"]),
        ("measure Z.npy Z.npy", ["Z.npy"]),
        ("measure Z.npy y.npy --measure mine", ["mine", "module:function"]),
        ("measure Z.npy y.npy --measure mine:third", ["mine:third", "third"]),
        ("measure Z.npy y.npy --measure no_module:f", ["no_module:f"]),
        ("measure Z.npy y.npy --measure broken:f", ["broken:f", "nowhere_to_be_found"]),
        ("measure Z.npy y.npy --measure mine:dse_z", ["mine:dse_z", "dse_z"]),
        ("measure Z.npy y.npy --measure bad:words", ["bad:words", "ValueError", "many"]),
        ("measure Z.npy --measure mine:half", ["--measure", "labels"]),
        ("measure Z.npy y.npy --sigma 0", ["--sigma: ", "greater than 0"]),
        ("measure Z.npy y.npy --sigma wide", ["--sigma: ", "wide"]),
        ("measure Z.npy y.npy --sigma", ["--sigma", "requires an argument"]),
        ("measure Z.npy y.npy --t 1e101", ["--t: ", "between 1e-100 and 1e+100"]),
        ("measure Z.npy y.npy --seed 4294967296", ["--seed: ", "4294967295"]),
        ("measure Z.npy y.npy --t -1", ["--t: ", "greater than 0"]),
        ("measure Z.npy y.npy --repetitions 0", ["--repetitions: "]),
        ("run --catalog imagenet-1066", ["unknown catalogue 'imagenet-1066'"]),
        ("run --models nothing*", ["no model of digits matches 'nothing*'"]),
        ("run test_vit.900x5", ["unexpected argument 'test_vit.900x5'", "--models"]),
        ("run --dataset svhn", ["unknown data set 'svhn'", "digits"]),
        ("run --images-per-class 400", ["class", "has only"]),
        ("run --images-per-class 1", ["--images-per-class: ", "greater than or equal to 2"]),
        ("run --workers 0", ["--workers: ", "greater than or equal to 1"]),
        ("run --cluster cloud", ["--cluster: ", "local, cuda, slurm", "tcp://host:port"]),
        ("run --subset-seed -1", ["--subset-seed: ", "greater than or equal to 0"]),
        ("run --max-download 20", ["--max-download: ", "500MB"]),
        ("run --share 3/2", ["--share: ", "3/8"]),
        ("run --share 1/2 --cluster slurm", ["--share with --cluster: "]),
        ("run --budget 1h --budget-gb 3", ["--budget with --budget-gb: "]),
        ("run --repeats 3", ["--repeats: ", "standard protocol"]),
        ("run --protocol thorough", ["--protocol: ", "'standard'", "'thorough'"]),
        ("run --out Z.npy", ["Z.npy", "is a file"]),
        ("run --out Z.npy/below", ["Z.npy/below", "cannot be written"]),
        ("run --out /proc/run", ["/proc/run", "cannot be written"]),
        ("run --config gone.toml", ["gone.toml"]),
        ("run --measure mine:dse_z", ["mine:dse_z"]),
        ("run --colour", ["--colour", "dsmi-zoo run --help"]),
        ("rerun --out .", ["MODEL"]),
        ("rerun test_vit --out .", ["is not a run"]),
        ("remeasure --out . --sigma 2", ["is not a run"]),
        ("status --out .", ["is not a run"]),
        ("status --out gone", ["gone is not a run"]),
        ("report --out .", ["is not a run"]),
        ("catalog list --catalog Z.npy", ["Z.npy"]),
        ("catalog list --kind quantum", ["--kind: ", "'quantum'", "'convolutional'"]),
        ("catalog list --max-params 0", ["--max-params", "greater than 0"]),
        ("catalog list --max-params many", ["--max-params", "many"]),
        ("catalog list --max-gmacs 1", ["no entry of digits is left by --max-gmacs 1", "unknown for all"]),
        ("catalog list --catalog imagenet-2023 --max-gmacs 0.001", ["--max-gmacs 0.001", "the smallest has"]),
        ("catalog list --catalog imagenet-2023 --license gpl", ["--license gpl", "apache-2.0", "mit"]),
        ("catalog list --img-size 33", ["--img-size 33", "there is: 32"]),
        ("catalog list --limit 0", ["--limit: ", "greater than 0"]),
        ("catalog check --workers 0", ["--workers: "]),
        ("doctor --wait 5", ["--wait: ", "45m", "'5'"]),
        ("catalog check --models nothing*", ["no model of digits matches 'nothing*'"]),
        ("catalog show", ["MODEL"]),
        ("catalog show resnet50.a1_in2k", ["did you mean resnet50.a1_in1k?", "--catalog"]),
        ("catalog show resnet50.a1_in1k --catalog digits", ["digits has no model 'resnet50.a1_in1k'"]),
        ("validate --study dreams", ["--study", "'dreams'", "simulated"]),
        ("validate --dataset svhn", ["--dataset 'svhn'", "digits, fashion, photos, cifar10"]),
        ("validate --dataset mnist", ["mnist needs --data-root"]),
        ("validate --dataset mnist --data-root .", ["--dataset mnist", "torchvision cannot open it"]),
        ("validate --download --dataset mnist", ["--download needs --data-root"]),
        ("validate --seeds 1", ["--seeds: "]),
        ("validate --first-seed 6", ["--first-seed", "--study scores or replications"]),
        ("validate --out Z.npy", ["Z.npy", "is a file"]),
        ("fly", ["No such command 'fly'", "dsmi-zoo --help"]),
    ],
)  # fmt: skip
def test_bad_input_gets_exit_code_2_and_one_line_that_names_the_culprit(
    arrays: Path, refused: Callable[[str, Path], str], arguments: str, words: list[str]
) -> None:
    told = refused(arguments, arrays)
    assert told.count("\n") == 1, told
    assert told.startswith("dsmi-zoo: ")
    for word in words:
        assert word in told
    assert not (arrays / "runs").exists()


def test_a_refusal_by_the_installed_command_is_the_same(arrays: Path, cli: Command) -> None:
    for arguments, stdout in (
        ("measure Z.npy short.npy", ""),
        ("run --images-per-class 400", "Reading catalogue and images\n"),
    ):
        done = cli(*arguments.split(), cwd=arrays, code=2)
        assert done.stdout == stdout
        assert done.stderr.startswith("dsmi-zoo: ")
        assert done.stderr.count("\n") == 1


def test_catalog_list_shows_entries_and_their_number(cli: Command) -> None:
    lines = cli("catalog", "list", "--models", "test_vit.*", "test_resnet.*").stdout.splitlines()
    assert len(lines) == 8
    assert lines[0].split() == ["model", "pixels", "kind", "network"]
    assert lines[1].split() == ["test_resnet.100x3", "32", "convolutional", "test_resnet"]
    assert lines[0].index("kind") == lines[1].index("convolutional")
    assert lines[-1] == "6 entries"


def test_catalog_list_can_be_sorted_and_printed_as_json(cli: Command) -> None:
    options = (
        "catalog",
        "list",
        "--catalog",
        "imagenet-2025",
        "--models",
        "resnet*",
        "--max-gmacs",
        2,
    )
    entries = json.loads(cli(*options, "--sort", "top1", "--json").stdout)
    accuracies = [entry["top1"] for entry in entries]
    assert len(accuracies) > 10
    assert accuracies == sorted(accuracies, reverse=True)
    assert {"model", "gmacs", "weights", "sketch_top1", "license"} <= set(entries[0])
    lines = cli(*options, "--sort", "gmacs").stdout.splitlines()
    gmacs = [float(line[: lines[0].index("GMACs") + 5].split()[-1]) for line in lines[1:-1]]
    assert gmacs == sorted(gmacs)
    assert "--sort" in cli(*options, "--sort", "beauty", code=2).stderr


@pytest.mark.long
def test_the_measures_need_no_torch_and_no_pandas() -> None:
    code = "import sys, dsmi_zoo.pipeline.measures as m; print({'torch', 'timm', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


COUNT_IMPORTS = """
import os, sys
from dsmi_zoo.jobs.cli.start import main

def leave(code):
    heavy = {"torch", "timm", "distributed", "dask", "scipy", "sklearn", "matplotlib", "bokeh", "pandas", "numpy"}
    print(len(sys.modules), *sorted(heavy & set(sys.modules)), file=sys.stderr)
    ended(code)

ended, os._exit = os._exit, leave
try:
    main()
except SystemExit as error:
    leave(error.code)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "imported", "most"),
    [
        (["--help"], set(), 400),
        (["run", "--help"], set(), 400),
        (["run", "--sigma", "-1"], set(), 400),
        (["status", "--out", "nothing"], {"numpy", "pandas"}, 1000),
        (["run", "--models", "no_such", "--out", "nothing"], {"numpy", "pandas"}, 1050),
    ],
    ids=["help", "help of a command", "a wrong value", "status", "an unknown model"],
)
def test_a_command_imports_only_what_it_needs(
    arguments: list[str], imported: set[str], most: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_IMPORTS, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    count, *heavy = done.stderr.splitlines()[-1].split()
    assert set(heavy) <= imported
    assert int(count) < most
