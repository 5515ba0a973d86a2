"""Arbitrary run.json, settings and profile files: read, or refused in one line; nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hostile_input import ODD_TEXT, answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st
from run_records import record_of

from dsmi_zoo._util.settings import settings_of
from dsmi_zoo._util.text import is_printable
from dsmi_zoo.jobs.clusters.profile import DriverJob, Profile, load_profile
from dsmi_zoo.jobs.clusters.slurm.scripts import worker_requests
from dsmi_zoo.pipeline.config.run import (
    RunConfig,
    differences,
    resolve_config,
    settings_from_keywords,
)
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord, parse_record

FIRST = json.loads(Path(__file__).parents[1].joinpath("run_of_the_first_version.json").read_text())
ENTRY = EntryRecord(model="net.a", img_size=224, slug="net-a-224-0123abcd", row_id="a1")
WHOLE = json.loads(record_of(ENTRY).model_dump_json())


def record(**changes: Any) -> bytes:
    return json.dumps(WHOLE | changes).encode()


def read(content: bytes) -> RunRecord:
    return parse_record(content, Path("run.json"))


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    if len(keys) == 1:
        return {name: value for name, value in settings.items() if name != keys[0]}
    return settings | {keys[0]: without(settings[keys[0]], *keys[1:])}


IDENTITIES = [
    ({}, "identity: catalog is missing"),
    (WHOLE["identity"] | {"subset": {}}, "identity: subset.dataset is missing"),
    (WHOLE["identity"] | {"measures": None}, "identity: measures is not a table of settings"),
    *((without(WHOLE["identity"], name), f"identity: {name} is missing") for name in FIRST["identity"]),
    *((without(WHOLE["identity"], "subset", name), f"subset.{name} is") for name in FIRST["identity"]["subset"]),
    *((without(WHOLE["identity"], "measures", name), f"measures.{name} is") for name in FIRST["identity"]["measures"]),
]  # fmt: skip


@pytest.mark.parametrize(("identity", "message"), IDENTITIES, ids=range(len(IDENTITIES)))
def test_an_identity_that_lacks_settings_is_refused_where_the_record_is_read(
    identity: dict[str, Any], message: str
) -> None:
    line = refusal(lambda: read(record(identity=identity)), "run.json")
    assert message in line
    assert line.endswith("choose another --out")


def test_the_identity_of_the_first_version_is_whole() -> None:
    assert read(json.dumps(FIRST).encode()).identity == FIRST["identity"]


RECORDS = {
    "a number of 6,000 digits": record(later=0).replace(b'"later": 0', b'"later": ' + b"9" * 6000),
    "deep brackets": b'{"identity": ' + b"[" * 100_000,
    "deep brackets that end": record(later=0).replace(b'"later": 0', b'"later": ' + b"[" * 900 + b"]" * 900),
    "half a character": record(later=0).replace(b'"later": 0', b'"later": "\\ud800"'),
    "no UTF-8": record().replace(b"digits", b"\xff"),
    "UTF-16": record().decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + record(),
    "an escape in a path": record(config=WHOLE["config"] | {"out": "a\x1bb"}),
    "more images than there are": record(subset=WHOLE["subset"] | {"n_images": 2**63}),
    "a size of a network of 10**400": record(entries=[WHOLE["entries"][0] | {"img_size": 10**400}]),
    "nothing": b"",
    "a megabyte of a key": json.dumps({"x" * 1_000_000: 1}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("what", RECORDS)
def test_a_hostile_record_is_refused_in_one_line(what: str) -> None:
    refusal(lambda: read(RECORDS[what]), "run.json")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ODD_TEXT
    | st.sampled_from([10**400, -(10**400), 2**63]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(ODD_TEXT, parts, max_size=3),
    max_leaves=5,
)


def places(value: Any, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [keys, *(place for key, part in parts for place in places(part, (*keys, key)))]


def changed(content: Any, keys: tuple[Any, ...], value: Any, is_dropped: bool) -> Any:
    """Return the content with another value at one place, or without that place."""
    copy = json.loads(json.dumps(content))
    within = copy
    for key in keys[:-1]:
        within = within[key]
    if is_dropped:
        del within[keys[-1]]
    else:
        within[keys[-1]] = value
    return copy


@bounded(250)
@given(st.sampled_from(places(WHOLE)[1:]), VALUES, st.booleans())
def test_a_changed_record_is_read_and_compared_and_shown_or_refused_in_one_line(
    keys: tuple[Any, ...], value: Any, is_dropped: bool
) -> None:
    content = json.dumps(changed(WHOLE, keys, value, is_dropped)).encode()
    found, _ = answer_or_refusal(lambda: read(content), "run.json")
    if found is not None:
        list(differences(found.identity, RunConfig().identity()))
        assert read(found.model_dump_json().encode()).model_dump_json() == found.model_dump_json()


@bounded(150)
@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_record_with_other_bytes_is_read_or_refused_in_one_line(
    changes: list[tuple[int, int]], is_cut: bool
) -> None:
    content = bytearray(record())
    for place, byte in changes:
        content[place % len(content)] = byte
    if is_cut:
        content = content[: changes[0][0] % len(content)]
    answer_or_refusal(lambda: read(bytes(content)), "run.json")


# Lines of a settings file, and the message that refuses each (None: it is accepted).
SETTINGS = [
    ("out = 'a\\u001b'", None), ('out = "a\\u001bb"', "out: must be one line of UTF-8 without control characters"),
    ('catalog = "a\\nb"', "catalog: must be one line"), ('models = ["a", "b\\u0000"]', "models: must be one line"),
    ("filters.img_size = 20000", "filters.img_size: Input should be less than or equal to 4096"),
    ("filters.max_params = inf", "filters.max_params: Input should be a finite number"),
    (f"filters.limit = {10**30}", "filters.limit: Input should be less"),
    (f"subset.seed = {10**30}", "subset.seed: Input should be less"), ("subset.repeats = 1000000", "subset.repeats: "),
    ("measures.repetitions = 1000000000", "measures.repetitions: "), ("measures.bins = 1000001", "measures.bins: "),
    ("compute.workers = 1000000", "compute.workers: "), ('compute.share = "1/1000000000"', "compute.share: "),
    ('compute.share = "1/' + "9" * 6000 + '"', "compute.share: must be such as 3/8"),
    ('compute.budget = "' + "9" * 6000 + 'h"', "compute.budget: Input should be a finite number"),
    ('compute.cache = "a\\u2028b"', "compute.cache: must be one line"),
    ("compute.batch_size = 1e300", "compute.batch_size: "), ("subset.images_per_class = " + "9" * 6000, "TOML"),
    ("a = " + "[" * 50_000, "cannot be read as TOML: "),
    ("a = " + "[" * 40 + "]" * 40, "a: there is no"), ('a = "' + '\\"' * 45_000, "TOML"),
    ("a." * 90 + "a = 1", "a: there is no such setting"), ("x" * 90_000 + " = 1", "there is no such setting"),
    ('protocol = "' + "x" * 90_000 + '"', "protocol: Input"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), SETTINGS, ids=range(len(SETTINGS)))
def test_hostile_settings_are_refused_by_their_name_in_one_line(
    tmp_path: Path, content: str, message: str | None
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(content)
    if message is None:  # a backslash is an ordinary character in a literal string
        assert resolve_config({}, path).out == Path("a\\u001b")
    else:
        assert message in refusal(lambda: resolve_config({}, path), path)


@pytest.mark.parametrize(
    "content", [b"\xff", "a = 1".encode("utf-16"), b"\0", b"\xef\xbb\xbfout = 1"], ids=range(4)
)
def test_bytes_that_are_not_toml_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    refusal(lambda: resolve_config({}, path), path)
    refusal(lambda: load_profile(path), path)


def test_a_file_of_settings_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", tmp_path / ("x" * 300)):
        refusal(lambda path=path: resolve_config({}, path), str(path)[:200])
        assert "no such profile" in refusal(lambda path=path: load_profile(path), str(path)[:200])


ODD_PATHS = {
    "a line break": "a\nb",
    "an escape": "a\x1b[2Jb",
    "no UTF-8": os.fsdecode(b"caf\xe9"),
    "a turn": "a\u202eb",
}


@pytest.mark.parametrize("what", ODD_PATHS)
@pytest.mark.parametrize(
    "keyword", ["out", "cache", "data_root", "profile", "catalog", "models", "classes", "dataset"]
)
def test_odd_characters_in_a_setting_are_refused_by_its_name(keyword: str, what: str) -> None:
    line = refusal(lambda: settings_from_keywords(**{keyword: ODD_PATHS[what]}), keyword)
    assert line.startswith(
        f"{keyword}: must be one line of UTF-8 without control characters, not '"
    )


def test_odd_characters_in_the_cache_of_the_environment_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DSMI_ZOO_CACHE", "/tmp/a\nb")
    assert "cache: must be one line" in refusal(settings_from_keywords, "cache")


PROFILES = [
    ('memory = "99999999999999999999TB"', "memory: must be a size"), ('memory = "0GB"', "memory: must be a size"),
    ('memory = "2000TB"', "memory: must be a size"), ('memory = "٣GB"', "memory: must be a size"),
    ('walltime = "' + "9" * 6000 + '"', "walltime: must be as Slurm"), ('walltime = "٣:00:00"', "walltime: must be"),
    ('prologue = ["a\\u0000b"]', "prologue: must be one line"), ('prologue = ["a\\nb"]', "prologue: must be one line"),
    ('directives = ["--x\\n#SBATCH --y"]', "directives: must be one line"), ('python = "a\\rb"', "python: must be one"),
    ('partition = "gpu --uid=0"', "partition: must be a word"), ('account = "a\\"b"', "account: must be a word"),
    ('gres = "gpu:1 #"', "gres: must be a word"), ('interface = ""', "interface: must be a word"),
    ("cpus = 1000000", "cpus: "), ("workers = " + "9" * 400, "workers: "), ("gpus = 1e300", "gpus: "),
    ("driver = 1", "driver: "), ("[driver]\nmemory = [[[]]]", "driver.memory: "), ("[tls]\nkey = 1", "tls."),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), PROFILES, ids=range(len(PROFILES)))
def test_a_hostile_profile_is_refused_by_its_name_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(content)
    assert message in refusal(lambda: load_profile(path), path)


def in_toml(value: Any) -> str:
    """Return the value in TOML, which differs from JSON in tables, floats and null."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name)} = {in_toml(part)}" for name, part in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(in_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return "[]" if value is None else json.dumps(value)


RUN_KEYS = [setting.key for setting in settings_of(RunConfig)]
PROFILE_KEYS = [
    *Profile.model_fields,
    *(f"driver.{name}" for name in DriverJob.model_fields),
    "tls.key",
    "x",
]


@bounded(250)
@given(st.dictionaries(st.sampled_from([*RUN_KEYS, "compute", "x"]), VALUES, max_size=3))
def test_any_settings_are_read_or_refused_in_one_line(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    path = tmp_path / "any.toml"
    path.write_text(
        "\n".join(f"{key} = {in_toml(value)}" for key, value in values.items()), errors="replace"
    )
    config, _ = answer_or_refusal(lambda: resolve_config({}, path), path.name)
    if config is not None:
        assert is_printable(str(config.folder))
        json.dumps(config.identity(), allow_nan=False).encode()


@bounded(200)
@given(st.dictionaries(st.sampled_from(PROFILE_KEYS), VALUES, max_size=3))
def test_any_profile_is_read_or_refused_in_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "any.toml"
    path.write_text(
        "\n".join(f"{key} = {in_toml(value)}" for key, value in values.items()), errors="replace"
    )
    profile, _ = answer_or_refusal(lambda: load_profile(path), path)
    if profile is not None:
        assert all(is_printable(request.replace("\t", " ")) for request in worker_requests(profile))


@bounded(100)
@given(
    st.binary(max_size=200) | st.text(alphabet="a=.[]{}\"'\\u0\n\x1b", max_size=60).map(str.encode)
)
def test_any_bytes_are_settings_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    answer_or_refusal(lambda: resolve_config({}, path), path)
    answer_or_refusal(lambda: load_profile(path), path)
