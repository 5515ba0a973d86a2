"""The layers of any network: their names, and a layer's output and the logits from one forward pass."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch

from dsmi_zoo._util.errors import InputError

WHOLE = "."  # names the network itself where a layer is named
SEQUENCES = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
MIN_WEIGHTS = 2  # weight layers in a block; a single one with its norm and activation is a layer


def unwrapped(model: torch.nn.Module) -> Any:
    """Return the module without DataParallel, DistributedDataParallel or torch.compile around it.

    The wrappers share its parameters. Called through them, another batch size would compile again, and a single process
    would wait for the others.
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
    """Raise InputError, with similar names, unless ``layer`` is None or names a module of the model."""
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
    """Return whether the model has a method for its penultimate embedding, as timm's models do."""
    head = getattr(model, "forward_head", None)
    if not callable(head) or not callable(getattr(model, "forward_features", None)):
        return False
    return "pre_logits" in inspect.signature(head).parameters


def device_and_dtype(model: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and the floating type of the model's parameters; the CPU and float32 if it has none."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


def forward(
    model: Any, images: torch.Tensor, layer: str | None, *, logits: bool
) -> tuple[Any, torch.Tensor | None]:
    """Return a layer's output for a batch, and the logits of the same forward pass.

    Parameters
    ----------
    model
        Any module that takes a batch of images, in evaluation mode.
    images : float [n, c, h, w]
    layer
        A name of ``named_modules()``, whose output is taken, or ``.`` for that of the network itself. None is the
        penultimate layer: a timm model's pre-logits, or any other model's input to the ``nn.Linear`` that ends it.
    logits
        Whether logits are wanted; if not, a timm model's classifier does not run.

    Returns
    -------
    output
        As the layer gives it; ``as_vectors`` makes one vector per image of it.
    logits : [n, k] or None
        The model's output, or that output's ``logits``; None if it is not a matrix, or a timm model has no classifier.

    Raises
    ------
    InputError
        When the layer does not run or, for None, no ``nn.Linear`` ends the network.
    """
    is_timms = has_pre_logits(model)
    has_classifier = not is_timms or getattr(model, "num_classes", 1) > 0  # 0: timm removed it
    if layer is None and is_timms:
        features = model.forward_features(images)
        pre_logits = model.forward_head(features, pre_logits=True)
        answer = model.forward_head(features) if logits and has_classifier else None
        return pre_logits, answer
    last: list[_Pass] = []
    with hooked(_passes_of(model, layer), partial(_keep_pass, last, layer, len(images))):
        answer = model(images)
    found = _logits(answer, len(images))
    if layer is None:
        output = _penultimate(last, answer, found, len(images))
    elif last:
        output = last[0].output
    else:
        raise did_not_run(str(layer))
    return output, found if has_classifier else None


def last_linear(model: torch.nn.Module, images: torch.Tensor) -> str:
    """Return the name of the ``nn.Linear`` whose input is a network's penultimate embedding, by one forward pass.

    Raises
    ------
    InputError
        As `forward`.
    """
    last: list[_Pass] = []
    with hooked(_passes_of(model, None), partial(_keep_pass, last, None, len(images))):
        answer = model(images)
    embedding = _penultimate(last, answer, _logits(answer, len(images)), len(images))
    return next(one.name for one in last if one.taken is embedding)


def as_vectors(output: Any, n: int, layer: str | None) -> torch.Tensor:
    """Return a layer's output for n images as one vector each, [n, d].

    Maps [n, c, h, w] are averaged over their positions, tokens [n, t, d] over the tokens, all else is flattened. If
    there are several outputs, the first tensor is taken.

    Raises
    ------
    InputError
        When the output is not a tensor with one item per image.
    """
    output = first_tensor(output)
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or len(output) != n:
        is_tensor = isinstance(output, torch.Tensor)
        shape = f"shape {list(output.shape)}" if is_tensor else f"a {type(output).__name__}"
        raise InputError(
            f"the layer {layer or 'before the classifier'!r} gives {shape}, not one output per image"
        )
    return pooled(output)


def pooled(output: torch.Tensor) -> torch.Tensor:
    """Return maps [n, c, h, w] and tokens [n, t, d] averaged over their positions, and all else flattened, [n, d]."""
    if output.ndim == 4:
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output.flatten(1)


class LayerCollector:
    """Further layers of forward passes, each pooled to one vector per image as it runs: no activation is kept.

    Attributes
    ----------
    vectors
        Vectors of the current batch by layer, [n, d], float32 on the device, as `forward` and `as_vectors` give them.
    problems
        Why a layer has no vectors, by layer.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self._layers = tuple(layers)
        self._n = 0
        self.vectors: dict[str, torch.Tensor] = {}
        self.problems: dict[str, InputError] = {}

    @contextmanager
    def hooked(self, model: torch.nn.Module, n: int) -> Iterator[None]:
        """Follow the layers of a network through the pass of a batch of n images."""
        self._n = n
        self.vectors.clear()
        with hooked(named_layers(model, self._layers), self._keep):
            yield
        for name in self._layers:
            if name not in self.vectors:
                self.problems.setdefault(name, did_not_run(name))

    def _keep(self, name: str, _given: Any, output: Any) -> None:
        """Keep a layer's output as vectors. If a layer runs twice, its last output counts."""
        try:
            vectors = as_vectors(_copied(output), self._n, name)
        except InputError as error:
            self.problems[name] = error
        else:
            self.vectors[name] = vectors.float()


def did_not_run(layer: str) -> InputError:
    """Return the error for a layer that does not run in a forward pass."""
    return InputError(f"in the model's forward pass {layer!r} did not run; name another layer")


def relative_depths(model: Any, images: torch.Tensor, layers: Iterable[str]) -> dict[str, float]:
    """Return where in a forward pass each layer ends: the share of the innermost modules' calls up to then, 0 to 1."""
    calls = 0
    ends: dict[str, int] = {}

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    def note(name: str, *_: Any) -> None:
        ends[name] = calls

    named = list(model.named_modules())
    innermost = {name: one for name, one in named if next(one.children(), None) is None}
    with hooked(innermost, count), hooked(named_layers(model, layers), note):
        model(images)
    return {name: end / calls for name, end in ends.items()} if calls else {}


class _Pass(NamedTuple):
    """A module's name, its input and its output in a forward pass."""

    name: str
    taken: Any
    output: Any

    def is_vector(self, n: int) -> bool:
        """Return whether the output is one vector for each of n images."""
        output = self.output
        return isinstance(output, torch.Tensor) and output.ndim == 2 and len(output) == n


def named_layers(model: torch.nn.Module, layers: Iterable[str]) -> dict[str, torch.nn.Module]:
    """Return the modules of the layers by name; ``.`` names the network itself."""
    return {name: model.get_submodule("" if name == WHOLE else name) for name in layers}


@contextmanager
def hooked(
    modules: Mapping[str, torch.nn.Module], keep: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Call ``keep`` with the name, the input and the output of each pass through one of the modules."""

    def hook(
        name: str,
        _: torch.nn.Module,
        given: tuple[Any, ...],
        named: dict[str, Any],
        output: Any,
    ) -> None:
        keep(name, given[0] if given else named.get("input"), output)

    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(partial(hook, name), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _passes_of(model: torch.nn.Module, layer: str | None) -> dict[str, torch.nn.Module]:
    """Return the layer's module or, for None, each ``nn.Linear``, since any may be the classifier."""
    if layer is not None:
        return named_layers(model, [layer])
    return {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}


def _keep_pass(
    last: list[_Pass], layer: str | None, n: int, name: str, taken: Any, output: Any
) -> None:
    """Keep in ``last`` the layer's pass, or for None those that may be the classifier's."""
    output = output if layer is None else _copied(output)
    # Of earlier passes, only vector outputs like a classifier's are kept: a large model has hundreds of linear layers.
    kept = [one for one in last if layer is None and one.is_vector(n)]
    last[:] = [*kept, _Pass(name, taken, output)]


def _copied(output: Any) -> Any:
    """Return a copy of an output's first tensor, because later modules may change it in place."""
    output = first_tensor(output)
    return output.clone() if isinstance(output, torch.Tensor) else output


def _penultimate(
    last: list[_Pass], answer: Any, logits: torch.Tensor | None, n: int
) -> torch.Tensor:
    """Return the input of the ``nn.Linear`` that gives the logits, else of the last one if its output has their shape.

    Two heads of the same width with different inputs are ambiguous: an auxiliary classifier may run last.
    """
    advice = f"name a layer, or {WHOLE!r} for the network's own output"
    if not last:
        raise InputError(f"no nn.Linear ran, so the penultimate layer is unknown; {advice}")
    heads = [one for one in last if any(one.output is part for part in _parts(answer, logits))]
    rivals = [
        one
        for one in heads
        if one.output.shape == heads[-1].output.shape and one.taken is not heads[-1].taken
    ]
    if rivals:
        listed = ", ".join(repr(one.name) for one in (*rivals[:2], heads[-1]))
        raise InputError(f"the network gives the outputs of several nn.Linear ({listed}); {advice}")
    name, taken, output = (heads or last)[-1]
    if heads:
        return taken
    wanted = (n, output.shape[-1]) if logits is None else logits.shape
    if output.shape != wanted:  # of a backbone whose classifier was removed
        raise InputError(
            f"the nn.Linear that runs last, {name!r}, lies within the network; {advice}"
        )
    return taken


def _parts(answer: Any, logits: torch.Tensor | None) -> Iterable[Any]:
    """Return the tensors of an answer that may be the classes' scores."""
    if logits is not None:
        return (logits,)
    if isinstance(answer, Mapping):
        return answer.values()
    return answer if isinstance(answer, tuple | list) else ()


def first_tensor(output: Any) -> Any:
    """Return the first tensor of several outputs, and any other output as it is."""
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((part for part in output if isinstance(part, torch.Tensor)), output)
    return output


def _logits(answer: Any, n: int) -> torch.Tensor | None:
    if isinstance(answer, Mapping):
        answer = answer.get("logits")
    elif not isinstance(answer, torch.Tensor):
        answer = getattr(answer, "logits", None)
    fits = isinstance(answer, torch.Tensor) and answer.ndim == 2 and len(answer) == n
    return answer if fits else None


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
    mixer block); a sequence of blocks is not a block. In timm's networks without blocks, the modules of
    ``feature_info`` are the blocks.

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
        blocks = set(_modules_of(model)) & set(ran)
    modules = {name: module for name, module in model.named_modules() if name}
    classifiers = _classifiers(model)
    between = {
        name
        for name in _steps(modules, blocks)
        if name in ran
        and name not in blocks
        and modules[name] not in classifiers
        and not _is_of_the_head(modules[name], ran[name], answer)
    }
    order = list(ran)
    return LayerNames(
        tuple(name for name in order if name in blocks),
        tuple(name for name in order if name in blocks | between),
        tuple(order),
    )


def _classifiers(model: Any) -> tuple[Any, ...]:
    """Return the modules that timm declares to be classifiers."""
    if not callable(getattr(model, "get_classifier", None)):
        return ()
    found = model.get_classifier()
    return found if isinstance(found, tuple) else (found,)


def _modules_of(model: Any) -> list[str]:
    """Return the modules that timm takes features from."""
    known = getattr(model, "feature_info", None)
    names = getattr(known, "module_name", None)
    if callable(names):
        return list(names())
    return [one["module"] for one in known or () if isinstance(one, dict) and "module" in one]


def _outputs(model: torch.nn.Module, image: torch.Tensor) -> tuple[dict[str, Any], Any]:
    """Return the outputs of modules that give one per image, in the order in which they end, and the network's."""
    outputs: dict[str, Any] = {}
    modules = {name: module for name, module in model.named_modules() if name}

    def keep(name: str, _given: Any, output: Any) -> None:
        outputs.pop(name, None)  # if a module runs twice, its last output counts
        try:
            as_vectors(output, len(image), name)
        except InputError:
            return
        outputs[name] = output

    with hooked(modules, keep), torch.no_grad():
        answer = model(image)
    return outputs, answer


def _blocks(model: torch.nn.Module) -> list[str]:
    """Return the names of the blocks: the outermost items of sequences that are not sequences of blocks."""
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
    holders = {name[:i] for name in blocks for i, c in enumerate(name) if c == "."}
    for name in modules:
        parent = name.rpartition(".")[0]
        if name not in holders and (not parent or parent in holders):
            yield name


def _is_of_the_head(module: torch.nn.Module, output: Any, answer: Any) -> bool:
    """Return whether a module gives the network's output or the classifier's input vectors, or computes nothing."""
    if output is answer or isinstance(module, torch.nn.Identity) or _is_named(module, "Drop"):
        return True
    if not isinstance(output, torch.Tensor):
        return False
    is_vector = output.ndim == 2 or set(output.shape[2:]) == {1}
    return is_vector and (_is_named(module, "Pool") or _is_named(module, "Flatten"))


def _is_named(module: torch.nn.Module, part: str) -> bool:
    return part in type(module).__name__
