"""How many images go through a network at once."""

import torch

# Beyond about so many, layers outgrow a core's cache: a quarter slower at 64 x 160 x 160.
CPU_BATCH_PIXELS = 2**19
ACCELERATOR_BATCH = 64
MOST = 1024
WORTH_DOUBLING = 1.05  # times as many images per second


def default_batch(device: torch.device, pixels: int) -> int:
    """How many images of so many pixels go through a model at once, to begin with."""
    return max(8, CPU_BATCH_PIXELS // pixels) if device.type == "cpu" else ACCELERATOR_BATCH


class BatchSize:
    """The images in one forward pass: halved where memory runs out, doubled on a GPU while that makes passes faster.

    A small network leaves most of a large GPU idle at 64 images, a large one does not; the first pass of each size pays
    for choosing kernels and is not counted.

    Parameters
    ----------
    device
        Only on an accelerator it grows.
    pixels
        Of an image.
    wanted
        A size that the user has chosen, which does not grow; None begins with ``default_batch``.
    """

    def __init__(self, device: torch.device, pixels: int, wanted: int | None = None) -> None:
        self.count = wanted or default_batch(device, pixels)
        self._may_grow = wanted is None and device.type != "cpu"
        self._rate_at_half = 0.0  # images per second, at half the size
        self._is_first_pass = True

    def record_pass(self, images: int, seconds: float) -> None:
        """A pass of so many images took so long."""
        if not self._may_grow or images < self.count:
            return
        if self._is_first_pass:
            self._is_first_pass = False
            return
        rate = images / seconds
        if rate < WORTH_DOUBLING * self._rate_at_half:
            self.count //= 2
            self._may_grow = False
        elif 2 * self.count > MOST:
            self._may_grow = False
        else:
            self.count *= 2
            self._rate_at_half, self._is_first_pass = rate, True

    def shrink(self) -> bool:
        """Memory ran out: halve it, and grow no further; False if one image is too many."""
        self._may_grow = False
        self.count //= 2
        return self.count > 0
