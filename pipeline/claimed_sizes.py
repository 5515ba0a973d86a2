"""What a file of arrays claims to hold, before that is believed: a header of a few bytes may ask for terabytes."""

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

MOST_SHRUNK = 1100  # deflate makes nothing smaller than to 1/1032
LONGEST_HEADER = (
    10_000  # bytes; NumPy has the same limit, and reads the header before it applies it
)
HELD_BY_ANY = 2**30  # bytes that no claim needs a reason for


class _Claims(ValueError):
    """More than there is."""


def check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError if the header of a ``.npy`` file of ``size`` bytes claims more than those.

    What else may be wrong with it is for NumPy to tell.
    """
    try:
        version = np.lib.format.read_magic(file)
        width = 2 if version == (1, 0) else 4
        length = int.from_bytes(file.read(width), "little")
        if length > LONGEST_HEADER:
            raise _Claims(f"its header claims to have {length:,} bytes")
        file.seek(-width, os.SEEK_CUR)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    except _Claims:
        raise
    except ValueError:
        return
    claimed = math.prod(shape) * max(dtype.itemsize, 1)
    if claimed > size and not dtype.hasobject:
        raise ValueError(f"its header claims {claimed:.3g} bytes, and it has {size}")


def check_zip(file: Path, largest_ratio: int = MOST_SHRUNK) -> None:
    """Raise ValueError if a member of a zip archive claims to become more than deflate could have made smaller."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"{member.filename} is compressed in a way that neither NumPy nor PyTorch uses"
                )
            if member.file_size > member.compress_size * largest_ratio + 1000:
                raise ValueError(
                    f"{member.filename} claims {member.file_size:.3g} bytes from {member.compress_size}"
                )


def check_npz(file: Path, name: str) -> None:
    """Raise ValueError unless the member ``name`` of a ``.npz`` file is as large as its header claims."""
    check_zip(file)
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        member = archive.getinfo(name if name in names else f"{name}.npy")
        with archive.open(member) as opened:
            check_npy(opened, member.file_size)


def check_parquet(file: Path) -> None:
    """Raise ValueError for a Parquet file of more values than its bytes can stand for."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    claimed = metadata.num_rows * metadata.num_columns * 8
    if claimed > max(HELD_BY_ANY, file.stat().st_size * MOST_SHRUNK):
        raise ValueError(
            f"it claims {metadata.num_rows:.3g} rows of {metadata.num_columns} columns"
        )


def check_tensor(shape: tuple[int, ...], itemsize: int, stored: int) -> None:
    """Raise ValueError for a tensor that claims many more bytes than are stored, by repeating them."""
    claimed = math.prod(shape) * itemsize
    if claimed > max(HELD_BY_ANY, stored):
        raise ValueError(f"it claims {claimed:.3g} bytes by repeating {stored}")
