"""Hits, that is whether a classifier recognises each image: their share, its interval, and their text."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95% interval


def first_rows(images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each image."""
    return np.unique(images, return_index=True)[1]


def most_repeats(correct: NDArray[np.bool_], images: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether most rows of each image are correct, bool [images]."""
    return np.bincount(images, weights=correct) > np.bincount(images) / 2


def percent(hits: NDArray[np.bool_]) -> float:
    """Return the share of hits, in percent."""
    return 100 * float(hits.mean())


def wilson_limits(hits: Any, n: Any, z: float = Z95) -> tuple[Any, Any]:
    """Return the limits of the intervals of shares, which rounding may push outside 0 to 1; ``z`` is 1.96 for 95%.

    References
    ----------
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    share, z2 = hits / n, z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    variance = share * (1 - share) / n + z2 / (4 * n * n)
    half = z / (1 + z2 / n) * np.sqrt(variance)
    return centre - half, centre + half


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the limits of the 95% interval of a share, in percent."""
    low, high = wilson_limits(hits, n)
    return max(0.0, 100 * float(low)), min(100.0, 100 * float(high))


def error_of_share(values: NDArray[np.float64]) -> float:
    """Return the standard error of a mean of values from 0 to 1, [n], above 0 even if all are 0 or all are 1.

    Half the width of Wilson's 95% interval over 1.96, with the values' variance in place of that of hits.
    """
    n, z2 = len(values), Z95**2
    return float(np.sqrt(np.var(values) / n + z2 / (4 * n * n)) / (1 + z2 / n))


def pack_hits(hits: NDArray[np.bool_]) -> str:
    """Write hits as text: their number, then their bits as hexadecimal digits."""
    return f"{len(hits)}:{np.packbits(hits).tobytes().hex()}"


def unpack_hits(text: str) -> NDArray[np.bool_]:
    """Read the hits that ``pack_hits`` wrote."""
    count, digits = text.split(":")
    packed_bits = np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)
    return np.unpackbits(packed_bits, count=int(count)).astype(bool)
