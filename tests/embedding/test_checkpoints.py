"""Realistic checkpoints: nested, prefixed, in other formats, with several weights in one file."""

import argparse
import copy
import gzip
import logging
import pathlib
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hostile_input import answer_or_refusal, bounded
from hypothesis import given
from hypothesis import strategies as st
from test_builders import planned, write_catalog

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.jobs.progress import Display, follow
from dsmi_zoo.pipeline.engine.graph import run_entries
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.networks.checkpoints import Loaded, load_file
from dsmi_zoo.pipeline.networks.timm import loaded_model
from dsmi_zoo.pipeline.store.run_folder import read_row

State = dict[str, torch.Tensor]


def network(architecture: str = "test_resnet", num_classes: int = 10) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(architecture, num_classes=num_classes)


STATE: State = network().state_dict()
OTHER: State = {k: v + 1 for k, v in STATE.items()}  # like an average over a training
VIT: State = network("test_vit").state_dict()


def prefixed(prefix: str, state: Mapping[str, Any] = STATE) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def loaded(path: Path, key: str | None = None, num_classes: int = 10) -> tuple[State, Loaded]:
    entry = ModelEntry(
        model="mine",
        architecture="test_resnet",
        model_kwargs={"num_classes": num_classes},
        checkpoint=path,
        checkpoint_key=key,
    )
    model, how = loaded_model(entry, path)
    return model.state_dict(), how


def saved(folder: Path, content: Any, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def refused(path: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        loaded(path, **arguments)
    line = str(caught.value)
    assert line.startswith(f"{path} cannot be loaded: it ")
    assert "weights_only=False" not in line
    return line.removeprefix(f"{path} cannot be loaded: it ")


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Prefixes that people, training code and wrappers put before a network's names, and others that nobody uses.
PARTS = st.sampled_from([
    "state_dict", "model_state_dict", "model", "net", "backbone", "module", "_orig_mod", "encoder", "student",
    "teacher", "ema", "_fsdp_wrapped_module", "base_model", "params", "conv1", "layer1", "0", "a b", "weight",
])  # fmt: skip
BESIDE = st.fixed_dictionaries({}, optional={
    "epoch": st.just(3), "best_acc": st.just(np.float64(93.2)), "args": st.just(argparse.Namespace(lr=0.1)),
    "optimizer": st.just({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}),
    "losses": st.just([0.5, 0.25]), "arch": st.just("resnet"), "scheduler": st.none(),
})  # fmt: skip


@bounded(60)
@given(nesting=st.lists(st.tuples(PARTS, BESIDE), max_size=3), prefix=st.lists(PARTS, max_size=4))
def test_weights_are_restored_from_any_nesting_and_under_any_prefix(
    tmp_path_factory: pytest.TempPathFactory,
    nesting: list[tuple[str, dict[str, Any]]],
    prefix: list[str],
) -> None:
    content: dict[str, Any] = prefixed("".join(f"{part}." for part in prefix))
    for name, beside in nesting:
        content = beside | {name: content}
    state, how = loaded(saved(tmp_path_factory.mktemp("w"), content))
    assert same(state, STATE)
    assert not how.readings


@bounded(60)
@given(content=st.recursive(
    st.sampled_from([None, 3, "x", torch.ones(2), STATE["fc.weight"], b"x"]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(PARTS | st.integers(), parts, max_size=3),
))  # fmt: skip
def test_any_content_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = saved(tmp_path_factory.mktemp("w"), content)
    answer, line = answer_or_refusal(lambda: loaded(path), path)
    assert answer is None
    assert "cannot be loaded: it " in line


def fsdp(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename weights as FSDP does when it wraps each block."""
    wrapper = "_fsdp_wrapped_module"
    renamed = {}
    for name, value in state.items():
        parts = [f"{part}.{wrapper}" if part.isdigit() else part for part in name.split(".")]
        renamed[f"{wrapper}.{'.'.join(parts)}"] = value
    return renamed


def compiled() -> dict[str, Any]:
    model = network()
    model.layer1 = torch.compile(model.layer1)
    state: dict[str, Any] = torch.compile(torch.nn.DataParallel(model)).state_dict()
    return state


@pytest.mark.parametrize(
    "content",
    [
        lambda: torch.optim.swa_utils.AveragedModel(network()).state_dict(),
        compiled,
        lambda: {"state_dict": prefixed("model.", fsdp(STATE))},
        lambda: prefixed("base_model.model."),
        lambda: [STATE],
        lambda: OrderedDict((k, v) for k, v in STATE.items() if "num_batches" not in k),
        lambda: {name: torch.nn.Parameter(v, False) for name, v in STATE.items()},
    ],
    ids=["averaged", "compiled", "FSDP", "peft", "list", "no batches counted", "parameters"],
)
def test_weights_of_wrapped_networks_are_restored(
    tmp_path: Path, content: Callable[[], Any]
) -> None:
    state, _ = loaded(saved(tmp_path, content()))
    assert same(state, STATE)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Lightning gives advice as warnings
def test_a_checkpoint_of_a_real_lightning_training_is_loaded(tmp_path: Path) -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Training(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": np.float64(0.1), "root": pathlib.Path("images")})
            self.net = network()
            self.criterion = torch.nn.CrossEntropyLoss(weight=torch.ones(10))

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            return self.criterion(self.net(batch[0]), torch.zeros(2, dtype=torch.long))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    training, images = Training(), torch.utils.data.TensorDataset(torch.rand(2, 3, 32, 32))
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(training, torch.utils.data.DataLoader(images, batch_size=2))
    trainer.save_checkpoint(tmp_path / "epoch=0.ckpt")
    state, how = loaded(tmp_path / "epoch=0.ckpt")
    assert same(state, training.net.state_dict())
    assert (
        how.readings == "1 tensor ('state_dict.criterion.weight') beside 'state_dict.net' ignored"
    )
    assert not how.by_timm


@pytest.mark.parametrize(
    ("content", "key", "taken", "said"),
    [
        ({"state_dict": STATE, "state_dict_ema": OTHER}, None, OTHER, "'state_dict_ema' was taken, not 'state_dict'"),
        ({"state_dict": STATE, "state_dict_ema": OTHER}, "state_dict", STATE, ""),
        ({"model": STATE, "ema": OTHER}, None, STATE, "'model' was taken, not 'ema'"),
        ({"model": STATE, "ema": OTHER}, "ema", OTHER, ""),
        ({"student": prefixed("module."), "teacher": OTHER}, None, OTHER, "not 'student.module'; .* checkpoint_key"),
        ({"student": prefixed("module."), "teacher": OTHER}, "student", STATE, ""),
        ({"state_dict": prefixed("net.") | prefixed("ema.", OTHER)}, None, OTHER, "not 'state_dict.net'"),
        ({"state_dict": prefixed("net.") | prefixed("ema.", OTHER)}, "net", STATE, ""),
        (STATE | prefixed("ema.module.", OTHER), ".", STATE, ""),
        (STATE | prefixed("ema.module.", OTHER), None, STATE, "'.' was taken, not 'ema.module'"),
        ({"model": STATE, "ema": copy.deepcopy(STATE)}, None, STATE, ""),
        ({"model": STATE, "ema": STATE}, None, STATE, ""),
    ],
)  # fmt: skip
def test_of_several_weights_one_is_taken_and_said_or_a_key_decides(
    tmp_path: Path, content: dict[str, Any], key: str | None, taken: State, said: str
) -> None:
    state, how = loaded(saved(tmp_path, content), key)
    assert same(state, taken)
    assert bool(how.readings) == bool(said)
    assert re.search(said, how.readings)


def test_a_key_without_fitting_weights_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": STATE, "ema": OTHER})
    line = refused(path, key="teacher")
    assert line.endswith("fit the network under checkpoint_key 'teacher', but under 'model', 'ema'")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_loaded_as_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    content = {k: v.to(dtype) if v.is_floating_point() else v for k, v in STATE.items()}
    state, _ = loaded(saved(tmp_path, content))
    assert same(state, {k: content[k].to(v.dtype) for k, v in STATE.items()})


def test_shared_weights_that_a_file_holds_once_are_loaded(tmp_path: Path) -> None:
    def tied() -> torch.nn.Sequential:
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        )
        model[2].weight = model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    safetensors.torch.save_model(model, str(tmp_path / "w.safetensors"))
    load_file(other, tmp_path / "w.safetensors")
    assert same(other.state_dict(), model.state_dict())


class Settings:
    """A class from a training script."""


HARMLESS = {
    "scalars": (np.float64(93.2), np.float32(1), np.int64(2), np.bool_(True), np.str_("x")),
    "arrays": [np.arange(3), np.array(["a", None], dtype=object), np.dtype("f4")],
    "args": argparse.Namespace(root=pathlib.PurePosixPath("x")),
    "containers": {"a": defaultdict(list, a=[1]), "b": deque([1, 2]), "c": {1, 2}},
    "when": datetime(2026, 1, 1, tzinfo=UTC),
    "torch": (torch.device("cpu"), torch.float16, torch.Size([1])),
}


@pytest.mark.parametrize("is_zip", [True, False])
def test_harmless_objects_beside_the_weights_are_left_out(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(HARMLESS | {"model": STATE}, path, _use_new_zipfile_serialization=is_zip)
    state, how = loaded(path)
    assert same(state, STATE)
    assert how == Loaded("", by_timm=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_read_by_its_content_and_not_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path)
    state, how = loaded(path)
    assert same(state, STATE)
    assert not how.by_timm


SAVE = "; save the state dict alone: torch.save(model.state_dict(), ...)"
LORA = {k.replace("fc.", "fc.base_layer."): v for k, v in STATE.items()} | {
    "fc.lora_A.default.weight": torch.ones(2)
}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            {"model": network(num_classes=4).state_dict()},
            'has 4 outputs (fc.weight), the network 10: set model_kwargs to {"num_classes": 4}',
        ),
        (
            {k: v for k, v in STATE.items() if k[:3] != "fc."},
            'has no classifier (fc.weight, fc.bias): set model_kwargs to {"num_classes": 0}',
        ),
        (
            VIT,
            "none of the network's 92 tensors ('conv1.0.weight', 'conv1.1.weight', 'conv1.1.bias', ...); "
            "the file has 80 tensors ('cls_token', 'pos_embed', 'patch_embed.proj.weight', ...)",
        ),
        (
            STATE | {"layer1.0.se.weight": torch.ones(3)},
            "another architecture: it has 1 that the network lacks ('layer1.0.se.weight')",
        ),
        (
            STATE | {"conv1.0.weight": torch.ones(3, 3)},
            "conv1.0.weight is [3, 3], the network's [16, 3, 3, 3]; set architecture and model_kwargs",
        ),
        (LORA, "lacks 2 of 92 tensors ('fc.weight', 'fc.bias')"),
        (
            {k: v.to(torch.int8) for k, v in STATE.items()},
            "holds quantized weights (conv1.0.weight is int8); save them as floats",
        ),
        ({k: v.numpy() for k, v in STATE.items()}, f"holds NumPy arrays and no tensors{SAVE}"),
        (
            {"state_dict": STATE, "config": Settings()},
            f"test_checkpoints.Settings (key 'config'){SAVE}",
        ),
        (network(), f"holds a whole network, timm.models.resnet.ResNet{SAVE}"),
        (list(STATE.values()), "the file has 92 tensors ('0', '1', '2', ...)"),
        (3, f"holds no tensors (but int){SAVE}"),
        (torch.ones(3), f"holds one tensor without a name{SAVE}"),
    ],
)
def test_weights_that_do_not_fit_are_described_with_what_to_do(
    tmp_path: Path, content: Any, line: str
) -> None:
    assert line in refused(saved(tmp_path, content))


def test_the_arguments_named_for_another_head_load_the_file(tmp_path: Path) -> None:
    state = network(num_classes=4).state_dict()
    path = saved(tmp_path, state)
    assert same(loaded(path, num_classes=4)[0], state)
    assert '{"num_classes": 4}' in refused(path, num_classes=0)
    headless = {k: v for k, v in state.items() if not k.startswith("fc.")}
    assert same(loaded(saved(tmp_path, headless), num_classes=0)[0], headless)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
TENSORFLOW = b"\1\2" + bytes(99) + struct.pack("<Q", 0xDB4775248B80FB57)


def traced(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is deprecated
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/model.pth", "b.txt"):
            archive.writestr(name, "x")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "w.pth")


def of_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cut(write: Callable[[Path], object], share: float = 0.5) -> Callable[[Path], object]:
    def write_a_part(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return write_a_part


def new(path: Path) -> None:
    torch.save(STATE, path)


def old(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def safe(path: Path) -> None:
    safetensors.torch.save_file(STATE, path)


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lfs.pth": (of_bytes(POINTER), "is a Git LFS pointer, not the file itself: run git lfs pull"),
    "lfs.safetensors": (of_bytes(POINTER.replace(b"\n", b"\r\n")), "run git lfs pull"),
    "page.bin": (of_bytes(b"\n<!DOCTYPE html><html>"), "is an HTML page, not weights"),
    "text.pth": (of_bytes(b"404: Not Found"), "is text ('404: Not Found'), not weights"),
    "empty.pth": (of_bytes(b""), "is empty; copy or download it again"),
    "cut.pth": (cut(new), "is cut off or damaged"),
    "cut old.pth": (cut(old), "is cut off or damaged"),
    "cut.safetensors": (cut(safe), "is cut off: it has 755,456 of 1,510,912 bytes"),
    "cut header.safetensors": (cut(safe, 0.001), "is cut off within its header"),
    "folder.ckpt": (Path.mkdir, "is a folder; name the file of weights in it"),
    "script.pt": (traced, "is a TorchScript archive, which holds code"),
    "other.pth": (zipped, "is a ZIP archive of other files ('a/model.pth', 'b.txt'); unpack it"),
    "archive.pth.tar": (tarred, "is a tar archive; unpack it"),
    "w.pth": (of_bytes(gzip.compress(b"x")), "is compressed by gzip; unpack it"),
    "keras.ckpt": (of_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file, as Keras writes"),
    "tensorflow.ckpt": (of_bytes(TENSORFLOW), "is a TensorFlow checkpoint"),
    "pickle.pth": (
        of_bytes(pickle.dumps(STATE)),
        f"was written by pickle, not by torch.save{SAVE}",
    ),
    "protocol.pth": (
        lambda path: torch.save(STATE, path, pickle_protocol=4),
        "holds a pickle of another protocol than torch.save's own",
    ),
    "zeros.pth": (of_bytes(bytes(5000)), "is neither a PyTorch nor a safetensors file"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_something_else_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    write, line = WRITERS[name]
    write(tmp_path / name)
    assert line in refused(tmp_path / name)


MATRICES = [name for name, value in STATE.items() if value.ndim > 1]
PARAMETERS: State = {name: value.detach() for name, value in network().named_parameters()}


@pytest.mark.parametrize("place", ["optimizer", "grads", "adam.exp_avg", "state.max_exp_avg_sq"])
def test_an_optimisers_state_is_never_taken_for_the_weights(tmp_path: Path, place: str) -> None:
    beside: Any = STATE if "." in place else OTHER
    beside = {name: torch.zeros_like(value) for name, value in beside.items()}
    for part in reversed(place.split(".")):
        beside = {part: beside}
    state, how = loaded(saved(tmp_path, {**beside, "weights": STATE}))
    assert same(state, STATE)
    assert how.readings == ""
    line = refused(saved(tmp_path, beside))
    assert "none of the network's" in line
    named, _ = loaded(saved(tmp_path, beside), key=place)
    assert not named[MATRICES[0]].any()


@pytest.mark.parametrize(
    "dtype", [torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64]
)
def test_trained_weights_that_are_not_floats_are_refused(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    state = STATE | {MATRICES[0]: (100 * STATE[MATRICES[0]]).to(dtype)}
    line = refused(saved(tmp_path, state))
    assert MATRICES[0] in line
    assert "save them as floats" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_of_a_diverged_or_overflowed_training_are_refused(
    tmp_path: Path, value: float
) -> None:
    state = STATE | {MATRICES[1]: torch.full_like(STATE[MATRICES[1]], value).half()}
    assert f"NaN or infinite weights ({MATRICES[1]}, float16)" in refused(saved(tmp_path, state))


def test_an_average_that_does_not_fit_is_named_when_other_weights_are_taken(
    tmp_path: Path,
) -> None:
    state, how = loaded(saved(tmp_path, {"net": STATE, "ema": PARAMETERS}))
    assert same(state, STATE)
    assert how.readings.startswith("'ema' does not fit the network (it lacks ")
    assert how.readings.endswith("'net' was taken")


@pytest.mark.parametrize(
    ("said", "is_other"),
    [("test_resnet", False), ("test_resnet.r160_in1k", False), ("timm/test-resnet", False), ("resnet", False),
     ("test_vit", True)],
)  # fmt: skip
def test_another_architecture_that_the_file_names_is_reported(
    tmp_path: Path, said: str, is_other: bool
) -> None:
    _, how = loaded(saved(tmp_path, {"arch": said, "state_dict": STATE}))
    assert (f"names the architecture '{said}', the network is test_resnet" in how.readings) == (
        is_other
    )


def test_batch_norms_with_untrained_statistics_are_counted(tmp_path: Path) -> None:
    trained = {name: value + 0.1 for name, value in PARAMETERS.items()}
    untouched = {name: STATE[name] for name in STATE if "running" in name}
    _, how = loaded(saved(tmp_path, STATE | untouched | trained))
    norms = sum(name.endswith("running_mean") for name in STATE)
    assert f"{norms} batch norms have trained weights but untrained statistics" in how.readings
    _, untrained = loaded(saved(tmp_path, STATE))
    assert untrained.readings == ""


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 4, bias=False)
        self.b = torch.nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight


def test_two_values_for_a_shared_tensor_are_refused(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(4, 4), "b.weight": torch.zeros(4, 4)}
    with pytest.raises(InputError, match=r"'a.weight' and 'b.weight' are one tensor there"):
        load_file(Tied(), saved(tmp_path, state))


class Lenient(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def test_a_network_that_loads_leniently_is_not_left_half_random(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks 2 of 4 tensors"):
        load_file(
            Lenient(), saved(tmp_path, {"a.weight": torch.ones(4, 4), "a.bias": torch.ones(4)})
        )


def test_shards_of_a_checkpoint_are_named_as_such(tmp_path: Path) -> None:
    half = {name: STATE[name] for name in list(STATE)[::2]}
    shard = tmp_path / "model-00001-of-00002.safetensors"
    safetensors.torch.save_file(half, shard)
    assert refused(shard).startswith("is one of 2 shards; join them")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(InputError, match="only lists the shards of a checkpoint; join them"):
        loaded(index)
    empty = {name: torch.empty(0) for name in STATE}
    assert "DeepSpeed's ZeRO-3" in refused(saved(tmp_path, {"module": empty}))


@pytest.mark.long
def test_rows_say_which_weights_were_taken_and_a_key_makes_another_row(
    tmp_path: Path, cache: Path, thread_workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    average = {k: v + 0.1 * torch.rand(v.shape) if "weight" in k else v for k, v in STATE.items()}
    saved(tmp_path, {"model": STATE, "ema": average})
    kwargs = '"{""num_classes"": 10}"'
    path = write_catalog(
        tmp_path,
        "model,architecture,checkpoint,checkpoint_key,model_kwargs,img_size",
        f"first,test_resnet,w.pth,,{kwargs},32",
        f"average,test_resnet,w.pth,ema,{kwargs},32",
    )
    plan = planned(path, cache, out=tmp_path / "out", subset={"images_per_class": 5})
    for name in ("results", "embeddings"):
        (plan.config.folder / name).mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "dsmi_zoo.jobs.progress"):
        succeeded, _ = follow(run_entries(thread_workers, plan, plan.jobs), 2, Display())
    assert succeeded == 2
    first, other = (read_row(plan.config.folder, job.slug) for job in plan.jobs)
    said = "w.pth holds 2 sets of weights that fit: 'model' was taken, not 'ema'"
    assert first["readings"].startswith(said)
    assert other["readings"] is None
    assert [line for line in caplog.messages if said in line] == [f"first@32: {first['readings']}"]
    assert first["row_id"] != other["row_id"]
    assert first["dse_z"] != other["dse_z"]
    assert "checkpoint_path='w.pth'" in first["loading_code"]
    assert other["loading_code"] is None
