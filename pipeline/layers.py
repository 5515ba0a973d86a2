"""One forward pass of any network: what one of its layers gives, and the logits."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch

from ..data_catalog.errors import InputError


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


def has_pre_logits(model: Any) -> bool:
    """Whether the model tells its penultimate embedding itself, as timm's models do."""
    if not callable(getattr(model, "forward_features", None)) or not callable(getattr(model, "forward_head", None)):
        return False
    return "pre_logits" in inspect.signature(model.forward_head).parameters


def place_of(model: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the floating type of the model's parameters; the CPU and float32 if it has none."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


def forward(model: Any, images: torch.Tensor, layer: str | None, *, logits: bool) -> tuple[Any, torch.Tensor | None]:
    """A layer's output for a batch, and the logits of the same forward pass.

    Parameters
    ----------
    model
        Any module that takes a batch of images, in evaluation mode.
    images : float [n, c, h, w]
    layer
        A name of ``named_modules()``, whose output is taken. None is the penultimate layer: a timm model's pre-logits,
        of any other model the input of the ``nn.Linear`` that runs last.
    logits
        Whether they are wanted; without, a timm model's classifier does not run.

    Returns
    -------
    output
        As the layer gives it; ``as_vectors`` makes one vector an image of it.
    logits : [n, k] or None
        The model's output, or that output's ``logits``; None if it is no matrix, or a timm model has no classifier.

    Raises
    ------
    InputError
        When the layer does not run or, for None, no ``nn.Linear`` runs.
    """
    has_classifier = not has_pre_logits(model) or getattr(model, "num_classes", 1) > 0  # 0 says that timm took it away
    if layer is None and has_pre_logits(model):
        features = model.forward_features(images)
        pre_logits = model.forward_head(features, pre_logits=True)
        answer = model.forward_head(features) if logits and has_classifier else None
        return pre_logits, answer
    with _watched(model, layer) as seen:
        answer = model(images)
    if not seen:
        what = "no nn.Linear ran, so the penultimate layer is unknown" if layer is None else f"{layer!r} did not run"
        raise InputError(f"in the model's forward pass {what}; name another layer")
    if not has_classifier:
        return seen[0], None
    return seen[0], _logits(answer, len(images))


def as_vectors(output: Any, n: int, layer: str | None) -> torch.Tensor:
    """A layer's output for n images as one vector each, [n, d].

    Maps [n, c, h, w] are averaged over their positions, tokens [n, t, d] over the tokens, all else is flattened. Of
    several outputs the first tensor is taken.

    Raises
    ------
    InputError
        When the output is no tensor of n.
    """
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        output = next((part for part in output if isinstance(part, torch.Tensor)), output)
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or len(output) != n:
        shape = f"shape {list(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise InputError(f"the layer {layer or 'before the classifier'!r} gives {shape}, not one output an image")
    if output.ndim == 4:
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output.flatten(1)


@contextmanager
def _watched(model: torch.nn.Module, layer: str | None) -> Iterator[list[Any]]:
    """A list that holds, after a forward pass, the named layer's output or the last ``nn.Linear``'s input."""
    seen: list[Any] = []

    def keep_input(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen[:] = [inputs[0] if inputs else named["input"]]  # of the last one only: a large model has hundreds

    def keep_output(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen[:] = [_copied(output)]

    if layer is None:
        lines = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        hooks = [line.register_forward_pre_hook(keep_input, with_kwargs=True) for line in lines]
    else:
        hooks = [model.get_submodule(layer).register_forward_hook(keep_output)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _copied(output: Any) -> Any:
    """The output as it is now: what comes next in the network may work in its place."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    if isinstance(output, Mapping):
        return tuple(_copied(part) for part in output.values())
    return tuple(_copied(part) for part in output) if isinstance(output, tuple | list) else output


def _logits(answer: Any, n: int) -> torch.Tensor | None:
    if isinstance(answer, Mapping):
        answer = answer.get("logits")
    elif not isinstance(answer, torch.Tensor):
        answer = getattr(answer, "logits", None)
    fits = isinstance(answer, torch.Tensor) and answer.ndim == 2 and len(answer) == n
    return answer if fits else None
