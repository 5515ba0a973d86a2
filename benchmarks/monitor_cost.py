"""Cost of the monitor in a real training, and a check that it changes nothing: the training without and with it.

    python benchmarks/monitor_cost.py --out runs/monitored

Trains one of timm's test networks on scikit-learn's digits on one thread, so it takes about a minute. Prints the time
spent in calls to the monitor, also as a percentage of the training time, and whether the weights are bit for bit the
same; ``dsmi-zoo report --out runs/monitored`` draws the curves.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import timm
import torch

from dsmi_zoo.data_catalog.datasets.libraries import digits_split
from dsmi_zoo.pipeline.monitor.file import read_monitor
from dsmi_zoo.pipeline.monitor.monitor import RepresentationMonitor


def inputs(pixels: object) -> torch.Tensor:
    """Return the digits as model inputs, float [n, 3, 32, 32]."""
    images = torch.as_tensor(pixels).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    return torch.nn.functional.interpolate(images, size=32)


def train(
    architecture: str, epochs: int, out: Path | None, every: int
) -> tuple[dict[str, torch.Tensor], float, float]:
    """Return the weights, the seconds of the training without the monitor, and those of the monitor."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=10, drop_rate=0.1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    pixels, classes, _ = digits_split("train")
    images, labels = inputs(pixels), torch.from_numpy(classes)
    held_out, held_out_classes, _ = digits_split("validation")
    began, inside = perf_counter(), 0.0
    if out is None:
        watch: RepresentationMonitor | None = None
    else:
        watch = RepresentationMonitor(
            model, inputs(held_out), held_out_classes, every=every, out=out
        )
        inside = perf_counter() - began
    with watch or nullcontext():
        for _ in range(epochs):
            for batch in torch.randperm(len(labels)).split(50):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
                if watch is not None:
                    started = perf_counter()
                    watch.step()
                    inside += perf_counter() - started
        ended = perf_counter()
    inside += perf_counter() - ended
    return model.state_dict(), perf_counter() - began - inside, inside


def main() -> None:
    """Train twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default="test_resnet")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain, seconds, _ = train(given.architecture, given.epochs, None, given.every)
    watched, with_monitor, inside = train(given.architecture, given.epochs, given.out, given.every)
    rows, facts = read_monitor(given.out)
    same = all(torch.equal(plain[name], watched[name]) for name in plain)
    print(
        f"training alone {seconds:.1f} s; beside the monitor {with_monitor:.1f} s, in the monitor {inside:.2f} s"
    )
    print(f"{len(rows)} measurements of n = {facts['n']} images, every {given.every} steps")
    print(
        f"cost: {100 * inside / with_monitor:.1f}% of the training time; bit-equal weights: {'yes' if same else 'NO'}"
    )


if __name__ == "__main__":
    main()
