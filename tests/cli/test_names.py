"""File names from outside, which never lead out of their folder."""

import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from hostile_input import bounded
from hub_server import HubServer, small_weights
from hypothesis import example, given
from hypothesis import strategies as st
from processes import start_command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import MAX_NAME_BYTES, repository_problem, safe_component, within
from dsmi_zoo.pipeline.weights.cache import local_weights
from dsmi_zoo.pipeline.weights.hub import folder_in_cache, paths_in_cache

ANY_TEXT = st.text(st.characters(), max_size=300)  # including surrogates and NUL
NASTY = st.lists(
    st.sampled_from(
        [
            "..",
            ".",
            "/",
            "\\",
            "%2f",
            "%00",
            "\0",
            "~",
            " ",
            "\n",
            "\ud800",
            "ü",
            "net",
            ".pth",
            "--",
            "@",
        ]
    )
).map("".join)
NAMES = ANY_TEXT | NASTY


@bounded(300)
@given(NAMES)
@example("/../../../site-packages/evil.pth")
@example("a" * 500 + ".safetensors")
@example("...")
def test_any_text_becomes_a_plain_name_that_stays_as_it_is(text: str) -> None:
    name = safe_component(text, "weights")
    assert re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?", name)
    assert len(name) <= MAX_NAME_BYTES
    assert safe_component(name, "weights") == name
    assert within(Path("folder"), name) == Path("folder", name)


@bounded(100)
@given(NAMES, st.sampled_from([".pth", ".safetensors", ".bin", ".tar"]))
def test_the_suffix_of_a_name_is_kept_whatever_stands_before_it(stem: str, suffix: str) -> None:
    assert safe_component(stem + suffix, "weights").endswith(suffix)


@pytest.mark.parametrize(
    "name", ["resnet50_a1-0123abcd.pth", "vit.h.14-300e.pth.tar", "model.safetensors", "_x-"]
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert safe_component(name, "weights") == name


def test_two_long_names_stay_two_names() -> None:
    first, second = (safe_component("a" * 200 + end + ".pth", "weights") for end in "xy")
    assert first != second


@bounded(300)
@given(NAMES)
def test_a_path_within_a_folder_is_its_child_or_refused_in_one_line(name: str) -> None:
    folder = Path("/somewhere/folder")
    refusal = ""
    try:
        path = within(folder, name)
    except InputError as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert refusal or path.resolve().parent == folder


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "\ud800", "a" * 256])
def test_what_is_no_name_of_one_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the name of a file in "):
        within(tmp_path, name)


def test_a_symbolic_link_out_of_the_folder_is_refused_and_one_that_stays_is_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "in").symlink_to("file")
    (folder / "self").symlink_to(".")
    (tmp_path / "same").symlink_to(folder)
    for name in ("out", "self"):
        with pytest.raises(InputError, match=f"{name} leads out of its folder by a symbolic link"):
            within(folder, name)
    assert within(folder, "in") == folder / "in"
    assert within(tmp_path / "same", "in") == tmp_path / "same" / "in"


REPOSITORY = st.text("ab-._", min_size=1, max_size=8)


@bounded(300)
@given(st.lists(st.tuples(REPOSITORY, REPOSITORY), min_size=2, max_size=2, unique=True))
@example([("a", "b--c"), ("a--b", "c")])
@example([("a", "-b"), ("a-", "b")])
def test_two_repositories_never_share_a_folder(pair: list[tuple[str, str]]) -> None:
    names = ["/".join(parts) for parts in pair]
    allowed = [name for name in names if not repository_problem(name)]
    folders = {folder_in_cache(name, Path("cache")) for name in allowed}
    assert len(folders) == len(allowed)


REVISION = st.text("ab-./_", min_size=1, max_size=80)


@bounded(300)
@given(st.lists(REVISION, min_size=2, max_size=2, unique=True))
@example(["a/b", "a--b"])
@example(["../../../x", "x"])
def test_two_revisions_never_share_a_folder_and_stay_in_the_cache(revisions: list[str]) -> None:
    folders = {folder_in_cache(f"me/net@{revision}", Path("cache")) for revision in revisions}
    assert len(folders) == 2
    assert all(folder.resolve().parent == Path("cache/pretrained").resolve() for folder in folders)


@pytest.mark.parametrize(
    ("weights", "folder"),
    [
        ("timm/vit_base.augreg", "timm--vit_base.augreg"),
        ("me/net@v1", "me--net@v1"),
        ("me/net@refs/pr/1", "me--net@refs--pr--1"),
        ("https://host/files/net-0123abcd.pth", "391e9473532713fd"),
    ],
)
def test_ordinary_weights_keep_the_folders_that_earlier_versions_gave_them(
    weights: str, folder: str
) -> None:
    assert folder_in_cache(weights, Path("cache")) == Path("cache/pretrained", folder)


@pytest.mark.parametrize(
    "weights", ["a/b--c", "a--b/c", "../x", "a/..", ".a/b", "a/b.", "a", "a/b/c", "a/b c", "é/b"]
)
def test_what_the_hub_has_no_repository_of_is_refused_by_name(weights: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(weights)}: "):
        local_weights(weights, tmp_path)


@pytest.mark.parametrize("url", ["http://[x/net.pth", "http://[::1/net.pth"])
def test_an_invalid_url_is_refused_by_name(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(url)}: not a URL: "):
        local_weights(url, tmp_path)


@bounded(100)
@given(NAMES)
def test_the_file_of_a_url_lies_in_a_folder_of_its_own_in_the_cache(name: str) -> None:
    url = "http://host/x/" + quote(name, safe="", errors="surrogatepass")
    (path,) = paths_in_cache(url, Path("/cache"))
    assert path.resolve().parent.parent == Path("/cache/pretrained")


def prefetch(
    url: str, settings_: dict[str, str], tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "mine.csv").write_text(f"model,architecture,weights\nmine,test_vit,{url}\n")
    command = start_command(
        "prefetch", "--catalog", "mine.csv", cwd=tmp_path, environment=settings_
    )
    stdout, stderr = command.communicate(timeout=120)
    return subprocess.CompletedProcess([], command.wait(), stdout, stderr)


def test_a_catalogue_cannot_plant_a_file_among_pythons_packages(
    hub: HubServer, client_settings: dict[str, str], tmp_path: Path
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    evil = "/" + "../" * 30 + str(packages / "evil.pth").lstrip("/")
    name = quote(evil, safe="")
    hub.files[name] = small_weights(b"\nimport sys; sys.exit('planted')\n")
    done = prefetch(f"{hub.endpoint}/files/{name}", client_settings, tmp_path)
    assert list(packages.iterdir()) == []
    assert done.returncode == 0, done.stderr
    arrived = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.read_bytes() == hub.files[name]
    ]
    assert [path.parent.parent for path in arrived] == [tmp_path / "cache" / "pretrained"]
    assert arrived[0].suffix == ".pth"


def test_the_checksum_in_a_name_holds_for_a_name_that_had_to_be_changed_too(
    hub: HubServer, client_settings: dict[str, str], tmp_path: Path
) -> None:
    hub.files["..%2Fnet-0123abcd.pth"] = small_weights(b"other")
    done = prefetch(f"{hub.endpoint}/files/..%2Fnet-0123abcd.pth", client_settings, tmp_path)
    assert done.returncode == 1
    assert "arrived damaged and was deleted" in done.stdout
