"""Several processes share a GPU, one at a time: the others read, build and measure meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .machine_locks import machine_lock
from .model_clock import ModelClock


@contextmanager
def gpu_turn(device: torch.device, clock: ModelClock) -> Iterator[None]:
    """Wait until no other process of the user's has its turn on the device, then use it alone.

    Models are moved there, and off it, within the turn: so memory is never shared between two of them. The CPU is no
    device to wait for. Waiting does not count as the model's time.
    """
    if device.type == "cpu":
        yield
        return
    turn = machine_lock(f"device {device_name(device)}")
    with clock.stopped():
        turn.__enter__()
    try:
        yield
        if device.type == "cuda":
            torch.cuda.empty_cache()
    finally:
        turn.__exit__(None, None, None)


def device_name(device: torch.device) -> str:
    """A name that all processes on this machine have for the device, by whatever number they see it."""
    if device.type == "cuda":
        return str(getattr(torch.cuda.get_device_properties(device), "uuid", os.environ.get("CUDA_VISIBLE_DEVICES")))
    return device.type
