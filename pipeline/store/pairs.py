"""Pairs of a run's models, ``OUT/pairs.parquet``: the images that the probe on both embeddings recognises."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dsmi_zoo._util.parquet import read_parquet, write_parquet

from ..measures.core.hits import pack_hits, unpack_hits


class PairHits(NamedTuple):
    """Two models by the identities of their rows, and whether the probe on both recognises each image, bool [m]."""

    first: str
    second: str
    hits: np.ndarray


def pairs_path(out: Path) -> Path:
    """Return the path of a run's pairs."""
    return out / "pairs.parquet"


def write_pairs(out: Path, pairs: Sequence[PairHits]) -> None:
    """Store the pairs of a run, in place of earlier ones."""
    columns: Mapping[str, list[str]] = {
        "first": [one.first for one in pairs],
        "second": [one.second for one in pairs],
        "hits": [pack_hits(one.hits) for one in pairs],
    }
    write_parquet(pairs_path(out), pa.table(columns))


def read_pairs(out: Path) -> list[PairHits]:
    """Read the pairs of a run; none if they were never computed.

    Raises
    ------
    ValueError
        When the file is damaged, or does not hold pairs.
    """
    if not pairs_path(out).exists():
        return []
    try:
        table = read_parquet(pairs_path(out)).to_pydict()
        columns = zip(table["first"], table["second"], table["hits"], strict=True)
        return [PairHits(str(one), str(two), unpack_hits(text)) for one, two, text in columns]
    except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ValueError(f"unreadable: {error}") from None
