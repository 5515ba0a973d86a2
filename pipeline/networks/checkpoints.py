"""Search for a network's weights in a training's checkpoint, by the names and shapes of the network's tensors.

A file's nested dicts become one list of tensors with dotted names, so that a dict one level down (``state_dict``), a
wrapper (``module.``) and an attribute of a training's class (``model.``) are all prefixes of the network's names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import clean_state_dict

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tensor_files import SAVE_STATE_DICT, TensorFile, read_tensors
from dsmi_zoo._util.text import counted, printable, shown

TIMMS_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""The keys at which timm looks for weights, in its order; without any it takes the whole content."""

TIMM_REPLACES = frozenset({"argparse.Namespace"})  # timm's own loader reads files with it, too

AVERAGES = frozenset({"ema", "swa", "average", "averaged", "teacher", "emamodel", "modelema"})
"""Words in the names of weights averaged over a training; such weights are preferred, as in timm."""

WRAPPERS = frozenset(("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module"))
"""Modules that compute nothing themselves and may be anywhere in a name (FSDP, ``torch.compile``, DDP)."""

OF_OPTIMIZERS = re.compile(
    r"(.*[._])?(optim\w*|(max_)?exp_(avg|avg_sq|inf)|square_avg|momentum_buffer|grads?|gradients?)(\..*)?"
)
"""Prefixes of an optimiser's state and of gradients, which have the names and shapes of the weights."""

NOT_NEEDED = "num_batches_tracked"  # batch norm counts training steps, older versions did not
INTEGERS_OF_QUANTIZED = (torch.int8, torch.uint8)
SHARD = re.compile(r"-\d+-of-(\d+)\.")  # as Hugging Face's libraries write large models
JOIN_SHARDS = "join them into one file: load the whole model, and save its state_dict()"
TOP = "."  # names the file's own top level
DEEPEST = 5  # levels of dicts and lists that are searched
MAX_VALUES = 1_000_000
SHOWN_NAMES = 3


@dataclass(frozen=True)
class Leaf:
    """A tensor of a checkpoint, and the dotted name of the dict that holds it."""

    value: Any
    container: str


Leaves = Mapping[str, Leaf]


@dataclass(frozen=True)
class Loaded:
    """Result of reading a checkpoint into a network.

    Attributes
    ----------
    readings
        Ambiguities, how they were resolved, and what was ignored; empty if there are none.
    by_timm
        Whether timm's own loader reads this file in the same way.
    """

    readings: str = ""
    by_timm: bool = True


@dataclass(frozen=True)
class Wanted:
    """Requirements of a network: its state dict, all buffers, its classifiers' names, and timm's name for it."""

    state: Mapping[str, Any]
    buffers: Mapping[str, torch.Tensor]
    classifiers: tuple[str, ...]
    architecture: str = ""

    @cached_property
    def same(self) -> dict[str, list[str]]:
        """The aliases of each name: all names of the same tensor; tied weights have several."""
        places: dict[Any, list[str]] = {}
        names = {}
        for name, value in self.state.items():
            is_stored = _is_plain(value) and value.data_ptr()
            place = (value.data_ptr(), value.shape, value.stride()) if is_stored else name
            names[name] = places.setdefault(place, [])
            names[name].append(name)
        return names


@dataclass(frozen=True)
class Fit:
    """The tensors under one prefix, compared with what a network needs."""

    wanted: Wanted
    prefix: str
    leaves: Leaves

    @cached_property
    def found(self) -> dict[str, Any]:
        """The network's tensors that exist under the prefix, by the network's names."""
        names = [name for name in self.wanted.state if self.prefix + name in self.leaves]
        return {name: self.leaves[self.prefix + name].value for name in names}

    @cached_property
    def missing(self) -> list[str]:
        """The network's names that do not exist under the prefix, except optional ones."""
        return [
            name
            for name in self.wanted.state
            if self._found_name(name) is None and name.rpartition(".")[2] != NOT_NEEDED
        ]

    @property
    def is_complete(self) -> bool:
        """Whether every tensor exists that PyTorch's own strict loading needs."""
        lacking = self.wanted.state.keys() - self.found.keys()
        return all(name.rpartition(".")[2] == NOT_NEEDED for name in lacking)

    @cached_property
    def differing(self) -> list[str]:
        """The network's names whose tensor has another shape."""
        return [
            name
            for name, value in self.found.items()
            if not _same_shape(value, self.wanted.state[name])
        ]

    @cached_property
    def containers(self) -> set[str]:
        """The dicts that hold these tensors."""
        return {self.leaves[self.prefix + name].container for name in self.found}

    def others(self, fits: Sequence["Fit"]) -> list[str]:
        """Return the names in its dicts that are in no fit, in no branch with another fit, and not the network's."""
        taken = {id(value) for fit in fits for value in fit.found.values()}
        start = len(self.prefix)
        inner = [fit.prefix[start:] for fit in fits if fit.prefix.startswith(self.prefix)]
        # The modules under this prefix that lead to another fit, such as ``teacher.``.
        branches = tuple(f"{self.prefix}{rest.partition('.')[0]}." for rest in inner if rest)
        return [
            name
            for name, leaf in self.leaves.items()
            if leaf.container in self.containers
            and id(leaf.value) not in taken
            and not name.startswith(branches)
            and not (name.startswith(self.prefix) and self._is_known(name[start:], leaf.value))
        ]

    def unexpected(self, fits: Sequence["Fit"] = ()) -> list[str]:
        """Return, without this prefix, the names of `others` under it: another architecture may need them."""
        names = self.others(fits)
        start = len(self.prefix)
        return [name[start:] for name in names if name.startswith(self.prefix)]

    def _is_known(self, name: str, value: Any) -> bool:
        """Return whether this is a name of the state dict, a batch counter, or an unsaved buffer of the same value."""
        if name in self.wanted.state or name.rpartition(".")[2] == NOT_NEEDED:
            return True
        computed = self.wanted.buffers.get(name)
        return computed is not None and _equal(computed, value)

    def _found_name(self, name: str) -> str | None:
        return next((same for same in self.wanted.same[name] if same in self.found), None)

    @cached_property
    def state(self) -> dict[str, Any]:
        """The state dict to load: the tensors found, and the network's own where optional ones are missing."""
        state = dict(self.found)
        for name, own in self.wanted.state.items():
            same = self._found_name(name)
            state.setdefault(name, own if same is None else self.found[same])
        return state

    @property
    def place(self) -> str:
        """The prefix as a value of ``checkpoint_key``."""
        return self.prefix.removesuffix(".") or TOP


def load_file(model: torch.nn.Module, weights: Path, key: str | None = None) -> Loaded:
    """Load a file of weights into a network, which must fit exactly.

    Parameters
    ----------
    key
        Weights to take if there are several sets, such as ``teacher`` or ``state_dict.ema``.

    Raises
    ------
    InputError
        When the file holds something else or weights that do not fit; one line says how they differ and what to do.
    """
    try:
        file = read_tensors(weights)
        return _load(model, file, weights, key)
    except InputError as error:  # whose text is a predicate, such as "holds no tensors"
        raise InputError(f"{weights} cannot be loaded: it {error}") from error.__cause__


def _load(model: torch.nn.Module, file: TensorFile, weights: Path, key: str | None) -> Loaded:
    wanted = _wanted_by(model)
    leaves = _leaves_of(file.content)
    candidates = _candidates(wanted, leaves, key)
    fits = _fits(candidates)
    if not fits:
        if key is None and _load_as_timm(model, file.content):
            return Loaded()
        shard = SHARD.search(weights.name)
        if shard:
            raise InputError(f"is one of {int(shard[1])} shards; {JOIN_SHARDS}")
        raise InputError(_misfit(wanted, file, candidates, key))
    choice, alternatives = _chosen(fits, key)
    for name, value in choice.found.items():
        _refuse_quantized(name, value, wanted)
        _refuse_infinite(name, value, wanted)
    _refuse_untied(choice)
    try:
        model.load_state_dict(choice.state, strict=True)
    except MemoryError:
        raise
    except Exception as error:  # from tensors that cannot be copied, or a hook of the network
        raise InputError("holds tensors that cannot be copied into the network") from error
    beside = choice.others(fits)
    sentences = [
        _ambiguity(weights, choice, alternatives),
        _rejected_average(choice, candidates, fits),
        _ignored(choice, beside),
        _other_architecture(wanted, file.content),
        _untouched_norms(choice),
    ]
    readings = "; ".join(filter(None, sentences))
    is_named_so = file.is_safetensors == (weights.suffix == ".safetensors")
    # The choice has the same object `leaves` if no wrapper was removed from its names.
    is_plain = choice.leaves is leaves and is_named_so and file.replaced <= TIMM_REPLACES
    by_timm = is_plain and not beside and choice.is_complete and _is_timms_place(choice)
    return Loaded(readings, by_timm)


def _wanted_by(model: torch.nn.Module) -> Wanted:
    config = getattr(model, "pretrained_cfg", None)
    classifiers = config.get("classifier") if isinstance(config, Mapping) else None
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers or ())
    architecture = config.get("architecture") if isinstance(config, Mapping) else None
    return Wanted(model.state_dict(), dict(model.named_buffers()), names, architecture or "")


def _leaves_of(content: Any) -> dict[str, Leaf]:
    """Return all tensors in a nesting of dicts and lists by their dotted names, in the order of the file."""
    leaves: dict[str, Leaf] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    for _ in range(MAX_VALUES):
        if not pending:
            break
        path, value = pending.pop()
        if isinstance(value, torch.Tensor) or (path and path[-1].endswith("_extra_state")):
            leaves.setdefault(".".join(path), Leaf(value, ".".join(path[:-1])))
        elif isinstance(value, Mapping | list | tuple) and len(path) < DEEPEST:
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            parts = [((*path, str(name)), part) for name, part in items]
            pending += [
                part for part in reversed(parts) if not isinstance(part[1], int | float | str)
            ]
    return leaves


def _without_wrappers(leaves: Leaves, wanted: Wanted) -> dict[str, Leaf]:
    """Return the tensors without transparent wrappers in their names, if the network itself has no such modules.

    Tensors that would get the same name are left out.
    """
    own = {part for name in wanted.state for part in name.split(".")}
    wrappers = WRAPPERS - own
    renamed = {
        name: ".".join(part for part in name.split(".") if part not in wrappers) for name in leaves
    }
    count = Counter(renamed.values())
    return {new: leaves[name] for name, new in renamed.items() if count[new] == 1}


def _candidates(wanted: Wanted, leaves: dict[str, Leaf], key: str | None) -> list[Fit]:
    """Return a fit for each prefix that, put before the network's names, gives names in the file; most complete first.

    An optimiser's state counts as weights only if a key is given.
    """
    candidates = list(_under_prefixes(wanted, leaves, key))
    plainer = _without_wrappers(leaves, wanted)
    if plainer.keys() != leaves.keys():
        candidates += _under_prefixes(wanted, plainer, key)
    unique: dict[tuple[int, ...], Fit] = {}
    for candidate in candidates:
        unique.setdefault(tuple(map(id, candidate.found.values())), candidate)
    return sorted(unique.values(), key=lambda fit: (len(fit.missing), len(fit.differing)))


def _under_prefixes(wanted: Wanted, leaves: Leaves, key: str | None) -> Iterator[Fit]:
    counts: Counter[str] = Counter()
    for name in leaves:
        parts = name.split(".")
        for start in range(len(parts)):
            own_name = ".".join(parts[start:])
            prefix = name.removesuffix(own_name)
            is_of_weights = key is not None or not OF_OPTIMIZERS.fullmatch(prefix.lower())
            if own_name in wanted.state and is_of_weights:
                counts[prefix] += 1
    most = max(counts.values(), default=0)
    for prefix, count in counts.items():
        if 2 * count >= most:  # with fewer than half of the most, it is not the whole network
            yield Fit(wanted, prefix, leaves)


def _fits(candidates: Sequence[Fit]) -> list[Fit]:
    whole = [fit for fit in candidates if not fit.missing and not fit.differing]
    return [fit for fit in whole if not fit.unexpected(whole)]


def _chosen(fits: Sequence[Fit], key: str | None) -> tuple[Fit, list[Fit]]:
    """Return the weights to take, and those with other values that could have been meant.

    Without a key, timm's own choice comes first, then an average over the training, then the order of the file.
    """
    meant = list(fits) if key is None else _under_key(fits, key)
    if not meant:
        places = ", ".join(shown(fit.place) for fit in fits[:SHOWN_NAMES])
        raise InputError(
            f"holds no weights that fit the network under checkpoint_key {shown(key)}, but under {places}"
        )
    choice = min(meant, key=_preference)
    return choice, [fit for fit in meant if fit is not choice and not _same_values(fit, choice)]


def _under_key(fits: Sequence[Fit], key: str) -> list[Fit]:
    """Return the fits that a key names: exactly, else by the beginning, else by a part of their place."""
    exactly = [fit for fit in fits if fit.place == key]
    beginning = [fit for fit in fits if fit.prefix.startswith(f"{key}.")]
    within = [fit for fit in fits if f".{key}." in f".{fit.prefix}"]
    return exactly or beginning or within


def _preference(fit: Fit) -> tuple[bool, bool, int, int]:
    """Return a sort key: timm's own place first, then averages, then timm's order of keys, then the file's order."""
    first = fit.prefix.partition(".")[0]
    rank = TIMMS_KEYS.index(first) if first in TIMMS_KEYS else len(TIMMS_KEYS)
    first_name = fit.prefix + next(iter(fit.found))
    position = list(fit.leaves).index(first_name)
    return not _is_timms_place(fit), not _is_average(fit), rank, position


def _is_average(fit: Fit) -> bool:
    return bool(AVERAGES & set(re.split("[^a-z]+", fit.prefix.lower())))


def _is_timms_place(fit: Fit) -> bool:
    """Return whether timm's own loader takes the weights at this place of a file."""
    dicts = {leaf.container.partition(".")[0] for leaf in fit.leaves.values()}
    first = next((key for key in TIMMS_KEYS if key in dicts), None)
    start = "" if first is None else re.escape(f"{first}.")
    return re.fullmatch(rf"{start}(_orig_mod\.)?(module\.)?(_orig_mod\.)?", fit.prefix) is not None


def _load_as_timm(model: torch.nn.Module, content: Any) -> bool:
    """Load the way timm does, for a network that renames old weights itself; return whether they fit."""
    if not isinstance(content, dict):
        return False
    key = next((key for key in TIMMS_KEYS if content.get(key) is not None), None)
    try:
        answer = model.load_state_dict(clean_state_dict(content if key is None else content[key]))
    except MemoryError:
        raise
    except Exception:
        return False
    # A network's own method may be lenient.
    lists = (getattr(answer, name, ()) for name in ("missing_keys", "unexpected_keys"))
    return not any(lists)


def _ambiguity(weights: Path, choice: Fit, alternatives: Sequence[Fit]) -> str:
    if not alternatives:
        return ""
    others = ", ".join(shown(fit.place) for fit in alternatives[:SHOWN_NAMES])
    sets = f"{printable(weights.name)} holds {len(alternatives) + 1} sets of weights that fit"
    example = shown(alternatives[0].place)
    return (
        f"{sets}: {shown(choice.place)} was taken, not {others}; "
        f"the catalogue's column checkpoint_key chooses another, such as {example}"
    )


def _ignored(choice: Fit, beside: Sequence[str]) -> str:
    if not beside:
        return ""
    return f"{_listed(beside, counted(len(beside), 'tensor'))} beside {shown(choice.place)} ignored"


def _rejected_average(choice: Fit, candidates: Sequence[Fit], fits: Sequence[Fit]) -> str:
    """Return why averages over the training, which would be preferred, were not taken."""
    if _is_average(choice):
        return ""
    for other in candidates:
        if _is_average(other) and other not in fits:
            wrong = other.missing or other.differing or other.unexpected()
            lacks = "lacks" if other.missing else "has another"
            reason = f"it {lacks} {shown(wrong[0])}"
            return f"{shown(other.place)} does not fit the network ({reason}), {shown(choice.place)} was taken"
    return ""


def _other_architecture(wanted: Wanted, content: Any) -> str:
    """Return a warning if the file names another architecture; timm's and PyTorch's own trainings name theirs."""
    said = content.get("arch") if isinstance(content, Mapping) else None
    if not wanted.architecture or not isinstance(said, str):
        return ""
    theirs = said.rpartition("/")[2].partition(".")[0].lower().replace("-", "_")
    if theirs == wanted.architecture or not timm.is_model(theirs):
        return ""
    return (
        f"the file names the architecture {shown(said)}, the network is {wanted.architecture}: "
        "the same shapes may compute something else"
    )


def _untouched_norms(choice: Fit) -> str:
    """Return a warning that counts the batch norms with trained weights but untrained statistics; empty if none."""
    untouched = []
    for name, mean in choice.found.items():
        if name.rpartition(".")[2] != "running_mean":
            continue
        norm = name.removesuffix("running_mean")
        variance, bias = choice.found.get(f"{norm}running_var"), choice.found.get(f"{norm}bias")
        is_initial = not mean.any() and variance is not None and bool((variance == 1).all())
        if is_initial and bias is not None and bias.any():
            untouched.append(name)
    if not untouched:
        return ""
    norms = f"{len(untouched)} batch norms have trained weights but untrained statistics (mean 0, variance 1)"
    return _listed(untouched, norms)


def _misfit(wanted: Wanted, file: TensorFile, candidates: Sequence[Fit], key: str | None) -> str:
    """Return one line that says how the nearest weights differ, what the file's tensors are called, and what to do."""
    leaves = _leaves_of(file.content)
    if not any(leaves):
        return _no_names(file)
    names = _listed(list(leaves), f"the file has {counted(len(leaves), 'tensor')}")
    meant = candidates if key is None else _under_key(candidates, key)
    total = len(wanted.state)
    if not meant:
        where = "" if key is None else f" under checkpoint_key {shown(key)}"
        own = _listed(list(wanted.state), f"none of the network's {total} tensors")
        return f"holds {own}{where}; {names}"
    nearest = meant[0]
    unexpected = nearest.unexpected()
    problem = _classifier_mismatch(nearest, unexpected) or _of_shapes(nearest, unexpected)
    if problem:
        return problem
    parts = []
    if nearest.missing:
        parts.append(_listed(nearest.missing, f"lacks {len(nearest.missing)} of {total} tensors"))
    if unexpected:
        parts.append(_listed(unexpected, f"has {len(unexpected)} that the network lacks"))
    if nearest.differing:
        parts.append(_listed(nearest.differing, f"has {len(nearest.differing)} of other shapes"))
    return f"holds another architecture: it {', '.join(parts)}; {names}"


def _no_names(file: TensorFile) -> str:
    """Return what a file without named tensors holds."""
    if any(name.endswith("_reconstruct") for name in file.replaced):
        return f"holds NumPy arrays and no tensors; {SAVE_STATE_DICT}"
    kind = type(file.content).__name__
    what = "one tensor without a name" if kind == "Tensor" else f"no tensors (but {kind})"
    return f"holds {what}; {SAVE_STATE_DICT}"


def _classifier_mismatch(fit: Fit, unexpected: Sequence[str]) -> str:
    """Return what is wrong if only the classifier differs, with the ``model_kwargs`` that fix it; else empty."""
    differing = [(fit.found[name], fit.wanted.state[name], name) for name in fit.differing]
    if differing and not fit.missing and not unexpected:
        widths = {(theirs.shape[:1], own.shape[:1]) for theirs, own, _ in differing}
        if len(widths) == 1 and all(
            theirs.shape[1:] == own.shape[1:] for theirs, own, _ in differing
        ):
            theirs, own, name = differing[0]
            return (
                f"has {theirs.shape[0]} outputs ({name}), the network {own.shape[0]}: "
                f"set model_kwargs to {_num_classes(theirs.shape[0])}"
            )
    heads = tuple(f"{name}." for name in fit.wanted.classifiers)
    if not heads or differing:
        return ""
    if fit.missing and not unexpected and all(name.startswith(heads) for name in fit.missing):
        lacking = ", ".join(fit.missing[:SHOWN_NAMES])
        return f"has no classifier ({lacking}): set model_kwargs to {_num_classes(0)}"
    if unexpected and not fit.missing and all(name.startswith(heads) for name in unexpected):
        width = fit.leaves[fit.prefix + unexpected[0]].value.shape[0]
        return f"has a classifier ({unexpected[0]}), the network none: set model_kwargs to {_num_classes(width)}"
    return ""


def _num_classes(count: int) -> str:
    return f'{{"num_classes": {count}}}'


def _of_shapes(fit: Fit, unexpected: Sequence[str]) -> str:
    """Return what is wrong if only shapes differ; else empty."""
    if fit.missing or unexpected:
        return ""
    name = fit.differing[0]
    theirs, own = list(fit.found[name].shape), list(fit.wanted.state[name].shape)
    if theirs == [0]:
        return f"holds empty tensors ({name}), as DeepSpeed's ZeRO-3 saves; gather them by zero_to_fp32.py"
    more = f" (and {len(fit.differing) - 1} more)" if len(fit.differing) > 1 else ""
    return (
        f"holds tensors of other shapes: {name} is {theirs}, the network's {own}{more}; "
        "set architecture and model_kwargs to those of the training"
    )


def _listed(names: Sequence[str], what: str) -> str:
    """Return ``what``, with the first names in brackets."""
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return f"{what} ({', '.join(shown(name) for name in names[:SHOWN_NAMES])}{more})"


def _refuse_quantized(name: str, value: Any, wanted: Wanted) -> None:
    own = wanted.state[name]
    if not _is_plain(own) or not own.is_floating_point():
        return
    is_trained = name not in wanted.buffers
    is_other = is_trained and not value.is_floating_point()
    if value.is_quantized or value.dtype in INTEGERS_OF_QUANTIZED or is_other:
        dtype = str(value.dtype).removeprefix("torch.")
        kind = "complex" if value.is_complex() else "quantized"
        raise InputError(f"holds {kind} weights ({name} is {dtype}); save them as floats")


def _refuse_infinite(name: str, value: Any, wanted: Wanted) -> None:
    """Refuse NaN or infinite parameters (diverged, or overflowed as float16); buffers such as masks may be infinite."""
    is_trained = _is_plain(wanted.state[name]) and name not in wanted.buffers
    if not is_trained or value.is_meta or bool(torch.isfinite(value).all()):
        return
    kind = str(value.dtype).removeprefix("torch.")
    raise InputError(
        f"holds NaN or infinite weights ({name}, {kind}): the training diverged, or they overflowed when saved"
    )


def _refuse_untied(choice: Fit) -> None:
    """Refuse two values for one tensor that the network uses in two places."""
    for name, value in choice.found.items():
        first = next(same for same in choice.wanted.same[name] if same in choice.found)
        if not _equal(choice.found[first], value):
            raise InputError(
                f"has two values for what the network shares: {shown(first)} and {shown(name)} are one tensor there"
            )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a tensor with a shape, which a lazy module's parameter lacks."""
    return isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value)


def _same_shape(value: Any, own: Any) -> bool:
    if not _is_plain(own):
        return True
    if not isinstance(value, torch.Tensor):
        return False
    return value.shape == own.shape or (own.ndim == 0 and value.shape == (1,))


def _same_values(fit: Fit, other: Fit) -> bool:
    return all(_equal(fit.state[name], value) for name, value in other.state.items())


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return bool(one == other)
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))
