"""The run record: it reads back as written, also in later versions, and damage is reported in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.store.record import (
    Dropped,
    EntryRecord,
    RunRecord,
    SearchHistory,
    SearchStage,
    parse_record,
)
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, write_run

FIRST_VERSION = Path(__file__).parents[1].joinpath("run_of_the_first_version.json")
WHOLE = record_of(EntryRecord(model="net.a", img_size=32, slug="net-a-32", row_id="r")).model_copy(
    update={
        "search": SearchHistory(
            budget_s=301.0,
            left_out=["net.b@32"],
            stages=[
                SearchStage(
                    images=140,
                    models=1,
                    seconds=2.5,
                    dropped=[Dropped(model="net.c@32", reason="worse")],
                )
            ],
        )
    }
)


def changed(*keys: str | int, value: Any) -> bytes:
    """Return the whole record with another value under these keys."""
    document = WHOLE.model_dump(mode="json")
    part: Any = document
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return json.dumps(document).encode()


def without(*keys: str | int) -> bytes:
    document = json.loads(changed(*keys, value=None))
    part = document
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return json.dumps(document).encode()


def refusal(out: Path, content: bytes, read: Callable[[Path], object] = read_run) -> str:
    (out / "run.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(out)
    said = str(caught.value)
    assert said.startswith(f"{out / 'run.json'}: ")
    assert len(said.splitlines()) == 1
    assert len(said) < len(str(out)) + 250
    return said.removeprefix(f"{out / 'run.json'}: ")


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_run(tmp_path, WHOLE)
    written = (tmp_path / "run.json").read_bytes()
    assert read_run(tmp_path) == WHOLE
    write_run(tmp_path, read_run(tmp_path))
    assert (tmp_path / "run.json").read_bytes() == written
    document = json.loads(written)
    assert list(document) == [
        "format", "config", "identity", "catalog", "subset", "entries", "versions", "git_commit", "created_at",
        "updated_at", "embeddings_from", "earlier_catalogs", "search",
    ]  # fmt: skip
    assert (document["format"], document["created_at"]) == (1, "2026-01-02T03:04:05+00:00")


def test_the_record_of_a_run_of_the_first_version_is_still_read(tmp_path: Path) -> None:
    first = parse_record(FIRST_VERSION.read_bytes(), FIRST_VERSION)
    assert (first.config.compute.batch_size, first.config.measures.method) == (64, "auto")
    assert (first.catalog.sha256, first.search) == (None, None)
    assert first.config.metric == "accuracy", "which all versions without the setting ranked by"
    assert [entry.slug for entry in first.entries] == [
        "test_resnet-100x3-32-63147ecc87f3", "test_vit-100x3-32-eae0bd3ccbe0"
    ]  # fmt: skip
    (tmp_path / "run.json").write_bytes(FIRST_VERSION.read_bytes())
    assert read_results(tmp_path).empty
    document = json.loads(FIRST_VERSION.read_bytes())
    write_run(tmp_path, first)
    again = json.loads((tmp_path / "run.json").read_bytes())
    for name in ("account", "classes", "n_largest_class"):
        assert again["subset"].pop(name) is None  # that version did not record it
    assert {name: again[name] for name in document if name not in ("config", "catalog")} == {
        name: value for name, value in document.items() if name not in ("config", "catalog")
    }


def test_keys_of_a_newer_version_stay_when_the_record_is_written_again(tmp_path: Path) -> None:
    content = json.loads(changed("notes", value={"a": [1]}))
    content["entries"][0]["tag"] = "kept"
    content["search"]["stages"][0]["watts"] = 3
    (tmp_path / "run.json").write_text(json.dumps(content))
    write_run(tmp_path, read_run(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text()) == content


def test_a_setting_that_this_version_does_not_know_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, changed("config", "measures", "kernel", value="laplace"))
    assert said.startswith(
        "config.measures.kernel: a setting that this version of dsmi-zoo does not know"
    )
    assert "update dsmi-zoo" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: Invalid JSON: EOF"),
        (b"{", "cannot be read: Invalid JSON: EOF"),
        (b"\xff\xfe", "cannot be read: Invalid JSON"),
        (b'{"format": 1, "git_commit": "\xff"}', "cannot be read: Invalid JSON: invalid unicode"),
        (b'{"format": 1, "git_commit": "a\0b"}', "cannot be read: Invalid JSON: control character"),
        (b'{"format": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
        (b'{"format": 1, "x": 1' + b"0" * 5000 + b"}", "number out of range"),
        (b"[]", "not a run record; the file is damaged"),
        (b"{}", "format is missing; the file is damaged"),
        (b'{"format": 999}', "not a run record of format 1; a newer version wrote the file: update dsmi-zoo"),
        (without("entries"), "entries is missing; the file is damaged"),
        (without("subset", "hash"), "subset.hash is missing"),
        (without("entries", 0, "row_id"), "entries.0.row_id is missing"),
        (without("search", "stages", 0, "seconds"), "search.stages.0.seconds is missing"),
        (changed("subset", "n_samples", value="447"), "subset.n_samples: Input should be a valid integer"),
        (changed("subset", "n_samples", value=10**400), "subset.n_samples: Input should be less than"),
        (changed("entries", value={}), "entries: Input should be a valid"),
        (changed("entries", 0, "slug", value="../../x"), "entries.0.slug: String should match pattern"),
        (changed("created_at", value=5), "created_at: Input should be a valid datetime"),
        (changed("created_at", value="2026-01-02"), "created_at: Input should"),
        (changed("config", value=[[[]]]), "config: Input should be"),
        (changed("config", "filters", "kind", value=5), "config.filters.kind: must be text"),
        (changed("config", "filters", "kind", value=[5]), "config.filters.kind.0: Input should be"),
        (changed("config", "measures", "t", value=-1), "config.measures.t: Input should be greater than 0"),
        (changed("config", "measures", "t", value=10**400), "config.measures.t: Input should be a"),
        (changed("search", "budget_s", value=10**400), "search.budget_s: Input should be a finite number"),
        (changed("embeddings_from", value="a\0b"), "embeddings_from: holds a NUL character"),
        (changed("identity", "measures", "own", value=["a\0b"]), "identity.measures.own.0: holds a NUL character"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_record_is_told_by_its_key_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    said = refusal(tmp_path, content)
    assert message in said
    assert said.endswith("choose another --out")
    refusal(tmp_path, content, read_results)


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    for read in (read_run, read_results):
        with pytest.raises(InputError, match=r"is not a run: it has no run\.json; start one with"):
            read(tmp_path)


def test_a_command_tells_what_is_wrong_with_a_record_without_a_traceback(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "run.json").write_bytes(without("subset", "hash"))
    for command in (("status",), ("report",), ("remeasure", "--t", 2), ("rerun", "net.a")):
        done = cli(*command, "--out", tmp_path, code=2)
        assert done.stderr.startswith(
            f"dsmi-zoo: {tmp_path / 'run.json'}: subset.hash is missing; "
        )
        assert done.stderr.count(os.linesep) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["~", "\0", 10**400]),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3)
    ),
    max_leaves=6,
)


def read_or_refused(content: bytes) -> tuple[RunRecord | None, str]:
    try:
        return parse_record(content, Path("run.json")), ""
    except InputError as error:
        return None, str(error)


def places(value: Any, keys: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [keys, *(place for key, part in parts for place in places(part, (*keys, key)))]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(("config",), {"\r": 1})
@example(("versions",), {"\n": "\0"})
@given(st.sampled_from(places(WHOLE.model_dump(mode="json"))[1:]), JSON)
def test_a_record_with_any_other_value_anywhere_is_read_or_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any
) -> None:
    record, refused = read_or_refused(changed(*keys, value=value))
    if record is None:
        assert refused.startswith("run.json: ")
        assert len(refused.splitlines()) == 1
    else:
        write_run(tmp_path, record)
        assert read_run(tmp_path).model_dump_json() == record.model_dump_json()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^run\.json: .*choose another --out\Z"):
        parse_record(content, Path("run.json"))
