"""One forward pass of any network: what one of its layers gives, and the logits."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch

from dsmi_zoo._util.errors import InputError

WHOLE = "."
"""What stands for the network itself where a layer is named."""


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
    """Raise InputError, with near names, unless ``layer`` is None or names a module of the model, which must be one."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass one, such as timm's"
        )
    names = [name for name, _ in unwrapped(model).named_modules() if name]
    if layer is None or layer == WHOLE or layer in names:
        return
    if not isinstance(layer, str):
        raise InputError(
            f"layer is a {type(layer).__name__}; pass its name in model.named_modules()"
        )
    near = get_close_matches(layer, names, n=3, cutoff=0.4)
    shown = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names[:5])} ..."
    raise InputError(
        f"the model has no layer {layer!r}; {shown} (names as in model.named_modules())"
    )


def has_pre_logits(model: Any) -> bool:
    """Whether the model tells its penultimate embedding itself, as timm's models do."""
    if not callable(getattr(model, "forward_features", None)) or not callable(
        getattr(model, "forward_head", None)
    ):
        return False
    return "pre_logits" in inspect.signature(model.forward_head).parameters


def place_of(model: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the floating type of the model's parameters; the CPU and float32 if it has none."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


def forward(
    model: Any, images: torch.Tensor, layer: str | None, *, logits: bool
) -> tuple[Any, torch.Tensor | None]:
    """A layer's output for a batch, and the logits of the same forward pass.

    Parameters
    ----------
    model
        Any module that takes a batch of images, in evaluation mode.
    images : float [n, c, h, w]
    layer
        A name of ``named_modules()``, whose output is taken, or ``.`` for that of the network itself. None is the
        penultimate layer: a timm model's pre-logits, of any other model the input of the ``nn.Linear`` that ends it.
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
        When the layer does not run or, for None, no ``nn.Linear`` ends the network.
    """
    # 0 says that timm took it away.
    has_classifier = not has_pre_logits(model) or getattr(model, "num_classes", 1) > 0
    if layer is None and has_pre_logits(model):
        features = model.forward_features(images)
        pre_logits = model.forward_head(features, pre_logits=True)
        answer = model.forward_head(features) if logits and has_classifier else None
        return pre_logits, answer
    if layer is None:
        with _last_linear(model) as passes:
            answer = model(images)
        output = _penultimate(passes, _logits(answer, len(images)), len(images))
    else:
        with _output_of(model, layer) as outputs:
            answer = model(images)
        if not outputs:
            raise InputError(
                f"in the model's forward pass {layer!r} did not run; name another layer"
            )
        output = outputs[0]
    return output, _logits(answer, len(images)) if has_classifier else None


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
        shape = (
            f"shape {list(output.shape)}"
            if isinstance(output, torch.Tensor)
            else f"a {type(output).__name__}"
        )
        raise InputError(
            f"the layer {layer or 'before the classifier'!r} gives {shape}, not one output an image"
        )
    if output.ndim == 4:
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output.flatten(1)


class _LinearPass(NamedTuple):
    """What an ``nn.Linear`` was given in a forward pass, and the shape of what it made of it."""

    name: str
    taken: torch.Tensor
    shape: torch.Size


@contextmanager
def _last_linear(model: torch.nn.Module) -> Iterator[list[_LinearPass]]:
    """A list that holds, after a forward pass, that of the ``nn.Linear`` which ran last, if one did."""
    passes: list[_LinearPass] = []
    names = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }

    def keep(
        module: torch.nn.Linear, given: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
    ) -> None:
        taken = given[0] if given else named["input"]
        # No more: a large model has hundreds.
        passes[:] = [_LinearPass(names[module], taken, output.shape)]

    hooks = [module.register_forward_hook(keep, with_kwargs=True) for module in names]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _penultimate(
    passes: Sequence[_LinearPass], logits: torch.Tensor | None, n: int
) -> torch.Tensor:
    """What the last ``nn.Linear`` was given, if that is the classifier: as wide as the logits, one vector an image."""
    advice = f"name a layer, or {WHOLE!r} for the network's own output"
    if not passes:
        raise InputError(f"no nn.Linear ran, so the penultimate layer is unknown; {advice}")
    (last,) = passes
    wanted = (n, last.shape[-1]) if logits is None else logits.shape
    if last.shape != wanted:  # a backbone's, whose classifier was taken away
        raise InputError(
            f"the nn.Linear that runs last, {last.name!r}, lies within the network; {advice}"
        )
    return last.taken


@contextmanager
def _output_of(model: torch.nn.Module, layer: str) -> Iterator[list[Any]]:
    """A list that holds, after a forward pass, the layer's output, if it ran."""
    outputs: list[Any] = []

    def keep(module: torch.nn.Module, given: tuple[Any, ...], output: Any) -> None:
        outputs[:] = [_copied(output)]

    hook = model.get_submodule("" if layer == WHOLE else layer).register_forward_hook(keep)
    try:
        yield outputs
    finally:
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
