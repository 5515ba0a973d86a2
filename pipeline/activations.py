"""Look into a model in the middle of its training, and leave no trace: one layer's output for a batch of images."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch

from ..data_catalog.errors import InputError
from .embed import default_batch


def unwrapped(model: torch.nn.Module) -> Any:
    """The module itself, without DataParallel, DistributedDataParallel or torch.compile around it.

    They share its parameters. Inside them another batch size would compile anew, and one process alone would wait for
    the others.
    """
    inner: Any = model
    while True:
        if isinstance(inner, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        else:
            return inner


def check_layer(model: torch.nn.Module, layer: str | None) -> None:
    """Raise InputError, with near names, unless ``layer`` is None or names a module of the model."""
    names = [name for name, _ in unwrapped(model).named_modules() if name]
    if layer is None or layer in names:
        return
    near = get_close_matches(layer, names, n=3, cutoff=0.4)
    shown = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names[:5])} ..."
    raise InputError(f"the model has no layer {layer!r}; {shown} (names as in model.named_modules())")


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's mode and every random state are as before.

    The random states are torch's on the CPU and on each accelerator, NumPy's and Python's. Flags are set module by
    module: ``eval()`` and ``train()`` may be overridden, and a merging adapter would change weights by rounding.
    """
    modes = [(module, module.training) for module in model.modules()]
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 the global one is the user's
    accelerators = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=accelerators))
        if torch.backends.mps.is_available():
            stack.enter_context(torch.random.fork_rng(devices=[0], device_type="mps"))
        stack.enter_context(torch.no_grad())  # inference mode would leave unusable tensors in a model's caches
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def activations(model: torch.nn.Module, images: torch.Tensor, layer: str | None) -> np.ndarray:
    """One layer's output for each image, float32 [n, d]; to be called inside ``undisturbed``.

    Parameters
    ----------
    model
        Any module that takes a batch of images.
    images : float [n, c, h, w]
        As the model takes them; they are moved to its device and type.
    layer
        A name of ``named_modules()``, whose output is taken. None is the penultimate layer: a timm model's pre-logits,
        of any other model the input of the ``nn.Linear`` that runs last. Maps [n, c, h, w] are averaged over their
        positions, tokens [n, t, d] over the tokens, all else is flattened.

    Raises
    ------
    InputError
        When that layer does not run, gives no tensor, or, for None, no ``nn.Linear`` runs.
    """
    model = unwrapped(model)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    dtype = parameter.dtype if parameter is not None else images.dtype
    size = default_batch(device, images.shape[-2] * images.shape[-1])
    found = []
    # Outside of autocast: its cache would keep weights cast without gradients for the next step.
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(images), size):
            batch = images[start : start + size].to(device, dtype)
            found.append(_vectors(_output(model, batch, layer), len(batch), layer).float().cpu().numpy())
    return np.concatenate(found)


def _output(model: Any, batch: torch.Tensor, layer: str | None) -> Any:
    if layer is None and callable(getattr(model, "forward_features", None)) and hasattr(model, "forward_head"):
        return model.forward_head(model.forward_features(batch), pre_logits=True)
    seen: list[Any] = []
    with ExitStack() as hooks:
        if layer is None:
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
                    hooks.callback(hook.remove)
        else:
            hook = model.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
            hooks.callback(hook.remove)
        model(batch)
    if not seen:
        what = "no nn.Linear ran, so the penultimate layer is unknown" if layer is None else f"{layer!r} did not run"
        raise InputError(f"{what} in the model's forward pass; name another layer=...")
    return seen[-1]


def _vectors(output: Any, n: int, layer: str | None) -> torch.Tensor:
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or len(output) != n:
        shape = f"shape {list(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise InputError(f"the layer {layer or 'before the classifier'!r} gives {shape}, not one output an image")
    if output.ndim == 4:
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output.flatten(1)
