"""Forward passes: views kept on a device, growing batches, order in memory, compiled networks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.embedding import embed as embedding
from dsmi_zoo.pipeline.embedding.embed import (
    View,
    embed,
    embed_inputs,
    pixels_on,
    takes_channels_last,
)
from dsmi_zoo.pipeline.embedding.views import StoredView, open_stored
from dsmi_zoo.pipeline.networks.forward import MAX_BATCH, BatchSize

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PREPROCESSING = Preprocessing(crop_pct=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def view(tmp_path: Path) -> StoredView:
    return stored(tmp_path / "view.npy", seed=0)


def stored(path: Path, seed: int) -> StoredView:
    np.save(path, np.random.default_rng(seed).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8))
    return open_stored(path)


# Pixels on a device


@pytest.fixture
def _the_cpu_keeps_views(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(embedding, "KEPT_ON", ("cpu",))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**7, 10**9))
    yield
    embedding._kept = None


@pytest.mark.usefixtures("_the_cpu_keeps_views")
def test_a_view_stays_on_the_device_while_models_share_it(
    view: StoredView, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(embedding, "_CHUNK_BYTES", 7 * view.bytes_of_a_row)
    first = pixels_on(CPU, view)
    assert first is not None
    np.testing.assert_array_equal(first.numpy(), view[:])
    assert pixels_on(CPU, open_stored(view.path)) is first
    another = stored(tmp_path / "another.npy", seed=1)
    np.testing.assert_array_equal(pixels_on(CPU, another).numpy(), another[:])
    assert pixels_on(CPU, view) is not first


@pytest.mark.usefixtures("_the_cpu_keeps_views")
def test_a_view_that_would_fill_the_device_is_read_batch_by_batch(
    view: StoredView, monkeypatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda device: (2 * len(view) * view.bytes_of_a_row, 10**9)
    )
    assert pixels_on(CPU, view) is None

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(torch, "empty", full)
    assert pixels_on(CPU, view) is None


@pytest.mark.usefixtures("_the_cpu_keeps_views")
def test_a_model_embeds_the_same_from_a_kept_view(view: StoredView, monkeypatch) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet").eval()
    kept = embed(model, view, PREPROCESSING, CPU, 8).values
    assert embedding._kept is not None
    monkeypatch.setattr(embedding, "KEPT_ON", ())
    np.testing.assert_array_equal(embed(model, view, PREPROCESSING, CPU, 8).values, kept)


def test_a_view_in_memory_gives_the_same_batches(view: StoredView) -> None:
    batches = [View(pixels, PREPROCESSING).batch(45, 60, CPU) for pixels in (view, view[:])]
    assert batches[0].shape == (5, 3, 32, 32)
    assert torch.equal(*batches)


# Batches


def sizes_over(rate_of: dict[int, float], passes: int = 12) -> list[int]:
    """Return the batch size of each pass on a GPU that passes ``rate_of[size]`` images per second."""
    size, sizes = BatchSize(GPU, 224 * 224), []
    for _ in range(passes):
        sizes.append(size.count)
        size.record_pass(size.count, size.count / rate_of[size.count])
    return sizes


def test_a_batch_grows_while_passes_get_faster_and_goes_back_when_they_do_not() -> None:
    rates = {64: 1000.0, 128: 1800.0, 256: 1850.0}
    assert sizes_over(rates, 8) == [64, 64, 128, 128, 256, 256, 128, 128]


def test_a_batch_grows_no_further_than_its_limit() -> None:
    rates = {64 * 2**power: 1000.0 * 2**power for power in range(8)}
    assert max(sizes_over(rates, 30)) == MAX_BATCH


def test_a_batch_that_was_halved_or_chosen_does_not_grow_and_on_a_cpu_none_does() -> None:
    for size in (BatchSize(GPU, 10), BatchSize(GPU, 10, 64), BatchSize(CPU, 224 * 224)):
        if size.count == 64 and size._may_grow:
            assert size.shrink()
        before = size.count
        for _ in range(6):
            size.record_pass(size.count, 1e-9)
        assert size.count == before


def test_a_smaller_last_batch_is_not_timed() -> None:
    size = BatchSize(GPU, 10)
    size.record_pass(64, 1.0)
    size.record_pass(3, 1e-9)
    assert size.count == 64


def test_where_one_image_is_too_many_the_batch_says_so() -> None:
    size = BatchSize(GPU, 10, 2)
    assert size.shrink()
    assert not size.shrink()


# The order in memory


@pytest.mark.parametrize(
    ("name", "on_cpu"),
    [
        ("test_resnet", True),
        ("test_efficientnet", True),
        ("test_vit", False),
        ("test_mambaout", False),
    ],
)
def test_channels_come_last_where_that_is_faster(name: str, on_cpu: bool) -> None:
    model = timm.create_model(name)
    assert takes_channels_last(model, CPU) == on_cpu
    assert takes_channels_last(model, GPU)


def test_a_users_own_network_keeps_the_usual_order() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    assert not takes_channels_last(model, GPU)
    assert not takes_channels_last(model, CPU)


def test_the_order_in_memory_changes_no_more_than_rounding(view: StoredView) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet").eval()
    embedding = embed(model, view, PREPROCESSING, CPU).values
    usual = model.to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        images = View(view, PREPROCESSING).batch(0, len(view), CPU)
        expected = usual.forward_head(usual.forward_features(images), pre_logits=True).numpy()
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_network_can_be_trained_after_it_has_embedded_images_as_if_it_had_not(
    view: StoredView,
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet")
    before = [(weight.stride(), weight.clone()) for weight in model.parameters()]
    embed(model.eval(), view, PREPROCESSING, CPU)
    for weight, (stride, value) in zip(model.parameters(), before, strict=True):
        assert weight.stride() == stride
        assert torch.equal(weight, value)
    model.train()(torch.ones(2, 3, 32, 32)).sum().backward()


# Compiled networks


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_and_compiles_for_one_size_of_batch(
    view: StoredView,
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit2", img_size=32, num_classes=10).eval()
    usual = embed(model, view, PREPROCESSING, CPU, 16)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = embed_inputs(model, View(view, PREPROCESSING), CPU, batch_size=16, compiled=True)
    np.testing.assert_allclose(compiled.values, usual.values, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(compiled.predictions, usual.predictions)


def test_a_network_that_cannot_be_compiled_is_reported_in_one_line(
    view: StoredView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nin any of many places")

    model = timm.create_model("test_vit2", img_size=32).eval()
    monkeypatch.setattr(torch, "compile", lambda function: no_compiler)
    with pytest.raises(
        InputError, match=r"^--compile: torch cannot compile .*No working C\+\+ compiler found\)$"
    ):
        embed_inputs(model, View(view, PREPROCESSING), CPU, compiled=True)
