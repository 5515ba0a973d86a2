"""Several processes share a GPU, one at a time: the others read, build and measure meanwhile."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from dsmi_zoo._util.locks import machine_lock

from .time_limit import ModelClock


@contextmanager
def gpu_turn(model: torch.nn.Module, device: torch.device, clock: ModelClock) -> Iterator[None]:
    """Wait until no other process of the user's has its turn on the device, then use it alone.

    The model may be moved there within the turn; at its end it loses its weights, so that memory is never shared
    between two models. Waiting does not count as the model's time. The CPU is no device to wait for.
    """
    if device.type == "cpu":
        yield
        return
    turn = machine_lock(f"device {device_name(device)}")
    with clock.stopped():
        turn.__enter__()
    try:
        yield
    finally:
        _give_memory_back(model, device)
        turn.__exit__(None, None, None)


def _give_memory_back(model: torch.nn.Module, device: torch.device) -> None:
    """Leave the device to others; what of a network of the user's own cannot be moved, they share it with."""
    with suppress(Exception):
        model.to("meta")
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """A name that all processes on this machine have for the device, by whatever number they see it."""
    if device.type == "cuda":
        return str(
            getattr(
                torch.cuda.get_device_properties(device),
                "uuid",
                os.environ.get("CUDA_VISIBLE_DEVICES"),
            )
        )
    return device.type
