"""Fine-tune a network with a new classifier, and predict the classes of images that it has not seen."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import update_bn

from dsmi_zoo._util.errors import InputError

from ..config.finetuning import FineTuning
from ..networks.forward import CPU_BATCH_PIXELS, Inputs, default_batch, random_states_kept
from ..networks.layers import as_vectors, first_tensor, forward, has_pre_logits
from .embed import AUTOCAST, View, takes_channels_last
from .train import STATISTICS_BATCH, descend

STATISTICS_PIXELS = (
    2**21
)  # of a pass that estimates batch norm's statistics: 41 images of 224 x 224
FEWEST_AT_ONCE = 2  # batch norm's statistics of one image may be undefined


class WithClassifier(torch.nn.Module):
    """Any network, with a linear classifier on the output of one of its layers."""

    def __init__(self, network: torch.nn.Module, layer: str | None, width: int, classes: int):
        super().__init__()
        self.network, self.layer = network, layer
        self.classifier = torch.nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, [n, classes]."""
        output, _ = forward(self.network, images, self.layer, logits=False)
        logits: torch.Tensor = self.classifier(as_vectors(output, len(images), self.layer))
        return logits


def with_new_classifier(
    network: Any, classes: int, layer: str | None, inputs: Inputs
) -> torch.nn.Module:
    """Return the network with a new linear classifier in place of its own; a timm network keeps its form.

    Raises
    ------
    InputError
        When the network has nothing that can be trained, or no vector per image to classify.
    """
    if layer is None and has_pre_logits(network):
        network.reset_classifier(classes)
        model: torch.nn.Module = network
    else:
        with torch.no_grad():
            image = inputs.batch(0, 1, torch.device("cpu"))
            output, _ = forward(network, image, layer, logits=False)
            width = as_vectors(output, 1, layer).shape[1]
        model = WithClassifier(network, layer, width, classes)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model


def images_at(inputs: Inputs, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the images of these numbers, float [k, c, h, w], on the device."""
    if isinstance(inputs, View):
        return inputs.at(numbers, device)
    return torch.cat([inputs.batch(number, number + 1, device) for number in numbers])


def fine_tune(
    model: torch.nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    train: np.ndarray,
    recipe: FineTuning,
    device: torch.device,
    seed: int,
) -> None:
    """Train all weights of a model with a new classifier, then re-estimate batch norm's statistics.

    If a batch does not fit into memory, the training restarts, and batches go through the network in parts.

    Parameters
    ----------
    model
        A network whose outputs are logits.
    labels
        Numbered from 0, int64 [n].
    train
        The numbers of the training images, int64 [k].
    seed
        The seed of the order of the batches, and of the network's own random numbers.

    Raises
    ------
    MemoryError
        When not even two images fit.
    """
    steps = recipe.steps(len(train))
    at_once = steps.batch_size
    before = {name: value.clone() for name, value in model.state_dict().items()}
    while True:
        try:
            model.to(device)
            with random_states_kept(), _threads_for(inputs.pixels * at_once):
                torch.manual_seed(seed)
                _train(model, inputs, labels, train, recipe, device, at_once)
            return
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
        if at_once <= FEWEST_AT_ONCE:
            raise MemoryError(
                f"fine-tuning does not fit into the memory of {device}, not even with {at_once} images of "
                f"{inputs.pixels} pixels at a time"
            )
        at_once = max(FEWEST_AT_ONCE, at_once // 2)
        for parameter in model.parameters():
            parameter.grad = None
        model.load_state_dict(before)
        if device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _threads_for(pixels: int) -> Iterator[None]:
    """Use one CPU thread if a step is small: several would mostly wait for each other, more so on a busy machine."""
    threads = torch.get_num_threads()
    if pixels < CPU_BATCH_PIXELS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_lack_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _train(
    model: torch.nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    train: np.ndarray,
    recipe: FineTuning,
    device: torch.device,
    at_once: int,
) -> None:
    steps = recipe.steps(len(train))
    targets = torch.from_numpy(labels[train]).to(device)
    layout = torch.channels_last if takes_channels_last(model, device) else torch.contiguous_format
    model.to(memory_format=layout)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        images = images_at(inputs, train[batch.numpy()].tolist(), device)
        images = images.contiguous(memory_format=layout)
        with mixed(device):
            return cross_entropy(first_tensor(model(images)).float(), targets[batch.to(device)])

    def schedule(optimiser: torch.optim.Optimizer) -> LambdaLR:
        return LambdaLR(optimiser, lambda step: rate_at(step, steps.total, recipe.warm_up))

    groups = parameter_groups(model, recipe.learning_rate * recipe.classifier_rate)
    descend(model, steps, len(train), loss_of, schedule=schedule, groups=groups, at_once=at_once)
    passes = min(STATISTICS_BATCH, max(at_once, STATISTICS_PIXELS // inputs.pixels))
    with mixed(device):
        update_bn(_batches(inputs, train, passes, device), model)


def parameter_groups(model: Any, classifier_rate: float) -> list[dict[str, Any]]:
    """Return parameter groups for torch's optimisers: the classifier's, with its learning rate, and all others.

    A timm network's classifier may be several layers; if the network names none, all parameters are one group.
    """
    named = [model.classifier] if isinstance(model, WithClassifier) else model.get_classifier()
    modules = named if isinstance(named, Sequence) else [named]
    new = {id(one) for module in modules if module is not None for one in module.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [one for one in model.parameters() if id(one) not in new]},
        {"params": [one for one in model.parameters() if id(one) in new], "lr": classifier_rate},
    ]
    return [group for group in groups if group["params"]]


def _batches(
    inputs: Inputs, numbers: np.ndarray, most: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield all images in batches of nearly equal size; strided, so that each holds all classes."""
    parts = -(-len(numbers) // most)
    for start in range(parts):
        yield images_at(inputs, numbers[start::parts].tolist(), device)


def rate_at(step: int, total: int, warm_up: float) -> float:
    """Return the learning rate as a share of its peak: linear from 0 over the warm-up, then a cosine to 0."""
    rising = max(1.0, warm_up * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1.0, total - rising))))


def mixed(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where a GPU has it, with weights and their updates in float32."""
    name = mixed_precision(device)
    if name is not None:
        return torch.autocast(device.type, dtype=AUTOCAST[name])
    return nullcontext()


def mixed_precision(device: torch.device) -> str | None:
    """Return the name of the lower precision in mixed-precision training; None if all is computed in float32."""
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else None


@torch.inference_mode()
def predicted(
    model: torch.nn.Module, inputs: Inputs, numbers: np.ndarray, device: torch.device
) -> np.ndarray:
    """Return the classes that the model predicts for these images, int64 [k]."""
    model.eval()
    most = default_batch(device, inputs.pixels)
    parts = []
    for start in range(0, len(numbers), most):
        images = images_at(inputs, numbers[start : start + most].tolist(), device)
        with mixed(device):
            parts.append(first_tensor(model(images)).argmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def check_classes(labels: np.ndarray) -> None:
    """Raise InputError unless there are two classes or more to learn."""
    if len(np.unique(labels)) < 2:
        raise InputError("the images are of one class, so there is nothing to fine-tune for")
