"""Real timm models: penultimate embedding, training and checkpoints."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import damage_problem, move_checksummed
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import ARCHITECTURES, PREPROCESSING, load_models
from dsmi_zoo.pipeline.embedding.embed import View, embed, embed_inputs, normalised
from dsmi_zoo.pipeline.embedding.train import stored_top1, train_weights
from dsmi_zoo.pipeline.embedding.views import make_view, open_view, part_view
from dsmi_zoo.pipeline.networks.timm import build_model, choose_device, with_timm_defaults

pytestmark = pytest.mark.long

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("view") / "digits.npy"
    subset = Subset(open_dataset("digits", part="train"), 1, 0, "train")
    return open_view(make_view(path, subset, 32, PREPROCESSING))[:]


@pytest.fixture(scope="module")
def test_part(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    images = open_dataset("digits", part="test")
    path = tmp_path_factory.mktemp("view") / "test.npy"
    return open_view(make_view(path, Subset(images, 1, 0, "test"), 32, PREPROCESSING))[
        :
    ], images.labels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_embedding_is_what_the_model_gives_without_its_classifier(
    architecture: str, view: np.ndarray
) -> None:
    kwargs = {"num_classes": 10, **ARCHITECTURES[architecture][1]}
    model = timm.create_model(architecture, pretrained=False, **kwargs).eval()
    embedding = embed(model, view[:9], PREPROCESSING, CPU, batch_size=4)
    assert embedding.values.dtype == np.float32
    assert embedding.predictions is not None
    with torch.inference_mode():
        inputs = normalised(torch.from_numpy(np.array(view[:9])), PREPROCESSING)
        logits = model(inputs)
        model.reset_classifier(0)
        headless = model(inputs).numpy()
    np.testing.assert_allclose(embedding.values, headless, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embedding.predictions, logits.argmax(1).numpy())


def test_a_model_without_a_classifier_predicts_nothing(view: np.ndarray) -> None:
    model = timm.create_model("test_resnet", num_classes=0).eval()
    assert embed(model, view[:2], PREPROCESSING, CPU, 2).predictions is None


def test_normalised_pixels_have_the_stated_mean_and_std() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    preprocessing = PREPROCESSING.model_copy(
        update={"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 2.0)}
    )
    np.testing.assert_allclose(
        normalised(pixels, preprocessing)[:, :, 0, 0].numpy(), [[-1, -1, 0], [1, 3, 0.5]]
    )


def digits_model(model: str = "test_vit.100x3") -> ModelEntry:
    return load_models("digits", [model])[0]


def test_training_is_reproducible_and_leaves_the_global_random_state_alone(
    tmp_path: Path, view: np.ndarray, test_part: tuple[np.ndarray, np.ndarray]
) -> None:
    train = (view, open_dataset("digits", part="train").labels)
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first = train_weights(tmp_path / "a.safetensors", digits_model(), train, test_part)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    second = train_weights(tmp_path / "b.safetensors", digits_model(), train, test_part)
    one, other = (safetensors.torch.load_file(path) for path in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert stored_top1(first) == stored_top1(second)


def test_trained_weights_are_kept_with_their_accuracy_and_not_trained_again(
    tmp_path: Path, view: np.ndarray, test_part: tuple[np.ndarray, np.ndarray]
) -> None:
    entry, path = digits_model("test_resnet.900x5"), tmp_path / "w.safetensors"
    train_weights(path, entry, (view, open_dataset("digits", part="train").labels), test_part)
    model = build_model(entry, path)
    predictions = embed(model, test_part[0], PREPROCESSING, CPU, 64).predictions
    assert stored_top1(path) == pytest.approx(100 * np.mean(predictions == test_part[1]))
    assert stored_top1(path) > 50
    made = path.stat().st_mtime_ns
    assert train_weights(path, entry, (view[:0], np.zeros(0)), test_part) == path
    assert path.stat().st_mtime_ns == made


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_gives_back_its_weights(tmp_path: Path, suffix: str) -> None:
    entry = ModelEntry(model="mine", architecture="test_resnet", model_kwargs={"num_classes": 7})
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    path = tmp_path / f"w{suffix}"
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(
        state, path
    )
    model = build_model(entry, path)
    assert not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class Payload:
    """A malicious object that makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["PAYLOAD_FOLDER"]) / "ran"),)


def test_a_checkpoint_that_carries_code_is_refused_and_its_code_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYLOAD_FOLDER", str(tmp_path))
    torch.save({"state_dict": Payload()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"holds an object of \w+\.mkdir \(key 'state_dict'\)"):
        build_model(ModelEntry(model="mine", architecture="test_resnet"), tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_an_unsafe_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w\.pkl: a checkpoint must be one of"):
        build_model(ModelEntry(model="mine", architecture="test_resnet"), tmp_path / "w.pkl")


def test_timm_fills_in_what_a_catalogue_leaves_open() -> None:
    (entry,) = with_timm_defaults([ModelEntry(model="a", architecture="test_vit.r160_in1k")])
    assert entry.family == "vision_transformer"
    assert entry.img_size == 160
    assert entry.preprocessing is not None
    assert entry.preprocessing.crop_pct == 0.95
    assert entry.weights == "timm/test_vit.r160_in1k"


@pytest.mark.parametrize(
    ("architecture", "line"),
    [
        ("no_such_net", "m: timm .* has no architecture 'no_such_net'"),
        (
            "timm/test_vit.r160_in1k",
            "no architecture 'timm/test_vit.r160_in1k': did you mean test_vit.r160_in1k",
        ),
        ("Test_ViT", "m: timm .* has no architecture 'Test_ViT': did you mean test_vit"),
        ("test_vit.no_tag", "m: timm has no weights of this tag: .*no_tag"),
        (
            "resnet50_mlp.untrained",
            "m: timm has no pretrained weights of 'resnet50_mlp.untrained'; give a checkpoint",
        ),
    ],
)
def test_an_architecture_without_weights_is_refused_by_name(architecture: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        with_timm_defaults([ModelEntry(model="m", architecture=architecture)])


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_the_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device().type == device


class Fitting(torch.nn.Module):
    """A real model on a device whose memory holds at most ``most`` images."""

    def __init__(self, model: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most, self.num_classes = model, most, model.num_classes
        self.forward_head = model.forward_head

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model.forward_features(images)


def test_the_batch_is_halved_when_memory_runs_out_and_only_then(view: np.ndarray) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=10).eval()
    whole = embed(model, view[:21], PREPROCESSING, CPU, 16)
    halved = embed(Fitting(model, 3), view[:21], PREPROCESSING, CPU, 16)
    np.testing.assert_allclose(halved.values, whole.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(halved.predictions, whole.predictions)
    with pytest.raises(torch.OutOfMemoryError):
        embed(Fitting(model, 0), view[:2], PREPROCESSING, CPU, 16)
    with pytest.raises(RuntimeError, match=r"shape|size|channels"):
        embed(
            model, view[:2, :, :, :2], PREPROCESSING.model_copy(update={"mean": (0, 0, 0)}), CPU, 16
        )


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_lower_precision_comes_near_and_leaves_the_switches_as_they_were(
    view: np.ndarray, precision: str
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=10).eval()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    exact = embed(model, view[:8], PREPROCESSING, CPU, 8).values
    inputs = View(view[:8], PREPROCESSING)
    near = embed_inputs(model, inputs, CPU, batch_size=8, precision=precision).values
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, exact, atol=0.05 * np.abs(exact).max())
    assert (precision == "tf32") == np.array_equal(near, exact)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


GROWTH = """
import numpy as np, psutil, torch
from dsmi_zoo.pipeline.embedding.embed import embed_inputs

class Large:
    pixels = 1024 * 1024
    def __len__(self):
        return 200
    def batch(self, start, stop, device):
        return torch.zeros(stop - start, 3, 1024, 1024)

for _ in range(3):
    np.ones(30 * 2**20, np.uint8)  # from now on the C library keeps what is freed, up to so many bytes
model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))
process = psutil.Process()
before = process.memory_info().rss
embed_inputs(model.eval(), Large(), torch.device("cpu"), batch_size=1)
print(round((process.memory_info().rss - before) / 2**20))
"""


def test_memory_of_the_process_does_not_grow_with_the_batches() -> None:
    said = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) < 200, "MiB; a batch has 12"


def test_memory_while_embedding_does_not_grow_with_the_images(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=0).eval()

    def peak(count: int) -> int:
        path, made = tmp_path / f"{count}.npy", tmp_path / "made"
        np.lib.format.open_memmap(made, "w+", np.uint8, (count, 32, 32, 3)).flush()
        move_checksummed(made, path)
        assert not damage_problem(path)
        tracemalloc.start()
        values = embed(model, open_view(path), PREPROCESSING, CPU, 64).values
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most - 2 * values.nbytes  # the batches' embeddings and their concatenation

    assert peak(1024) - peak(128) < 200_000  # the view itself grows by 2.7 MB


@pytest.mark.slow
def test_batch_norm_of_every_network_is_in_evaluation_what_it_was_in_training(
    tmp_path: Path, test_part: tuple[np.ndarray, np.ndarray]
) -> None:
    """Running statistics that lagged behind the weights cut a network's accuracy on the digits from 99% to 26%."""
    training = part_view(tmp_path, "digits", None, "train", 32, PREPROCESSING)
    images, labels = test_part
    gaps = {}
    for entry in load_models("digits"):
        path = tmp_path / f"{entry.slug}.safetensors"
        model = timm.create_model(entry.architecture, **entry.model_kwargs)
        if not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
            continue
        train_weights(path, entry, training, test_part)
        model = build_model(entry, path).train()
        with torch.inference_mode():
            logits = model(normalised(torch.from_numpy(images), PREPROCESSING))
        of_the_batch = 100 * np.mean(logits.argmax(dim=1).numpy() == labels)
        gaps[entry.model] = abs(of_the_batch - stored_top1(path))
    assert len(gaps) == 12
    assert max(gaps.values()) < 5, gaps
