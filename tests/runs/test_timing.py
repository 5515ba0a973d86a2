"""``dsmi-zoo time``: a network's speed and memory on this device, batches that do not fit, and kept times."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import published_speeds
from dsmi_zoo.jobs.tools.timing import known_times, table_lines
from dsmi_zoo.pipeline.embedding import timing
from dsmi_zoo.pipeline.store.timed import Place, read_timed, timed_path, write_timed

HERE = Place("cpu", "this processor", 1)
NETWORK = ModelEntry(model="a/b", architecture="test_resnet", img_size=32)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the timing, and restore the number of threads afterwards."""
    monkeypatch.setattr(timing, "ENOUGH_S", 0.02)
    monkeypatch.setattr(timing, "WARM_UP_S", 0.0)
    monkeypatch.setattr(timing, "MAX_BATCH", 8)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Limited(torch.nn.Module):
    """A network that raises ``error``, such as a GPU's or CPU's out-of-memory error, for more than ``most`` images."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 8 * 8, 2)
        self.most, self.error, self.seen = most, error, set[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of two classes."""
        self.seen.add(len(images))
        if len(images) > self.most:
            raise self.error
        return self.linear(images.flatten(1))


def bench(network: torch.nn.Module) -> timing._Bench:
    cpu = torch.device("cpu")
    return timing._Bench(network, 8, cpu, torch.contiguous_format, timing._Memory(cpu))


def test_a_network_is_timed_at_one_image_and_at_the_fastest_batch(
    quick: None, tmp_path: Path
) -> None:
    row = timing.time_network(NETWORK, None, HERE, "fp32")
    single, best = row.eager.single, row.eager.best
    assert (single.batch, single.passes >= timing.FOR_P95) == (1, True)
    assert single.p95_s is not None
    assert single.p95_s >= single.median_s > 0
    assert best.rate >= single.rate
    assert row.compiled is None
    assert 0 <= row.others_share <= 1
    path = timed_path(tmp_path, NETWORK.slug, HERE, "fp32")
    write_timed(path, row)
    assert read_timed(path).model_dump(mode="json") == row.model_dump(mode="json")
    other = timed_path(tmp_path, NETWORK.slug, Place("cpu", "another", 1), "fp32")
    assert other != path, "each device has its own"
    head, titles, *lines = table_lines([row])
    assert head == "this processor, 1 thread, fp32"
    assert titles.split()[:2] == ["model", "batch"]
    assert lines[0].startswith("a/b@32 eager")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved(quick: None, error: Exception) -> None:
    network = Limited(2, error)
    batch, largest = bench(network).fastest_batch()
    assert largest == 2
    assert batch in (1, 2)
    assert network.seen == {1, 2, 4}


def test_an_error_that_is_not_of_memory_is_no_limit_of_the_batch(quick: None) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        bench(Limited(1, RuntimeError("shapes do not fit"))).fastest_batch()


def test_a_network_of_which_no_image_fits_is_refused_in_one_line(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Limited(0, torch.OutOfMemoryError("out of memory"))
    monkeypatch.setattr(timing, "build_untrained", lambda entry: network)
    line = "not even one image of 32 pixels fits into the memory of this processor"
    with pytest.raises(InputError, match=line):
        timing.time_network(NETWORK, None, HERE, "fp32")


def test_a_network_that_cannot_be_compiled_keeps_its_eager_times(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("\nno compiler here\nmore lines")

    monkeypatch.setattr(torch, "compile", refuse)
    row = timing.time_network(NETWORK, None, HERE, "fp32", compiled=True)
    assert row.compiled is None
    assert row.not_compiled == "RuntimeError: no compiler here"
    assert row.eager.single.rate > 0


def test_work_of_other_processes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([(0.0, 0.0, 0.0), (10.0, 8.0, 5.0)])
    monkeypatch.setattr(timing._Others, "_now", staticmethod(lambda: next(moments)))
    monkeypatch.setattr(timing, "_cores", lambda: [0])
    assert timing._Others().share() == pytest.approx(0.3)


def test_published_speeds_are_those_of_the_network_whatever_its_weights() -> None:
    gpu, cpu = published_speeds()["resnet50", 224]
    assert gpu is not None
    assert cpu is not None
    assert gpu > 50 * cpu


@pytest.mark.long
def test_times_are_kept_and_only_missing_or_damaged_ones_are_timed(
    cli: Command, small_run: Path, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    shutil.copytree(small_run, out, ignore=shutil.ignore_patterns("embeddings", "report"))
    model = json.loads((out / "run.json").read_text())["entries"][0]["model"]
    assert f"{model}@32 eager" in cli("time", model, "--out", out, "--device", "cpu").stdout
    (path,) = (out / "timed").iterdir()
    row = known_times(path, compiled=False)
    assert row == read_timed(path)
    assert known_times(path, compiled=True) is None, "compiled times are missing"
    path.write_text('{"format": 1, "model": 3}')
    assert known_times(path, compiled=False) is None
    assert f"{path}: not the times of a network (" in info_log.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("time none --out run", "run has no model 'none'"),
        ("time --out nowhere", "nowhere is not a run: it has no run.json"),
        ("time --out run --device tpu", "--device: 'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_one_line(
    small_run: Path, tmp_path: Path, refused: Callable[[str, Path], str], arguments: str, line: str
) -> None:
    (tmp_path / "run").symlink_to(small_run)
    assert line in refused(arguments, tmp_path)
