"""Catalogues: the built-in digits zoo, users' files, and the errors in such files."""

from pathlib import Path

import pandas as pd
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import ARCHITECTURES, find_entries, load_models


def catalog(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_models(catalog(folder, text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_digits_zoo_has_16_architectures_at_3_budgets() -> None:
    entries = load_models("digits")
    assert len(entries) == 48
    assert len({entry.slug for entry in entries}) == 48
    assert {entry.architecture for entry in entries} == set(ARCHITECTURES)
    assert {entry.group for entry in entries} == {
        "100 images x 3 epochs",
        "900 images x 2 epochs",
        "900 images x 5 epochs",
    }
    assert all(entry.top1 is None for entry in entries)


def test_the_digits_zoo_names_timms_own_modules_as_families() -> None:
    for architecture, (family, _) in ARCHITECTURES.items():
        assert architecture in timm.list_models(module=family)


def test_patterns_choose_models_by_name_or_by_name_and_size() -> None:
    assert len(load_models("digits", ["test_vit.*"])) == 3
    assert [e.model for e in load_models("digits", ["*.900x5@32", "test_vit.900x5"])] == [
        e.model for e in load_models("digits") if e.model.endswith("900x5")
    ]


def test_a_pattern_that_matches_nothing_is_refused_with_a_similar_name() -> None:
    with pytest.raises(
        InputError,
        match=r"no model of digits matches 'test_resnt.900x5'; did you mean test_resnet.900x5\?",
    ):
        load_models("digits", ["test_vit.*", "test_resnt.900x5"])


def test_an_unknown_catalogue_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="unknown catalogue 'imagenet-1066'"):
        load_models("imagenet-1066")


def test_a_file_gives_entries_with_every_field(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    path = catalog(
        tmp_path,
        "model,architecture,builder,layer,checkpoint,model_kwargs,img_size,top1,v2_top1,gmacs,group,crop_pct,mean,std\n"
        'a,test_vit,my.nets:vit,norm,w.safetensors,"{""num_classes"": 10}",'
        "32,71.5,,1.25,small,0.9,0.5 0.5 0.5,0.5 0.5 0.5\n"
        "a,,,,,,64,,,,,,,\n",
    )
    first, second = load_models(str(path))
    assert first.architecture == "test_vit"
    assert first.checkpoint == tmp_path / "w.safetensors"
    assert first.model_kwargs == {"num_classes": 10}
    assert (first.builder, first.layer) == ("my.nets:vit", "norm")
    assert (second.builder, second.layer) == (None, None)
    assert (first.img_size, first.top1, first.group) == (32, 71.5, "small")
    assert first.extras == {"v2_top1": None, "gmacs": 1.25}
    assert first.preprocessing is not None
    assert first.preprocessing.crop_pct == 0.9
    assert second.architecture == "a"
    assert second.top1 is None
    assert second.checkpoint is None


def test_a_file_may_have_all_columns_of_the_built_in_tables(tmp_path: Path) -> None:
    path = catalog(
        tmp_path,
        "model,kind,pretraining,extra_data,license,weights\n"
        "a,hybrid,in1k,1,mit,me/a@0123abc\nb,MLP,,no,,https://example.org/b.pth\nc,,,,,\n",
    )
    a, b, c = load_models(path)
    assert (a.kind, a.pretraining, a.extra_data, a.license, a.weights) == (
        "hybrid",
        "in1k",
        True,
        "mit",
        "me/a@0123abc",
    )
    assert (b.kind, b.extra_data, b.weights) == ("MLP", False, "https://example.org/b.pth")
    assert (c.kind, c.pretraining, c.extra_data, c.license, c.weights) == (
        None,
        None,
        None,
        None,
        None,
    )
    frame = pd.read_csv(path)
    frame["extra_data"] = [True, False, None]
    frame.to_parquet(tmp_path / "mine.parquet")
    assert load_models(tmp_path / "mine.parquet") == [a, b, c]


def test_a_parquet_catalogue_equals_its_csv(tmp_path: Path) -> None:
    text = "model,img_size,top1,epochs\na,32,71.5,3\nb,32,,5\n"
    path = catalog(tmp_path, text)
    pd.read_csv(path).to_parquet(tmp_path / "mine.parquet")
    assert load_models(tmp_path / "mine.parquet") == load_models(path)


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    assert "line 4" in complaint(tmp_path, "model,top1\na,50\n\nb,fifty\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,top1\na,50\nb,fifty\n", ["mine.csv, line 3", "top1", "'fifty'", "not a number"]),
        ("model,top1\na,101\n", ["line 2", "top1 = 101", "0 to 100"]),
        ("model,real_top1\na,-1\n", ["line 2", "real_top1 = -1", "0 to 100"]),
        ("model,top1\na,nan\n", ["line 2", "top1", "leave the cell empty"]),
        ("model,top1\na,1\nb,2\na,3\n", ["line 4", "'a'", "line 2", "unique"]),
        ("model,img_size\na,32\na,32\n", ["line 3", "'a' at img_size 32", "line 2"]),
        ("model,img_size\na,32.5\n", ["line 2", "img_size", "32.5"]),
        ("model,img_size\na,-3\n", ["line 2", "img_size", "-3"]),
        ("model,checkpoint\na,gone.safetensors\n", ["line 2", "gone.safetensors", "not a file"]),
        ("model,checkpoint\na,.\n", ["line 2", "'.'", "is a folder; name the file of weights"]),
        ("model,checkpoint_key\na,ema\n", ["line 2", "checkpoint_key", "a checkpoint; name one"]),
        ("model,model_kwargs\na,{bad\n", ["line 2", "model_kwargs", "JSON"]),
        ("model,model_kwargs\na,[1]\n", ["line 2", "model_kwargs", "object"]),
        ("model,colour\na,red\n", ["line 2", "colour", "'red'"]),
        ("model,extra_data\na,maybe\n", ["line 2", "extra_data", "'maybe'", "boolean"]),
        ("model,kind\na,quantum\n", ["line 2", "kind", "'convolutional'", "'quantum'"]),
        ("model,weights\na,not a place\n", ["line 2", "weights", "'not a place'", "owner/name"]),
        ("model,builder\na,resnet18\n", ["line 2", "builder", "'resnet18'", "module:function"]),
        (
            "model,builder\na,my-nets:net\n",
            ["line 2", "builder", "'my-nets:net'", "module:function"],
        ),
        (
            "model,weights,checkpoint\na,o/n,mine.csv\n",
            ["line 2", "checkpoint", "weights", "leave one empty"],
        ),
        (
            "model,crop_mode,crop_pct,mean,std\na,oval,1,1 1 1,1 1 1\n",
            ["line 2", "crop_mode", "oval"],
        ),
        ("model,crop_pct\na,1\n", ["line 2", "mean"]),
        ("model,top1\n,50\n", ["line 2", "name is missing"]),
        ("model,<b>\na,1\n", ["<b>", "plain name"]),
        ("name,top1\na,50\n", ["line 1", "did you mean model?", "column 'name'"]),
        ("net,top1\na,50\n", ["no column 'model'", "net, top1"]),
        ("model\n", ["empty"]),
        ("", ["mine.csv"]),
    ],
)
def test_a_wrong_catalogue_is_refused_in_one_line_that_names_the_culprit(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    line = complaint(tmp_path, text)
    for word in words:
        assert word in line


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"\x00\x01 nonsense")
    with pytest.raises(InputError, match="cannot be read as a catalogue"):
        load_models(tmp_path / "mine.parquet")
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe\x00\xd8")  # starts like UTF-16
    with pytest.raises(InputError, match="cannot be read as a catalogue"):
        load_models(tmp_path / "mine.csv")


def test_exact_names_find_all_sizes_or_one() -> None:
    entries = [
        ModelEntry(model=m, architecture="x", img_size=s)
        for m, s in [("a", 32), ("a", 64), ("a@64", 32), ("b", 32)]
    ]
    assert [str(e) for e in find_entries(entries, ["a"], "it")] == ["a@32", "a@64"]
    assert [str(e) for e in find_entries(entries, ["a@32", "b"], "it")] == ["a@32", "b@32"]
    assert [str(e) for e in find_entries(entries, ["a@64"], "it")] == ["a@64@32"]
    with pytest.raises(InputError, match="it has no model 'c'"):
        find_entries(entries, ["c"], "it")


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=300), st.integers(1, 4096)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_slugs_are_safe_and_never_clash(pairs: list[tuple[str, int]]) -> None:
    slugs = [ModelEntry(model=name, architecture="x", img_size=size).slug for name, size in pairs]
    assert slugs[0] != slugs[1]
    for slug in slugs:
        assert len(slug) < 120
        assert not set(slug) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
        )
        assert not slug.startswith(".")


def test_names_that_would_leave_their_folder_stay_in_it() -> None:
    for name in ("../../etc/passwd", "a/b", "..", ".", "x" * 300, "nul\x00", "C:\\x"):
        path = Path("/out") / f"{ModelEntry(model=name, architecture='x', img_size=1).slug}.parquet"
        assert path.resolve().parent == Path("/out")


@pytest.mark.parametrize(
    ("written", "kept"),
    [("w/a.pth", "w/a.pth"), ("./w/a.pth", "w/a.pth"), ("../zoo/w/a.pth", None)],
)
def test_a_checkpoints_path_below_the_catalogue_is_kept_but_in_no_hash(
    tmp_path: Path, written: str, kept: str | None
) -> None:
    (tmp_path / "zoo" / "w").mkdir(parents=True)
    (tmp_path / "zoo" / "w" / "a.pth").touch()
    for name in (written, str(tmp_path / "zoo" / "w" / "a.pth")):
        (tmp_path / "zoo" / "zoo.csv").write_text(f"model,checkpoint\na,{name}\n")
        (entry,) = load_models(str(tmp_path / "zoo" / "zoo.csv"))
        assert entry.checkpoint == tmp_path / "zoo" / "w" / "a.pth"
        assert entry.checkpoint_in_catalog == (kept if name == written else None)
        assert "checkpoint_in_catalog" not in entry.model_dump_json()
