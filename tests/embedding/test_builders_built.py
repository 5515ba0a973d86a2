"""The build of a builder's network: its weights, arguments and source changes."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from test_builders import NETS, module_name, own_entry, planned, write_catalog

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.user_code import find_module
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import PREPROCESSING
from dsmi_zoo.pipeline.engine.graph import run_entries
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.networks.custom import BuilderError, Built, build
from dsmi_zoo.pipeline.networks.forward import defaults_kept
from dsmi_zoo.pipeline.plan.plan import Plan, with_builder_defaults
from dsmi_zoo.pipeline.store.embedding_file import embedding_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with a module of networks whose name no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{module_name(tmp_path)}.py").write_text(NETS)
    return tmp_path


def built(entry: ModelEntry, weights: Path | None = None) -> Built:
    assert entry.builder is not None
    return build(entry, find_module(entry.builder.partition(":")[0], "a test").sha256, weights)


def embeddings_of(plan: Plan, thread_workers: Workers) -> dict[str, np.ndarray]:
    """Run the plan in this process and return the embedding of each model."""
    for name in ("results", "embeddings"):
        (plan.config.folder / name).mkdir(parents=True, exist_ok=True)
    done = list(run_entries(thread_workers, plan, plan.jobs))
    assert all(entry.ok for entry in done), done
    return {
        job.entry.model: np.load(embedding_path(plan.config.folder, job.slug)) for job in plan.jobs
    }


def test_a_builders_entry_is_filled_by_habit_and_keeps_what_it_says() -> None:
    entry = ModelEntry(
        model="mine", architecture="mine", builder="torchvision.models.vision_transformer:vit_b_16"
    )
    filled = with_builder_defaults(entry)
    assert (filled.family, filled.kind, filled.img_size) == (
        "vision_transformer",
        "transformer",
        224,
    )
    assert filled.preprocessing is not None
    assert filled.preprocessing.model_dump() == {
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    told = entry.model_copy(
        update={"family": "f", "kind": "MLP", "img_size": 48, "preprocessing": PREPROCESSING}
    )
    assert with_builder_defaults(told) == told


def test_random_weights_are_reproducible_and_global_random_states_stay(
    folder: Path,
) -> None:
    def drawn() -> list[float]:
        return [float(torch.rand(1)), float(np.random.rand()), random.random()]  # noqa: NPY002

    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    expected = drawn()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    first = built(own_entry(folder)).model
    assert drawn() == expected
    second = built(own_entry(folder)).model
    assert not first.training
    assert all(
        torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_model_kwargs_are_the_builders_arguments(folder: Path) -> None:
    assert built(own_entry(folder, model_kwargs={"width": 5})).model.get_parameter(
        "head.weight"
    ).shape == (10, 5)
    with pytest.raises(BuilderError, match=r"builder \S+:own raised TypeError: .*colour"):
        built(own_entry(folder, model_kwargs={"colour": 5}))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_is_loaded_strictly_into_what_was_built(folder: Path, suffix: str) -> None:
    torch.manual_seed(9)
    state = {
        name: torch.randn_like(value)
        for name, value in built(own_entry(folder)).model.state_dict().items()
    }
    path = folder / f"w{suffix}"

    def save() -> None:
        safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(
            state, path
        )

    save()
    loaded = built(own_entry(folder), path).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    del state["head.bias"]
    save()
    with pytest.raises(InputError, match=r"lacks 1 of 4 tensors \('head\.bias'\)"):
        built(own_entry(folder), path)
    with pytest.raises(InputError, match="a checkpoint must be one of"):
        built(own_entry(folder), path.with_suffix(".pkl"))


def test_a_module_edited_since_the_plan_is_refused_and_read_again_after_a_new_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    entry, file = own_entry(folder), folder / f"{module_name(folder)}.py"
    planned_with = find_module(file.stem, "a test").sha256
    assert build(entry, planned_with, None).model.get_parameter("head.weight").shape[1] == 16
    saved_at = file.stat().st_mtime
    file.write_text(NETS.replace("width=16", "width=12"))
    os.utime(
        file, (saved_at, saved_at)
    )  # of the same size, too: Python would take its bytecode for current
    with pytest.raises(
        BuilderError, match=r"has changed since the run was planned; start the run again"
    ):
        build(entry, planned_with, None)
    assert built(entry).model.get_parameter("head.weight").shape[1] == 12


def test_a_function_that_its_file_no_longer_holds_is_no_builder(folder: Path) -> None:
    entry, file = own_entry(folder), folder / f"{module_name(folder)}.py"
    built(entry)
    file.write_text(NETS.replace("def own(", "def other("))
    with pytest.raises(BuilderError, match=r"has no function 'own'"):
        built(entry)


def test_what_a_network_changes_of_torchs_defaults_is_gone_for_the_next_one(folder: Path) -> None:
    changing = (
        NETS
        + """
def changing():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    raise KeyError("too late")
"""
    )
    (folder / f"{module_name(folder)}.py").write_text(changing)
    state = (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
    )
    with pytest.raises(BuilderError, match="too late"), defaults_kept():
        built(own_entry(folder, "changing"))
    assert (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
    ) == state
    assert torch.empty(0).device.type == "cpu"


def test_a_network_that_leaves_other_defaults_behind_changes_no_row_but_its_own(
    folder: Path, cache: Path, thread_workers: Workers
) -> None:
    module = module_name(folder)
    changing = "def changing():\n    torch.set_default_dtype(torch.float64)\n    return Net(16)\n"
    (folder / f"{module}.py").write_text(f"{NETS}\n{changing}")
    lines = [
        f"{name},{module}:{function},32"
        for name, function in (("a", "own"), ("b", "changing"), ("c", "own"))
    ]
    catalog = write_catalog(folder, "model,builder,img_size", *lines)
    embeddings = embeddings_of(
        planned(catalog, cache, out=folder / "out", subset={"images_per_class": 3}), thread_workers
    )
    np.testing.assert_array_equal(embeddings["a"], embeddings["c"])
    assert torch.get_default_dtype() == torch.float32
