"""Precedence of settings (command line, file, defaults), and the identity of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash
from dsmi_zoo._util.paths import default_cache
from dsmi_zoo.pipeline.config.compute import CLUSTERS
from dsmi_zoo.pipeline.config.run import MeasureSettings, RunConfig, differences, resolve_config
from dsmi_zoo.pipeline.plan.identity import ESTIMATES_VERSION, MEASURES_VERSION, measures_identity


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('models = ["a*"]\n[measures]\nsigma = 2.0\nt = 3.0\n[compute]\nworkers = 4\n')
    config = resolve_config({"measures": {"sigma": 5.0}, "subset": {}}, file)
    assert config.measures == MeasureSettings(sigma=5.0, t=3.0)
    assert config.models == ("a*",)
    assert config.compute.workers == 4
    assert config.catalog == "digits"


def test_sigma_can_be_set_back_to_the_papers_choice(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[measures]\nsigma = 2.0\n")
    assert resolve_config({"measures": {"sigma": "sqrt(d)"}}, file).measures.sigma is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[measures]\nsigna = 2\n",
            ["run.toml", "there is no such setting; did you mean measures.sigma?"],
        ),
        ("[measures]\nsigma = -2\n", ["run.toml", "measures.sigma", "greater than 0", "-2"]),
        ("[measures]\nt = 0\n", ["measures.t", "greater than 0"]),
        ('[measures]\nt = "2"\n', ["run.toml", "measures.t", "must be a number"]),
        ('[filters]\nkind = ["quantum"]\n', ["run.toml", "filters.kind", "'quantum'"]),
        ("[subset]\nrepeats = 3\n", ["run.toml", "subset.repeats", "standard protocol"]),
        (
            '[compute]\nshare = "1/2"\nbudget = "1h"\n',
            ["run.toml", "compute.share with compute.budget"],
        ),
        (
            'cluster = "local"\n',
            ["cluster: there is no such setting; did you mean compute.cluster?"],
        ),
        ("[measure]\nsigma = 2\n", ["measure: there is no such setting; did you mean measures?"]),
        (
            '[filters]\nlicenses = "mit"\n',
            ["filters.licenses: there is no such", "did you mean filters.license?"],
        ),
        ("models = 3\n", ["models: must be text, or a list of texts, not 3"]),
        ('out = ""\n', ["out: must name a folder"]),
        (
            '[compute]\ncluster = "cloud"\n',
            ["compute.cluster", ", ".join(CLUSTERS), "tcp://host:port"],
        ),
        ("sigma = = 2\n", ["run.toml", "TOML"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve_config({}, file)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_an_option_that_clashes_with_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[compute]\nbudget = "1h"\n')
    with pytest.raises(InputError, match=r"^--budget with --budget-gb: "):
        resolve_config({"compute": {"budget_gb": 3.0}}, file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.toml"):
        resolve_config({}, tmp_path / "gone.toml")


EVERYTHING: dict[str, Any] = {
    "catalog": "imagenet-2025",
    "models": ["a*", "b"],
    "filters": {
        "kind": ["mlp", "hybrid"], "max_params": 5, "max_gmacs": 2.5, "img_size": 224, "license": ["mit"], "limit": 3,
    },
    "protocol": "paper",
    "precision": "bf16",
    "out": "/x/out",
    "subset": {
        "dataset": "imagenet", "data_root": "/x/d", "classes": "all", "images_per_class": 5, "repeats": 4, "seed": 7,
        "allow_train_images": True, "skip_bad_images": True, "keep_copies": True,
        "name": "Our photos",
    },
    "measures": {
        "sigma": 2, "t": 3, "repetitions": 4, "seed": 5, "bins": 6, "null_permutations": 7, "method": "lanczos",
        "precision": "float64", "tolerance": 0.25, "scores": "all", "own": ["a:b", "c.d:e"],
    },
    "compute": {
        "cluster": "tcp://h:1", "profile": "/x/p.toml", "workers": 2, "worker_memory": "16GB", "model_timeout": "2h",
        "batch_size": 8, "keep_embeddings": False, "budget": "1h30m", "max_download": "20GB", "cache": "/x/c",
        "cache_gb": 5,
    },
}  # fmt: skip
FROZEN = (
    '{"catalog": "digits", "protocol": "standard", "precision": "fp32", "subset": {"dataset": "digits", '
    '"classes": null, "images_per_class": null, "repeats": 1, "seed": 0, '
    '"allow_train_images": false, "skip_bad_images": false}, '
    '"measures": {"sigma": null, "t": 1.0, "repetitions": 5, "seed": 0, "bins": 2, "null_permutations": 10, '
    '"method": "auto", "precision": "float32", "tolerance": 0.005, "own": []}}'
)
FROZEN_EVERYTHING = (
    '{"catalog": "imagenet-2025", "protocol": "paper", "precision": "bf16", "subset": {"dataset": "imagenet", '
    '"classes": "all", "images_per_class": 5, "repeats": 4, "seed": 7, "allow_train_images": true, '
    '"skip_bad_images": true}, "measures": {"sigma": 2.0, "t": 3.0, "repetitions": 4, "seed": 5, "bins": 6, '
    '"null_permutations": 7, "method": "lanczos", "precision": "float64", "tolerance": 0.25, "own": ["a:b", "c.d:e"]}}'
)


@pytest.mark.parametrize(
    ("settings", "identity", "hashed"),
    [
        ({"measures": {"scores": "all"}}, FROZEN, "c3453ce5ba820566"),
        (EVERYTHING, FROZEN_EVERYTHING, "9da69157f3596369"),
    ],
    ids=["defaults", "everything set"],
)
def test_the_identity_of_a_run_stays_what_it_was_for_rows_already_computed(
    settings: dict[str, Any], identity: str, hashed: str
) -> None:
    found = resolve_config(settings).identity()
    assert json.dumps(found) == identity
    assert content_hash(found) == hashed


def test_a_run_is_read_back_from_its_own_record() -> None:
    config = resolve_config(EVERYTHING)
    assert RunConfig.model_validate(json.loads(config.model_dump_json())) == config


def test_where_a_run_is_computed_does_not_enter_its_identity() -> None:
    here = resolve_config(
        {"compute": {"workers": 1, "batch_size": 2, "cache": "/x"}, "out": "/a", "models": ["b"]}
    )
    assert here.identity() == RunConfig().identity()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"measures": {"sigma": 2.0}}, "measures.sigma = sqrt(d), not 2.0"),
        ({"measures": {"t": 2.0}}, "measures.t = 1.0, not 2.0"),
        ({"measures": {"scores": "all"}}, 'measures.scores = "default", not null'),
        ({"measures": {"own": ["a:b"]}}, 'measures.own = [], not ["a:b"]'),
        ({"subset": {"images_per_class": 5}}, "subset.images_per_class = null, not 5"),
        ({"catalog": "other"}, 'catalog = "digits", not "other"'),
    ],
)
def test_what_changes_a_number_is_named_with_both_values(
    settings: dict[str, object], line: str
) -> None:
    other = resolve_config(settings)
    assert list(differences(RunConfig().identity(), other.identity())) == [line]


def test_content_hashes_ignore_the_order_of_keys_and_notice_every_value() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert len({content_hash(x) for x in (1, "1", [1], {"a": 1}, {"a": 2}, None, 1.5)}) == 7


def test_the_cache_follows_its_variable_then_the_xdg_standard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DSMI_ZOO_CACHE", raising=False)
    assert default_cache() == tmp_path / "dsmi-zoo"
    monkeypatch.setenv("DSMI_ZOO_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"


def test_only_rows_of_estimated_eigenvalues_know_the_version_of_the_estimates() -> None:
    exact, estimated = MeasureSettings(), MeasureSettings(method="lanczos")
    assert measures_identity(exact, 8192)["version"] == MEASURES_VERSION
    assert measures_identity(estimated, 512)["version"] == MEASURES_VERSION
    assert measures_identity(exact, 8193)["version"] == ESTIMATES_VERSION
    assert measures_identity(estimated, 513)["version"] == ESTIMATES_VERSION
