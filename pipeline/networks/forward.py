"""Forward passes up to a layer, in batches of a size that fits."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from dsmi_zoo._util.errors import InputError

from .layers import as_vectors, forward, place_of, unwrapped

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


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's mode and every random state are as before.

    Flags are set module by module: ``eval()`` and ``train()`` may be overridden, and a merging adapter would change
    weights by rounding.
    """
    modes = [(module, module.training) for module in model.modules()]
    # Inference mode would leave unusable tensors in a model's caches.
    with (
        random_states_kept(),
        torch.no_grad(),
    ):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Afterwards torch's random state, on the CPU and on each accelerator, NumPy's and Python's are as before."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 the global one is the user's
    accelerators = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=accelerators))
        if torch.backends.mps.is_available():
            stack.enter_context(torch.random.fork_rng(devices=[0], device_type="mps"))
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextmanager
def defaults_kept() -> Iterator[None]:
    """Afterwards torch's default type, device and precision of products are as before, whatever a model's code did."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        # None takes a default away, because any slows torch's functions.
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_float32_matmul_precision(precision)


def activations(model: torch.nn.Module, images: torch.Tensor, layer: str | None) -> np.ndarray:
    """One layer's output for each image, float32 [n, d]; to be called inside ``undisturbed``.

    Parameters
    ----------
    model
        Any module that takes a batch of images.
    images : float [n, c, h, w]
        As the model takes them; they are moved to its device and type.
    layer
        As in `dsmi_zoo.pipeline.networks.layers.forward`. Maps [n, c, h, w] are averaged over their positions, tokens [n, t, d]
        over the tokens, all else is flattened.

    Raises
    ------
    InputError
        When that layer does not run, gives no tensor, or, for None, no ``nn.Linear`` ends the network.
    """
    model = unwrapped(model)
    device, dtype = place_of(model)
    size = default_batch(device, images.shape[-2] * images.shape[-1])
    vectors = []
    # Outside of autocast: its cache would keep weights cast without gradients for the next step.
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(images), size):
            batch = images[start : start + size].to(device, dtype)
            output, _ = forward(model, batch, layer, logits=False)
            vectors.append(as_vectors(output, len(batch), layer).float().cpu().numpy())
    return np.concatenate(vectors)


def compile_features(model: Any) -> None:
    """Have a timm model's features computed by compiled code, from the first batch on; all batches are of one size."""
    model.forward_features = torch.compile(model.forward_features)


def filled(images: torch.Tensor, size: int) -> torch.Tensor:
    """The images [n, c, h, w] with the last one repeated until there are ``size``, channels last.

    For another size, and for another order in memory, the network would be compiled anew.
    """
    again = images[-1:].expand(size - len(images), *images.shape[1:])
    return torch.cat([images, again]).contiguous(memory_format=torch.channels_last)


def cannot_compile(error: Exception) -> InputError:
    """What to tell of an error in a compiled network's first batch."""
    reason = str(error).strip().partition("\n")[0][:200]
    return InputError(
        f"--compile: torch cannot compile this network here ({type(error).__name__}: {reason})"
    )
