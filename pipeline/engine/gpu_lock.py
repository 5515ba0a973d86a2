"""The lock by which processes take turns on a GPU; the others read, build and measure meanwhile."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from dsmi_zoo._util.locks import machine_lock

from .time_limit import ModelClock


@contextmanager
def gpu_turn(model: torch.nn.Module, device: torch.device, clock: ModelClock) -> Iterator[None]:
    """Wait until no other process of the user uses the device, then use it alone.

    The model may be moved there within the turn. At the end it loses its weights, so that two models never share the
    memory. Waiting does not count as the model's time. The CPU needs no turns.
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
        with suppress(Exception):  # a network of the user's own may fail to move
            model.to("meta")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        turn.__exit__(None, None, None)


def device_name(device: torch.device) -> str:
    """Return the device's name for all processes on this machine, which may number devices differently."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return str(getattr(properties, "uuid", os.environ.get("CUDA_VISIBLE_DEVICES")))
