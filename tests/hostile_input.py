"""Helpers for hostile input: a correct answer or one printable line, without gigabytes of memory."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import is_printable

Answer = TypeVar("Answer")

MAX_MEMORY = 2**30  # bytes beyond the process's current memory
MANY = int(os.environ.get("HOSTILE_EXAMPLES", "1"))  # multiplies the examples, for a longer search
ODD_TEXT = st.sampled_from([
    "", " ", "a", "\0", "\x1b[31m", "\x85", "\u2028", "\u202ea", "a\nb", "a\r\nb", '"', "'", "\\", ";", ",", "é" * 50,
    "nan", "inf", "-inf", "1e30", "1e300", "1e999", "-1", "0", "-0", "1_0", "0x10", "224", "224.5", "20000", "٣",
    "9" * 6000, "x" * 300, "x" * 20_000, "[" * 30, "[" * 100_000, '{"a":' * 300, "../../etc", "/dev/zero", "~", "$HOME",
])  # fmt: skip


def bounded(examples: int) -> settings:
    """Use the same examples in every run, so that a test never fails by chance."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples * MANY, deadline=None, derandomize=True, suppress_health_check=slow
    )


def flipped(content: bytes, bit: int) -> bytes:
    """Return the content with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@contextmanager
def little_memory() -> Iterator[None]:
    """Limit the process to a gibibyte more memory than it has."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MAX_MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))


def answer_or_refusal(
    read: Callable[[], Answer], named: str | Path, may_lack_memory: bool = False
) -> tuple[Answer | None, str]:
    """Return a reader's answer, or its checked one-line refusal."""
    with little_memory():
        try:
            return read(), ""
        except InputError as error:
            line = str(error)
    assert is_printable(line)
    assert len(line) < 600 + len(str(named))
    assert str(named) in line
    assert may_lack_memory or not ("Unable to allocate" in line or "MemoryError" in line)
    return None, line


def refusal(read: Callable[[], object], named: str | Path) -> str:
    """Assert that a reader refuses, and return its line."""
    answer, line = answer_or_refusal(read, named)
    assert line, answer
    return line
