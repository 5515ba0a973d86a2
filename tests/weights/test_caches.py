"""Files that the project keeps: a flipped bit, a lost tail or another file in their place is noticed and repaired."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL_ZOO, Command, Mount
from hostile_input import bounded, flipped
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from dsmi_zoo._util import files
from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.registry import PREPROCESSING, trained_models
from dsmi_zoo.pipeline.embedding.train import stored_top1, train_weights
from dsmi_zoo.pipeline.embedding.views import ViewTooLarge, make_view, open_view
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.store.subset_file import (
    clusters_path,
    read_subset,
    subset_with_clusters,
    write_clusters,
)

pytestmark = pytest.mark.long

Harm = Callable[[bytes], bytes]
HARMS: dict[str, Harm] = {
    "one flipped bit": lambda content: flipped(content, len(content) * 8 // 2),
    "a zeroed tail": lambda content: content[:-1000] + bytes(1000),
    "a lost tail": lambda content: content[:-1000],
    "more at the end": lambda content: content + b"more",
    "an empty file": lambda content: b"",
    "another file": lambda content: b"<html>not found</html>",
    "another shape": lambda content: content.replace(b"(8, 32, 32, 3)", b"(4, 64, 32, 3)"),
}


def eight_digits() -> Subset:
    return Subset(open_dataset("digits").take(np.arange(8)), 1, 0, "test")


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_view_is_refused_by_who_opens_it_and_made_again_by_who_makes_it(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_view(tmp_path / "view.npy", eight_digits(), 32, PREPROCESSING)
    content = path.read_bytes()
    path.write_bytes(HARMS[harm](content))
    with pytest.raises(
        DamagedFile, match=r"view\.npy: .*; the command that made it makes it again"
    ):
        open_view(path)
    with caplog.at_level(logging.WARNING, "dsmi_zoo"):
        make_view(path, eight_digits(), 32, PREPROCESSING)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"the view {path}: ")
    assert path.read_bytes() == content
    assert open_view(path).shape == (8, 32, 32, 3)


@pytest.mark.parametrize("note", [None, "", "[]", "{", "{}", "[" * 100_000])
def test_a_view_without_a_good_note_is_made_again(tmp_path: Path, note: str | None) -> None:
    path = make_view(tmp_path / "view.npy", eight_digits(), 32, PREPROCESSING)
    if note is None:
        files.note_path(path).unlink()
    else:
        files.note_path(path).write_text(note)
    assert files.damage_problem(path) == files.NO_NOTE
    make_view(path, eight_digits(), 32, PREPROCESSING)
    assert not files.damage_problem(path)


def test_a_kill_between_note_and_file_leaves_nothing_that_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "file", tmp_path / "new"
    files.write_checksummed(path, lambda file: file.write(b"of an older version"))
    new.write_bytes(b"of a newer one")
    replace = Path.replace

    def killed_before_the_file(self: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed_before_the_file)
    with pytest.raises(KeyboardInterrupt):
        files.move_checksummed(new, path)
    assert path.read_bytes() == b"of an older version"
    assert files.damage_problem(path)
    path.unlink()
    assert files.damage_problem(path) == "is missing"


@given(content=st.binary(min_size=1, max_size=200), place=st.integers(0, 1599))
@bounded(60)
@example(content=b"\0", place=7)
def test_every_flipped_bit_of_a_checksummed_file_is_noticed(
    tmp_path: Path, content: bytes, place: int
) -> None:
    path = tmp_path / "file"
    files.write_checksummed(path, lambda file: file.write(content))
    assert not files.damage_problem(path)
    path.unlink()
    path.write_bytes(flipped(content, place % (8 * len(content))))
    assert files.damage_problem(path)


def test_a_change_within_one_tick_of_the_file_systems_clock_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_checksummed(path, lambda file: file.write(b"right"))
    assert not files.damage_problem(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"wrong")
    os.utime(path, ns=times)
    assert files.damage_problem(path)


@pytest.mark.parametrize(
    "harm", ["one flipped bit", "a lost tail", "another file", "an empty file"]
)
def test_damaged_trained_weights_are_trained_again(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = next(entry for entry in trained_models("digits") if entry.model == "test_vit.100x3")
    images = open_dataset("digits", part="train").take(np.arange(100))
    view = np.stack([np.asarray(images.image(number).resize((32, 32))) for number in range(100)])
    data = view, images.labels
    path = train_weights(tmp_path / "weights.safetensors", entry, data, data)
    content, right, top1 = path.read_bytes(), load_file(path), stored_top1(path)
    path.write_bytes(HARMS[harm](content))
    with caplog.at_level(logging.WARNING, "dsmi_zoo"):
        assert train_weights(path, entry, data, data) == path
    assert f"the weights {path}: " in caplog.text
    again = load_file(path)
    assert again.keys() == right.keys()
    assert all(np.array_equal(again[name], right[name]) for name in right)
    assert stored_top1(path) == top1


def test_a_run_mends_its_cache_says_so_and_comes_to_the_same_numbers(
    small_run: Path, cache: Path, tmp_path: Path, cli: Command
) -> None:
    models = ["test_resnet.100x3", "test_vit.100x3"]
    own_cache = Path(shutil.copytree(cache, tmp_path / "cache"))
    harmed = [*(own_cache / "views").glob("*.npy"), *(own_cache / "weights").glob("*.safetensors")]
    for path in harmed:
        path.write_bytes(HARMS["one flipped bit"](path.read_bytes()))
    said = cli("run", "--models", *models, "--out", tmp_path / "out", "--cache", own_cache)
    lines = (said.stdout + said.stderr).splitlines()
    assert (
        sum(line.startswith("the view ") and line.endswith("; making it again") for line in lines)
        >= 1
    )
    assert sum(line.startswith("the weights ") and " again" in line for line in lines) == 2
    measured = ["embedding_sha256", "dse_z", "dsmi_z_y", "dsmi_z_x", "top1"]
    rows, right = (
        read_results(out).set_index("model").loc[models, measured]
        for out in (tmp_path / "out", small_run)
    )
    pd.testing.assert_frame_equal(rows, right)


def test_a_view_that_is_damaged_while_the_run_goes_on_is_made_again_in_mid_run(
    small_run: Path, cache: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "vandal.py").write_text(
        "import os\nfrom pathlib import Path\n\n"
        "def harm(Z, labels):\n"
        "    if not Path('harmed').exists():\n"
        "        Path('harmed').touch()\n"
        "        for view in Path('cache/views').glob('*.npy'):\n"
        "            with view.open('r+b') as file:\n"
        "                file.seek(-5, os.SEEK_END)\n"
        "                file.write(b'\\x07')\n"
        "    return 0.0\n"
    )
    shutil.copytree(cache, tmp_path / "cache")
    models = ["test_resnet.100x3", "test_vit.100x3", "test_vit.900x2"]
    run = (
        "run",
        "--models",
        *models,
        "--out",
        "out",
        "--cache",
        "cache",
        "--measure",
        "vandal:harm",
    )
    said = cli(*run, cwd=tmp_path)
    assert "; making it again" in said.stdout + said.stderr
    measured = ["embedding_sha256", "dse_z", "dsmi_z_y"]
    rows, right = (
        read_results(o).set_index("model").loc[models, measured]
        for o in (tmp_path / "out", small_run)
    )
    pd.testing.assert_frame_equal(rows, right)


def test_a_view_that_the_disk_has_no_room_for_is_refused_before_a_byte_is_written(
    tmp_path: Path,
) -> None:
    images = open_dataset("digits")
    many = Subset(images.take(np.zeros(200_000, dtype=np.int64)), 100, 0, "test")
    with pytest.raises(ViewTooLarge, match=r"takes 1.0 PB, and .* free; take fewer images"):
        make_view(tmp_path / "view.npy", many, 4096, PREPROCESSING)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_entry_whose_view_cannot_be_had_is_a_failed_row_and_stops_no_other(
    mount: Mount, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(), nn.Linear(128, 4))\n"
    )
    table = pd.DataFrame(
        {"model": ["absurd", "small"], "builder": "flat:net", "img_size": [4096, 32]}
    )
    table.to_csv(tmp_path / "zoo.csv", index=False)
    out, cache = tmp_path / "out", mount("40m")
    said = cli(
        "run",
        "--catalog",
        "zoo.csv",
        "--out",
        out,
        "--cache",
        cache,
        cwd=tmp_path,
        code=1,
        images_per_class=None,
    )
    assert (
        "absurd@4096 failed: ViewTooLarge: its view of 447 images at 4096 x 4096 pixels takes 22.5 GB"
        in said.stdout
    )
    rows = read_results(out).set_index("model")
    assert rows["status"].to_dict() == {"absurd": "failed", "small": "ok"}


@pytest.mark.parametrize(
    "harm", ["one flipped bit", "a lost tail", "an empty file", "another file"]
)
def test_a_damaged_subset_stops_remeasure_in_one_line(
    small_run: Path, tmp_path: Path, harm: str, refused: Callable[[str, Path], str]
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    path = run / "subset.parquet"
    path.write_bytes(HARMS[harm](path.read_bytes()))
    said = refused(f"remeasure --out {run} --sigma 3 --into {tmp_path / 'out'}", tmp_path)
    assert said.startswith(f"dsmi-zoo: {path}: ")
    assert said.endswith("; the command that made it makes it again\n")
    assert len(said.splitlines()) == 1


def test_a_damaged_subset_is_written_anew_though_no_row_is_missing(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    right = read_subset(run)
    (run / "subset.parquet").write_bytes(b"PAR1")
    said = cli("run", "--models", *SMALL_ZOO, "--out", run)
    assert "subset or cluster files are missing or damaged; repairing them" in said.stdout
    pd.testing.assert_frame_equal(read_subset(run), right)
    assert "repairing them" not in cli("run", "--models", *SMALL_ZOO, "--out", run).stdout


def test_a_subset_that_is_missing_or_no_subset_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="cannot be read"):
        read_subset(tmp_path)
    pd.DataFrame({"image": ["a"], "label": [0]}).to_parquet(tmp_path / "subset.parquet")
    with pytest.raises(DamagedFile, match="lacks input_cluster, number, repeat"):
        read_subset(tmp_path)


def test_damaged_clusters_of_the_papers_inputs_are_refused(small_run: Path, tmp_path: Path) -> None:
    shutil.copy(small_run / "subset.parquet", tmp_path)
    path = clusters_path(tmp_path, 32)
    write_clusters(path, np.arange(200))
    assert subset_with_clusters(tmp_path, 32)["input_cluster"].tolist() == list(range(200))
    path.write_bytes(HARMS["one flipped bit"](path.read_bytes()))
    with pytest.raises(DamagedFile, match=r"32\.npy: its SHA-256"):
        subset_with_clusters(tmp_path, 32)
    files.note_path(path).unlink()  # as the first versions left it
    assert len(subset_with_clusters(tmp_path, 32)) == 200
    write_clusters(path, np.arange(3))
    with pytest.raises(DamagedFile, match="cannot be read"):
        subset_with_clusters(tmp_path, 32)
