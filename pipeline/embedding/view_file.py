"""A view's file: rows are read and written by themselves, never mapped.

A mapped file counts as memory of the process that maps it, and Dask ends a worker for a view larger than its limit.
"""

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


@dataclass(frozen=True)
class StoredView:
    """A view on disk, uint8 [n, h, w, 3], of which a slice of rows is read when it is asked for."""

    path: Path
    shape: tuple[int, ...]
    begins_at: int

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """These rows, uint8 [rows, h, w, 3]: the caller's own copy."""
        start, stop, step = rows.indices(len(self))
        read = np.fromfile(
            self.path,
            dtype=np.uint8,
            count=max(stop - start, 0) * self.bytes_of_a_row,
            offset=self.begins_at + start * self.bytes_of_a_row,
        )
        return read.reshape(-1, *self.shape[1:])[::step]

    @property
    def bytes_of_a_row(self) -> int:
        """Size of one image."""
        return math.prod(self.shape[1:])


def open_stored(path: Path) -> StoredView:
    """The view in a file of NumPy's format."""
    with path.open("rb") as file:
        version = npy.read_magic(file)
        assert version == (1, 0)
        shape, _, _ = npy.read_array_header_1_0(file)
        return StoredView(path, shape, file.tell())


class ViewWriter:
    """A new file of NumPy's format for uint8 [n, h, w, 3], whose rows are written in any order.

    Raises
    ------
    OSError
        When the disk has no room for all of it: it gets its blocks at once.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        header = {
            "shape": shape,
            "fortran_order": False,
            "descr": npy.dtype_to_descr(np.dtype(np.uint8)),
        }
        with path.open("wb") as file:
            npy.write_array_header_1_0(file, header)
            self._view = StoredView(path, shape, file.tell())
            _reserve(file.fileno(), self._view.begins_at + math.prod(shape))
        self._file = os.open(path, os.O_WRONLY)

    def __enter__(self) -> "ViewWriter":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def write(self, row: int, pixels: np.ndarray) -> None:
        """Write one image, uint8 [h, w, 3]; threads may do so at the same time."""
        assert pixels.dtype == np.uint8
        assert pixels.shape == self._view.shape[1:]
        rest = np.ascontiguousarray(pixels).reshape(-1).data
        place = self._view.begins_at + row * self._view.bytes_of_a_row
        while rest:
            written = os.pwrite(self._file, rest, place)
            rest = rest[written:]
            place += written


def _reserve(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot reserve
            raise
