"""The images of a run as stored in OUT: ``subset.parquet``, and the paper's clusters of the inputs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import damage_problem, write_checksummed
from dsmi_zoo._util.parquet import read_parquet, write_parquet
from dsmi_zoo.data_catalog.datasets.subset import Subset

from .embedding_file import array_bytes, read_npy

OF_THE_SUBSET = ["image", "label", "number", "repeat"]


def subset_path(out: Path) -> Path:
    """Return the path of the subset."""
    return out / "subset.parquet"


def write_subset(out: Path, subset: pd.DataFrame) -> None:
    """Store ``OUT/subset.parquet``: one row per image, in the embeddings' order."""
    write_parquet(subset_path(out), pa.Table.from_pandas(subset, preserve_index=False))


def read_subset(out: Path) -> pd.DataFrame:
    """Read the subset's images with their ``label``, ``number`` in the data set and ``input_cluster``.

    Raises
    ------
    DamagedFile
        When it is missing or damaged.
    """
    path = subset_path(out)
    try:
        subset = read_parquet(path).to_pandas()
        lacking = {*OF_THE_SUBSET, "input_cluster"} - set(subset.columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    if lacking:
        raise DamagedFile(path, f"lacks {', '.join(sorted(lacking))}")
    return subset


def subset_is_stored(out: Path, subset: Subset) -> bool:
    """Return whether ``OUT/subset.parquet`` can be read and holds this subset."""
    try:
        return read_subset(out)[OF_THE_SUBSET].equals(subset.table())
    except DamagedFile:
        return False


def clusters_path(out: Path, img_size: int) -> Path:
    """Return the path of the clusters of inputs of one size, which the paper's protocol needs."""
    return out / "input_clusters" / f"{img_size}.npy"


def write_clusters(path: Path, clusters: np.ndarray) -> None:
    """Store the clusters of a view's crops, int64 [n], with a checksum."""
    write_checksummed(path, lambda file: file.write(array_bytes(clusters)))


def subset_with_clusters(out: Path, img_size: int | None) -> pd.DataFrame:
    """Read the subset; ``input_cluster`` is that of the entry's own crops if the protocol clusters those.

    Raises
    ------
    DamagedFile
        When one of the files is damaged.
    """
    subset = read_subset(out)
    path = None if img_size is None else clusters_path(out, img_size)
    if path is None or not path.exists():
        return subset
    problem = damage_problem(path, needs_note=False)
    if problem:
        raise DamagedFile(path, problem)
    try:
        return subset.assign(input_cluster=read_npy(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DamagedFile:
    first_line = str(error).split("\n")[0]
    return DamagedFile(path, f"cannot be read ({first_line})")
