"""Which layers a network has: its blocks, the steps between them, and every module that gives one output per image."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from dsmi_zoo._util.errors import InputError

from .layers import as_vectors

SEQUENCES = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
MIN_WEIGHTS = 2  # layers of weights in a block; one with its norm and activation is a layer


class LayerNames(NamedTuple):
    """Names of ``named_modules()``, in the order of a forward pass, of layers that give one output per image.

    ``blocks`` are the repeated units; ``steps`` also what lies between them, without the classifier; ``modules`` all.
    """

    blocks: tuple[str, ...]
    steps: tuple[str, ...]
    modules: tuple[str, ...]


def layer_names(model: torch.nn.Module, image: torch.Tensor) -> LayerNames:
    """Return the names of a network's layers.

    A block is an item of a sequence of modules with two or more layers of weights (a residual unit, a transformer or
    mixer block); a sequence of blocks is none itself. In timm's networks without any, the modules of ``feature_info``
    count.

    Parameters
    ----------
    model
        In evaluation mode; on the meta device nothing is computed.
    image : float [1, c, h, w]
        On the same device.
    """
    ran, answer = _outputs(model, image)
    blocks = {name for name in _blocks(model) if name in ran}
    if not blocks:
        stages = getattr(getattr(model, "feature_info", None), "module_name", None)
        blocks = set(stages() if callable(stages) else _modules_of(model)) & set(ran)
    modules = {name: module for name, module in model.named_modules() if name}
    steps = {name for name in _steps(modules, blocks) if name in ran}
    between = steps - blocks
    classifiers = _classifiers(model)
    between = {
        name
        for name in between
        if modules[name] not in classifiers
        and not _is_of_the_head(modules[name], ran[name], answer)
    }
    order = list(ran)
    return LayerNames(
        tuple(name for name in order if name in blocks),
        tuple(name for name in order if name in blocks | between),
        tuple(order),
    )


def _classifiers(model: Any) -> tuple[Any, ...]:
    """Return the modules that timm says are classifiers."""
    if not callable(getattr(model, "get_classifier", None)):
        return ()
    found = model.get_classifier()
    return found if isinstance(found, tuple) else (found,)


def _modules_of(model: Any) -> list[str]:
    """Return the modules that timm takes features from."""
    known = getattr(model, "feature_info", None)
    return [one["module"] for one in known or () if isinstance(one, dict) and "module" in one]


def _outputs(model: torch.nn.Module, image: torch.Tensor) -> tuple[dict[str, Any], Any]:
    """Return the output of each module that gives one per image, in the order in which they end, and the answer."""
    outputs: dict[str, Any] = {}
    names = {module: name for name, module in model.named_modules() if name}

    def keep(module: torch.nn.Module, given: Any, output: Any) -> None:
        name = names[module]
        outputs.pop(name, None)  # one that runs twice counts as it was last
        try:
            as_vectors(output, len(image), name)
        except InputError:
            return
        outputs[name] = output

    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        with torch.no_grad():
            answer = model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, answer


def _blocks(model: torch.nn.Module) -> list[str]:
    """Return the names of the items of sequences that are blocks: the outermost that are no sequence of blocks."""
    return [name for name, _ in _blocks_in("", model, is_item=False)]


def _blocks_in(
    name: str, module: torch.nn.Module, *, is_item: bool
) -> Iterator[tuple[str, torch.nn.Module]]:
    inner: list[tuple[str, torch.nn.Module]] = []
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        inner += _blocks_in(path, child, is_item=isinstance(module, SEQUENCES))
    weights = sum(_holds_weights(one) for one in module.modules())
    # A part of a block, such as squeeze and excitation, may be an item of a sequence, too.
    inside = sum(_size(block) for _, block in inner)
    if is_item and weights >= MIN_WEIGHTS and 2 * inside < _size(module):
        yield name, module
    else:
        yield from inner


def _holds_weights(module: torch.nn.Module) -> bool:
    return any(one.ndim > 1 for one in module.parameters(recurse=False))


def _size(module: torch.nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _steps(modules: dict[str, torch.nn.Module], blocks: set[str]) -> Iterator[str]:
    """Return the outermost modules that hold no block, and the blocks."""
    holders = {"".join(name[:i]) for name in blocks for i, c in enumerate(name) if c == "."}
    for name in modules:
        parent = name.rpartition(".")[0]
        if name not in holders and (not parent or parent in holders):
            yield name


def _is_of_the_head(module: torch.nn.Module, output: Any, answer: Any) -> bool:
    """Return whether a module gives the answer or the vectors that the classifier takes, or computes nothing."""
    if output is answer or isinstance(module, torch.nn.Identity) or _is_named(module, "Drop"):
        return True
    if not isinstance(output, torch.Tensor):
        return False
    is_vector = output.ndim == 2 or set(output.shape[2:]) == {1}
    return is_vector and (_is_named(module, "Pool") or _is_named(module, "Flatten"))


def _is_named(module: torch.nn.Module, part: str) -> bool:
    return part in type(module).__name__
