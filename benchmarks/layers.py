"""Cost of embedding all layers, as a pass with every block's embedding against one without; and their profiles.

Passes with and without layers take turns in one process; the ratio is the median over these pairs. Embeddings are
compared bit by bit with those of a pass for each layer. ``--picture`` draws DSE, DSMI, neighbours and probe over depth
on Fashion-MNIST: EfficientNet-Lite0 has ImageNet weights from PyPI (needed by the tests), the others random ones.

    python benchmarks/layers.py
    PYTHONPATH=tests python benchmarks/layers.py --picture docs/pictures/layers.png
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import timm
import torch
from PIL import Image

import dsmi_zoo
from dsmi_zoo.pipeline.embedding.embed import embed_inputs
from dsmi_zoo.pipeline.networks.forward import TensorInputs
from dsmi_zoo.pipeline.networks.layers import layer_names
from dsmi_zoo.reports.figures.curves import Line, Panel, curves
from dsmi_zoo.reports.statistics.layers import SCORES
from dsmi_zoo.reports.wording import measure_title, measure_unit

NETWORKS = (
    "resnet18", "resnet50", "convnext_nano", "deit_tiny_patch16_224", "mixer_s32_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip
DRAWN = (
    "tf_efficientnet_lite0", "resnet18", "convnext_nano", "deit_tiny_patch16_224", "mixer_s32_224",
    "swin_tiny_patch4_window7_224",
)  # fmt: skip
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=NETWORKS)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.picture is not None:
        draw(arguments.picture)
        return
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, float32, {arguments.threads} thread(s)"
    )
    print("| network | blocks | without, s | with all, s | ratio | equal bits |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.models:
        print(measure_network(name, arguments.images, arguments.rounds), flush=True)


def measure_network(name: str, images: int, rounds: int) -> str:
    """Return a line of the table."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    inputs = TensorInputs(torch.randn(images, *model.pretrained_cfg["input_size"]))
    blocks = layer_names(model, inputs.images[:1]).blocks
    without, with_all = [], []
    for number in range(rounds + 1):
        seconds = []
        for also in ((), blocks):
            began = perf_counter()
            embed_inputs(model, inputs, CPU, also=also)
            seconds.append(perf_counter() - began)
        if number > 0:  # the first round includes one-off work
            without.append(seconds[0])
            with_all.append(seconds[1])
    ratio = median(after / before for before, after in zip(without, with_all, strict=True))
    few = TensorInputs(inputs.images[:8])
    together = embed_inputs(model, few, CPU, also=blocks)
    equal = sum(
        np.array_equal(embed_inputs(model, few, CPU, layer=block).values, together.others[block])
        for block in blocks
    )
    seconds = f"{median(without):.2f} | {median(with_all):.2f} | {ratio:.2f}"
    return f"| {name} | {len(blocks)} | {seconds} | {equal} of {len(blocks)} |"


def draw(path: Path) -> None:
    """Draw the profiles of six networks on 200 images of Fashion-MNIST."""
    from real_weights import lite_weights

    from dsmi_zoo.data_catalog.datasets.registry import open_dataset

    images = open_dataset("fashion", None)
    labels = np.asarray(images.labels)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:20] for label in np.unique(labels)])
    pictures = [images.image(int(number)).convert("RGB") for number in chosen]
    lines: dict[str, list[Line]] = {score: [] for score in SCORES}
    for name in DRAWN:
        torch.manual_seed(0)
        model = timm.create_model(name).eval()
        if name == "tf_efficientnet_lite0":
            with tempfile.TemporaryDirectory() as folder:
                timm.models.load_checkpoint(model, str(lite_weights(0, Path(folder))))
        config = model.pretrained_cfg
        inputs = TensorInputs(_normalised(pictures, config))
        blocks = layer_names(model, inputs.images[:1]).blocks
        embedding = embed_inputs(model, inputs, CPU, also=blocks)
        depths = np.array([*(embedding.depths[block] for block in blocks), 1.0])
        rows = [
            dsmi_zoo.measure(values, labels[chosen], scores=SCORES)
            for values in (*(embedding.others[block] for block in blocks), embedding.values)
        ]
        weights = "ImageNet" if name == "tf_efficientnet_lite0" else "random"
        for score in SCORES:
            of_layers = np.array([np.nan if row[score] is None else row[score] for row in rows])
            label = f"{name.split('_patch')[0]} ({weights})"
            lines[score].append(Line(label, depths, of_layers, of_layers, of_layers))
            print(label, score, *np.round(of_layers, 2))
    panels = [
        Panel(measure_title(score), "relative depth", measure_unit(score), lines[score])
        for score in SCORES
    ]
    path.write_bytes(curves(panels, "Scores over the depth of six networks.", columns=2).png)


def _normalised(pictures: Sequence[Image.Image], config: dict) -> torch.Tensor:  # type: ignore[type-arg]
    size = config["input_size"][-1]
    pixels = np.stack(
        [np.asarray(one.resize((size, size), Image.Resampling.BICUBIC)) for one in pictures]
    )
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std


if __name__ == "__main__":
    main()
