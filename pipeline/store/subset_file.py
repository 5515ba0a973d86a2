"""The images of a run as its OUT holds them: ``subset.parquet``, and the paper's clusters of the inputs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import damage, write_atomically, write_checksummed
from dsmi_zoo.data_catalog.datasets.subset import Subset

from .run_folder import array_bytes

OF_THE_SUBSET = ["image", "label", "number", "repeat"]


def subset_path(out: Path) -> Path:
    """Where the subset stands."""
    return out / "subset.parquet"


def write_subset(out: Path, subset: pd.DataFrame) -> None:
    """Store ``OUT/subset.parquet``: one row per image, in the embeddings' order."""
    write_atomically(
        subset_path(out),
        lambda file: subset.to_parquet(file, index=False, write_page_checksum=True),
    )


def read_subset(out: Path) -> pd.DataFrame:
    """The subset's images with their ``label``, ``number`` in the data set and ``input_cluster``.

    Raises
    ------
    DamagedFile
        When it is missing, or not as it was written.
    """
    path = subset_path(out)
    if not path.is_file():
        raise DamagedFile(path, "cannot be read (there is no such file)")
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        subset = table.to_pandas()
        lacking = {*OF_THE_SUBSET, "input_cluster"} - set(subset.columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedFile(path, f"cannot be read ({_first_line(error)})") from None
    if lacking:
        raise DamagedFile(path, f"lacks {', '.join(sorted(lacking))}")
    return subset


def subset_is_stored(out: Path, subset: Subset) -> bool:
    """Whether ``OUT/subset.parquet`` can be read and holds this subset."""
    try:
        return read_subset(out)[OF_THE_SUBSET].equals(subset.table())
    except DamagedFile:
        return False


def clusters_path(out: Path, img_size: int) -> Path:
    """Where the paper's protocol keeps the clusters of its inputs, which differ by image size."""
    return out / "input_clusters" / f"{img_size}.npy"


def write_clusters(path: Path, clusters: np.ndarray) -> None:
    """Store the clusters of a view's crops, int64 [n], with a note of what they are."""
    write_checksummed(path, lambda file: file.write(array_bytes(clusters)))


def subset_with_clusters(out: Path, img_size: int | None) -> pd.DataFrame:
    """The subset's rows; ``input_cluster`` is that of the entry's own crops where the protocol clusters those.

    Raises
    ------
    DamagedFile
        When a file of either is not as it was written.
    """
    subset = read_subset(out)
    path = None if img_size is None else clusters_path(out, img_size)
    if path is None or not path.exists():
        return subset
    problem = damage(path, needs_note=False)
    if problem:
        raise DamagedFile(path, problem)
    try:
        return subset.assign(input_cluster=np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DamagedFile(path, f"cannot be read ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
