"""How fast forward passes are on a CPU, in memory order channels_last against the usual one.

For each network, of random weights, the two take turns on the same images, and the median of the rounds counts; the
ratios' geometric mean is what a zoo gains.

    python benchmarks/forward_passes.py
    python benchmarks/forward_passes.py --models resnet50 vit_small_patch16_224 --threads 2
"""

import argparse
import statistics
import time

import numpy as np
import timm
import torch

from dsmi_zoo.pipeline.embed import default_batch
from dsmi_zoo.pipeline.layers import forward

NETWORKS = (
    "resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny", "regnety_008",
    "densenet121", "dla34", "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "levit_192",
)  # fmt: skip
ORDERS = {"usual": torch.contiguous_format, "channels_last": torch.channels_last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, timm {timm.__version__}, float32, {arguments.threads} thread(s)")
    print("| network | images/s, usual | channels_last | ratio | greatest difference / spread |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ratios = []
    for name in arguments.models:
        rate, difference = measured(name, arguments.rounds)
        ratios.append(rate["channels_last"] / rate["usual"])
        print(f"| {name} | {rate['usual']:.1f} | {rate['channels_last']:.1f} | {ratios[-1]:.2f} | {difference:.1e} |")
    print(f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")


@torch.inference_mode()
def measured(name: str, rounds: int) -> tuple[dict[str, float], float]:
    """Images a second in either order, and how far the embeddings are apart in units of their spread."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    size = model.pretrained_cfg["input_size"][-1]
    images = torch.randn(default_batch(torch.device("cpu"), size * size), 3, size, size)
    seconds: dict[str, list[float]] = {order: [] for order in ORDERS}
    embeddings: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for order, form in ORDERS.items():
            there, given = model.to(memory_format=form), images.contiguous(memory_format=form)
            began = time.perf_counter()
            embeddings[order] = forward(there, given, None, logits=True)[0].numpy()
            if number > 0:  # the first one pays for what is done once
                seconds[order].append(time.perf_counter() - began)
    spread = embeddings["usual"].std()
    difference = float(np.abs(embeddings["usual"] - embeddings["channels_last"]).max() / spread)
    return {order: len(images) / statistics.median(times) for order, times in seconds.items()}, difference


if __name__ == "__main__":
    main()
