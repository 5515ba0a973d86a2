"""Speed of forward passes on a CPU by memory format of the images and of the network's weights.

``usual`` has channels first in both; ``images`` has channels last in the images only, as in a view on disk; ``both``
has them in the weights too, as the pipeline does for convolutional networks. Weights are random. The three take turns
on the same images, and the fastest round of each counts, because other work can only slow a round down.

    python benchmarks/forward_passes.py
    python benchmarks/forward_passes.py --models resnet50 vit_small_patch16_224 --threads 2
"""

import argparse
import copy
import statistics
import time

import numpy as np
import timm
import torch

from dsmi_zoo.pipeline.networks.forward import default_batch
from dsmi_zoo.pipeline.networks.layers import forward

NETWORKS = (
    "resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny", "regnety_008",
    "densenet121", "dla34", "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "levit_192",
)  # fmt: skip
ORDERS = {
    "usual": (torch.contiguous_format, torch.contiguous_format),
    "images": (torch.contiguous_format, torch.channels_last),
    "both": (torch.channels_last, torch.channels_last),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, float32, {arguments.threads} thread(s)"
    )
    print(
        "| network | usual, images/s | images | both | both / usual | both / images | greatest difference / spread |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    ratios: dict[str, list[float]] = {"usual": [], "images": []}
    for name in arguments.models:
        rate, difference = measure_network(name, arguments.rounds)
        for order, of_order in ratios.items():
            of_order.append(rate["both"] / rate[order])
        rates = " | ".join(f"{rate[order]:.1f}" for order in ORDERS)
        gains = " | ".join(f"{of_order[-1]:.2f}" for of_order in ratios.values())
        print(f"| {name} | {rates} | {gains} | {difference:.1e} |", flush=True)
    for order, of_order in ratios.items():
        print(
            f"both / {order}: geometric mean {statistics.geometric_mean(of_order):.2f}, least {min(of_order):.2f}"
        )


@torch.inference_mode()
def measure_network(name: str, rounds: int) -> tuple[dict[str, float], float]:
    """Return images per second in each format, and the greatest change of the embeddings, in standard deviations."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    size = model.pretrained_cfg["input_size"][-1]
    images = torch.randn(default_batch(torch.device("cpu"), size * size), 3, size, size)
    models = {
        order: copy.deepcopy(model).to(memory_format=of_weights)
        for order, (of_weights, _) in ORDERS.items()
    }
    seconds: dict[str, list[float]] = {order: [] for order in ORDERS}
    embeddings: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for order, (_, of_images) in ORDERS.items():
            given = images.contiguous(memory_format=of_images)
            began = time.perf_counter()
            embeddings[order] = forward(models[order], given, None, logits=True)[0].numpy()
            if number > 0:  # the first round includes one-off work
                seconds[order].append(time.perf_counter() - began)
    difference = float(
        np.abs(embeddings["usual"] - embeddings["both"]).max() / embeddings["usual"].std()
    )
    return {order: len(images) / min(times) for order, times in seconds.items()}, difference


if __name__ == "__main__":
    main()
