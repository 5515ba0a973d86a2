"""Look into a model in the middle of its training, and leave no trace: one layer's output for a batch of images."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from .batch_size import default_batch
from .layers import as_vectors, forward, place_of, unwrapped


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
        As in `dsmi_zoo.pipeline.layers.forward`. Maps [n, c, h, w] are averaged over their positions, tokens [n, t, d]
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
