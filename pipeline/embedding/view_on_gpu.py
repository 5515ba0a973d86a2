"""A view's pixels on an accelerator: there for all models that share it, or read ahead batch by batch."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from .view_file import StoredView

KEPT_ON = ("cuda",)
"""torch's names of devices with memory of their own, which says how much of it is free."""

MOST_OF_MEMORY = 0.2
"""Of the device's free memory, that a view may take: the models need the rest, those of other processes too."""

_READ_AT_ONCE = 2**26  # bytes


@dataclass(frozen=True)
class _Kept:
    """The view that this process last put on a device."""

    view: StoredView
    device: torch.device
    pixels: torch.Tensor


_kept: _Kept | None = None


def pixels_on(device: torch.device, view: np.ndarray | StoredView) -> torch.Tensor | None:
    """The whole view, uint8 [n, h, w, 3], on the device, where it stays until another one is asked for.

    None where it does not fit, or is no view of a run: then it is read batch by batch.
    """
    global _kept
    if not isinstance(view, StoredView) or device.type not in KEPT_ON:
        return None
    if _kept is not None and (_kept.view, _kept.device) == (view, device):
        return _kept.pixels
    _kept = None
    free, _ = torch.cuda.mem_get_info(device)
    if len(view) * view.bytes_of_a_row > MOST_OF_MEMORY * free:
        return None
    try:
        pixels = torch.empty(view.shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:  # another process was faster
        return None
    step = max(1, _READ_AT_ONCE // view.bytes_of_a_row)
    for start in range(0, len(view), step):
        pixels[start : start + step] = torch.from_numpy(view[start : start + step])
    _kept = _Kept(view, device, pixels)
    return pixels


class ReadAhead:
    """Batches of a view for a device: while one passes through the model, the next is read and sent."""

    def __init__(self, view: np.ndarray | StoredView, device: torch.device) -> None:
        self._view = view
        self._device = device
        self._reader = ThreadPoolExecutor(1)
        self._next: tuple[int, int, Future[torch.Tensor]] | None = None

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """The pixels from ``start`` up to ``stop``, uint8 [b, h, w, 3], on the device."""
        if self._next is not None and self._next[:2] == (start, stop):
            pixels = self._next[2].result()
        else:
            pixels = self._read(start, stop)
        following = min(2 * stop - start, len(self._view))
        if following > stop:
            self._next = (stop, following, self._reader.submit(self._read, stop, following))
        return pixels

    def _read(self, start: int, stop: int) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self._view[start:stop]))
        if self._device.type != "cuda":
            return pixels.to(self._device)
        return pixels.pin_memory().to(self._device, non_blocking=True)
