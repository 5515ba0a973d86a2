"""Settings as keyword arguments, as a table, and as input of the measures."""

import inspect
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import Setting, options_of, settings_of
from dsmi_zoo.jobs.cli.options import run_settings
from dsmi_zoo.jobs.cli.run import run_command
from dsmi_zoo.pipeline.config.run import (
    RunConfig,
    differences,
    resolve_config,
    settings_from_keywords,
    settings_table,
)
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings

ON_COMMAND_LINE: dict[str, tuple[list[str], Any]] = {
    "catalog": (["--catalog", "imagenet-2025"], "imagenet-2025"),
    "out": (["--out", "/x/out"], "/x/out"),
    "models": (["--models", "a*", "b"], ["a*", "b"]),
    "kind": (["--kind", "mlp", "--kind", "hybrid"], ["mlp", "hybrid"]),
    "max_params": (["--max-params", "5"], 5),
    "max_gmacs": (["--max-gmacs", "2.5"], 2.5),
    "img_size": (["--img-size", "224"], 224),
    "license": (["--license", "mit"], "mit"),
    "limit": (["--limit", "3"], 3),
    "protocol": (["--protocol", "paper"], "paper"),
    "metric": (["--metric", "balanced_accuracy"], "balanced_accuracy"),
    "precision": (["--precision", "bf16"], "bf16"),
    "pool": (["--pool", "token"], "token"),
    "random_weights": (["--random-weights"], True),
    "dataset": (["--dataset", "imagenet"], "imagenet"),
    "data_root": (["--data-root", "images"], Path("images")),
    "classes": (["--classes", "all"], "all"),
    "images_per_class": (["--images-per-class", "5"], 5),
    "repeats": (["--repeats", "4"], 4),
    "subset_seed": (["--subset-seed", "7"], 7),
    "allow_train_images": (["--allow-train-images"], True),
    "skip_bad_images": (["--skip-bad-images"], True),
    "class_order": (["--class-order", "number"], "number"),
    "white": (["--white", "4095"], 4095),
    "keep_copies": (["--keep-copies"], True),
    "name": (["--name", "Our photos"], "Our photos"),
    "sigma": (["--sigma", "2"], 2),
    "t": (["--t", "3"], 3),
    "repetitions": (["--repetitions", "4"], 4),
    "seed": (["--seed", "5"], 5),
    "bins": (["--bins", "6"], 6),
    "null_permutations": (["--null-permutations", "7"], 7),
    "measure": (["--measure", "a:b"], "a:b"),
    "cluster": (["--cluster", "cuda"], "cuda"),
    "profile": (["--profile", "p.toml"], "p.toml"),
    "workers": (["--workers", "2"], 2),
    "per_gpu": (["--per-gpu", "3"], 3),
    "workers_within": (["--workers-within", "10m"], 600),
    "worker_memory": (["--worker-memory", "16GB"], "16GB"),
    "model_timeout": (["--model-timeout", "2h"], 7200),
    "batch_size": (["--batch-size", "8"], 8),
    "compile": (["--compile"], True),
    "drop_embeddings": (["--drop-embeddings"], True),
    "no_report": (["--no-report"], True),
    "budget": (["--budget", "1h30m"], "1h30m"),
    "max_download": (["--max-download", "20GB"], 20e9),
    "finetune": (("--finetune", "2"), 2),
    "keep_checkpoints": (("--keep-checkpoints",), True),
    "start_method": (["--start-method", "spawn"], "spawn"),
    "cache": (["--cache", "/x/c"], "/x/c"),
    "cache_gb": (["--cache-gb", "5"], 5),
    "share": (["--share", "1/2"], "1/2"),
    "budget_gb": (["--budget-gb", "3"], 3),
    "scores": (["--scores", "all"], "all"),
    "layers": (["--layers", "stem,layer4*"], "stem,layer4*"),
}
NEEDED_BESIDE = {
    "repeats": {"protocol": "paper"},
    "data_root": {"dataset": "csv", "catalog": "digits"},
}
AT_ODDS_WITH_OTHERS = {"share", "budget_gb", "random_weights", "layers"}


def from_command_line(*arguments: str) -> RunConfig:
    with run_command.make_context("run", list(arguments)) as context:
        return run_settings(context, None)


def test_options_and_keywords_of_the_same_names_make_the_same_settings() -> None:
    together = {
        name: said for name, said in ON_COMMAND_LINE.items() if name not in AT_ODDS_WITH_OTHERS
    }
    arguments = [word for words, _ in together.values() for word in words]
    config = from_command_line(*arguments)
    assert config == settings_from_keywords(
        **{name: value for name, (_, value) in together.items()}
    )
    assert config.compute.keep_embeddings is False
    assert config.filters.kind == ("MLP", "hybrid")


@pytest.mark.parametrize("setting", options_of(RunConfig), ids=lambda setting: setting.key)
def test_an_option_changes_its_own_setting_and_no_other(setting: Setting) -> None:
    words, value = ON_COMMAND_LINE[setting.keyword]
    others = NEEDED_BESIDE.get(setting.keyword, {})
    before = settings_from_keywords(**others)
    after = settings_from_keywords(**{setting.keyword: value, **others})
    assert (
        from_command_line(
            *words, *(word for name, said in others.items() for word in (f"--{name}", said))
        )
        == after
    )
    changed = list(differences(before.model_dump(mode="json"), after.model_dump(mode="json")))
    assert [line.partition(" = ")[0] for line in changed] == [setting.key]


def test_none_means_the_default_and_sigma_may_be_the_papers() -> None:
    assert (
        settings_from_keywords("digits", None, workers=None, cache=None, t=None)
        == settings_from_keywords()
    )
    assert settings_from_keywords(sigma="sqrt(d)").measures.sigma is None
    assert from_command_line("--sigma", "sqrt(d)").measures.sigma is None


@pytest.mark.parametrize(
    ("keywords", "line"),
    [
        ({"sigmas": 2}, "sigmas is not a setting of a run; did you mean sigma?"),
        ({"subset_sed": 2}, "subset_sed is not a setting of a run; did you mean subset_seed"),
        ({"licence": "mit"}, "licence is not a setting of a run; did you mean license"),
        ({"tolerance": 2}, "tolerance is not a setting of a run"),
        ({"sigma": -1}, "sigma: Input should be greater than 0, not -1"),
        ({"t": "2"}, "t: must be a number, not '2'"),
        ({"subset_seed": -1}, "subset_seed: Input should be greater than or equal to 0, not -1"),
        ({"kind": "quantum"}, "kind: Input should be 'convolutional', "),
        ({"budget": "1h", "budget_gb": 3}, "budget with budget_gb: "),
        ({"share": "1/2", "cluster": "slurm"}, "share with cluster: "),
        ({"models": 3}, "models: must be text, or a list of texts, not 3"),
    ],
)
def test_a_wrong_keyword_or_value_is_refused_in_one_line_by_its_name(
    keywords: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError) as caught:
        settings_from_keywords(**keywords)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_the_signature_lists_every_option_with_a_default_that_changes_nothing() -> None:
    signature = inspect.signature(dsmi_zoo.run)
    names = list(signature.parameters)
    of_the_call = {"client", "retry_failed"}
    assert names[:4] == ["catalog", "out", "client", "retry_failed"]
    assert set(names) == of_the_call | {*(setting.keyword for setting in options_of(RunConfig))}
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    defaults = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in of_the_call
    }
    assert settings_from_keywords(**defaults) == settings_from_keywords()


@pytest.mark.parametrize("function", [dsmi_zoo.measure, dsmi_zoo.score], ids=["measure", "score"])
def test_the_signature_lists_every_setting_of_a_measure_with_its_default(
    function: Callable[..., Any],
) -> None:
    parameters = inspect.signature(function).parameters
    defaults = MeasureSettings().model_dump(exclude={"scores", "own"})
    assert {name: parameters[name].default for name in defaults} == defaults
    assert {"scores", "image_ids", "input_clusters"} <= set(parameters)
    assert inspect.Parameter.VAR_KEYWORD not in {
        parameter.kind for parameter in parameters.values()
    }


def test_the_table_of_settings_has_a_row_for_each_with_as_many_cells() -> None:
    head, rule, *rows = settings_table().splitlines()
    assert len(rows) == len(settings_of(RunConfig))
    assert {row.count("|") for row in (head, rule, *rows)} == {5}
    assert "| `--subset-seed` | `subset.seed` | 0 | Seed of the choice of images. |" in rows
    assert any(row.startswith("|  | `measures.method` | auto |") for row in rows)


NUMBERS = [
    2,
    2.5,
    np.float64(2.5),
    np.float32(2.5),
    np.int64(2),
    np.uint8(2),
    np.array(2.5)[()],
    Fraction(5, 2),
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_measure_settings_take_numbers_of_any_kind(number: Any) -> None:
    settings = MeasureSettings(sigma=number, t=number)
    assert (settings.sigma, settings.t) == (float(number), float(number))
    assert type(settings.t) is float


@pytest.mark.parametrize(
    "number", [3, np.int64(3), np.uint8(3), np.int32(3)], ids=lambda number: type(number).__name__
)
def test_measure_settings_take_whole_numbers_of_any_kind(number: Any) -> None:
    settings = MeasureSettings(
        repetitions=number, seed=number, bins=number, null_permutations=number
    )
    assert type(settings.seed) is int
    assert settings == MeasureSettings(repetitions=3, seed=3, bins=3, null_permutations=3)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(
            (name, value)
            for name in ("sigma", "t")
            for value in (0, -1, np.nan, np.inf, 1e-101, 1e101, "2", 10**400)
        ),
        *(("seed", value) for value in (-1, 2**32, 1.5, "1", None, True)),
        *(
            (name, value)
            for name in ("repetitions", "bins", "null_permutations")
            for value in (0, 1.5, "3", True)
        ),
        ("t", None),
    ],
)
def test_measure_settings_refuse_what_no_measure_takes(name: str, bad: Any) -> None:
    with pytest.raises(ValidationError):
        MeasureSettings(**{name: bad})


def test_measure_settings_take_the_ends_of_their_ranges() -> None:
    MeasureSettings(sigma=1e-100, t=1e100, seed=2**32 - 1)
    MeasureSettings(sigma=1e100, t=1e-100, seed=0)


def test_a_folder_in_the_users_home_may_be_written_with_a_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = settings_from_keywords(
        "digits", out="~/out", cache="~/cache", data_root="~/images", dataset="csv"
    )
    assert (config.folder, config.compute.cache) == (tmp_path / "out", tmp_path / "cache")
    assert config.subset.data_root == tmp_path / "images"


def test_a_single_name_needs_no_list_in_a_file_either(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'models = "test_vit*"\n[measures]\nown = "mine:f"\n[filters]\nlicense = "mit"\n'
    )
    config = resolve_config({}, tmp_path / "run.toml")
    assert (config.models, config.measures.own, config.filters.license) == (
        ("test_vit*",),
        ("mine:f",),
        ("mit",),
    )
