"""The monitor of networks whose weights are sharded over two real processes (gloo)."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import Process, free_port

pytestmark = [pytest.mark.long, pytest.mark.processes]

IMAGES = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


class Net(torch.nn.Module):
    """A network whose parts are named as in timm."""

    def __init__(self, has_timms_methods: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = torch.nn.Linear(192, 16), torch.nn.Linear(16, 3)
        if has_timms_methods:
            self.forward_features = self._features
            self.forward_head = self._head

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return self.stem(x.flatten(1)).relu()

    def _head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._head(self._features(x))


def sharded(kind: str) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    net = Net(has_timms_methods=kind == "timm")
    if kind == "wrapped":
        return FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True)
    mesh = init_device_mesh("cpu", (2,))
    for module in (net.stem, net.head, net):
        fully_shard(module, mesh=mesh)
    return net


def whole_weights(net: torch.nn.Module) -> list[torch.Tensor]:
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(net, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(net):
            return [parameter.detach().clone() for parameter in net.parameters()]
    return [parameter.detach().full_tensor() for parameter in net.parameters()]


def train(rank: int, port: int, folder: str, kind: str, ranks: list[int], n: int | None) -> None:
    """Train on one of two processes, with a monitor if ``rank`` is in ``ranks``."""
    import torch.distributed as dist

    from dsmi_zoo import RepresentationMonitor
    from dsmi_zoo.pipeline.monitor import ranks as module

    torch.set_num_threads(1)
    if len(ranks) == 1:
        module.PRESENT_WITHIN = 2.0
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    net = sharded(kind)
    monitor = None
    if rank in ranks:
        try:
            images = IMAGES if kind != "bad images" or rank == 0 else IMAGES * torch.nan
            monitor = RepresentationMonitor(
                net, images, LABELS, every=2, out=Path(folder) / "m", n=n
            )
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(net(IMAGES[:16]), LABELS[:16])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if monitor is not None:
            monitor.step(loss=loss)
    if monitor is not None:
        monitor.close()
    weights = torch.cat([weight.flatten() for weight in whole_weights(net)])
    np.save(Path(folder) / f"weights{rank}.npy", weights.numpy())
    sys.stdout.flush()
    os._exit(0)


Train = Callable[..., list[tuple[int | None, str]]]


@pytest.fixture
def train_on_two(tmp_path: Path, server: None) -> Train:
    """Train on two processes, and return their exit codes and outputs."""

    def run(kind: str, ranks: list[int], n: int | None = 12) -> list[tuple[int | None, str]]:
        port = free_port()
        both = [Process(train, rank, port, str(tmp_path), kind, ranks, n) for rank in range(2)]
        try:
            if len(ranks) == 1:  # the other rank waits for this one's weights
                both[ranks[0]].wait(120)
            else:
                for process in both:
                    process.wait(120)
            return [(process.poll(), process.stdout() + process.stderr()) for process in both]
        finally:
            for process in both:
                process.kill()

    return run


@pytest.mark.parametrize(
    ("kind", "n"), [("fully_shard", 12), ("fully_shard", None), ("wrapped", 12), ("timm", 12)]
)
@pytest.mark.filterwarnings("ignore:monitor. measuring")
def test_a_sharded_network_is_measured_by_all_ranks_and_written_by_the_first(
    train_on_two: Train, tmp_path: Path, kind: str, n: int | None
) -> None:
    from dsmi_zoo import RepresentationMonitor
    from dsmi_zoo.pipeline.monitor.file import read_monitor

    ended = train_on_two(kind, [0, 1], n)
    assert [code for code, _ in ended] == [0, 0], ended
    assert ["4 measurements" in said for _, said in ended] == [True, False], ended
    rows, facts = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == [0, 2, 4, 5]
    assert rows["dse_z"].notna().all()
    with RepresentationMonitor(
        Net(), IMAGES, LABELS, every=1, out=tmp_path / "one", n=facts["n"]
    ) as one:
        one.step()
    assert rows["dse_z"][0] == pytest.approx(one.results["dse_z"][0], abs=1e-5)
    watched = np.load(tmp_path / "weights0.npy")
    assert [code for code, _ in train_on_two(kind, [])] == [0, 0]
    assert np.array_equal(watched, np.load(tmp_path / "weights0.npy"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_monitor_on_one_rank_of_a_sharded_network_is_refused_in_one_line(
    train_on_two: Train, rank: int
) -> None:
    code, said = train_on_two("fully_shard", [rank])[rank]
    assert code == 3, said
    assert "InputError: the network is sharded (FSDP): make the monitor on every rank" in said


def test_what_one_rank_refuses_is_refused_by_all_before_they_wait_for_it(
    train_on_two: Train,
) -> None:
    for code, said in train_on_two("bad images", [0, 1]):
        assert code == 3, said
        assert "InputError: images have NaN or infinite values" in said
