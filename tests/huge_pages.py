"""Huge pages for the process that tests fork from, which imports this last: a fork then takes a third of the time.

A fork copies the page table of 600 MB, and its exit frees it. A page that a child writes to is still copied alone.
Linux supports this since 6.1; elsewhere the import changes nothing.
"""

import ctypes
from pathlib import Path

MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
HUGE = 2 << 20


def anonymous() -> list[tuple[int, int]]:
    """Return the ranges of whole huge pages in this process's own writable memory."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, _, _, inode, *path = line.split()
        if inode == "0" and permissions.startswith("rw") and path in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            start, end = -(-start // HUGE) * HUGE, end // HUGE * HUGE
            if start < end:
                ranges.append((start, end))
    return ranges


def collapse() -> None:
    """Request huge pages at once; the contents of the memory stay the same, even if the request fails."""
    madvise = ctypes.CDLL(None).madvise
    for start, end in anonymous():
        for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


if Path("/proc/self/maps").exists():
    collapse()
