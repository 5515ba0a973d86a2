"""Files of one run in the folder of another."""

import os
import shutil
import uuid
from pathlib import Path

from ..pipeline.atomic_files import write_atomically


def inputs_of(folder: Path) -> list[Path]:
    """Which files a run has about its images, relative to its folder; a note comes before the file that it is of."""
    clusters = sorted((folder / "input_clusters").glob("*.npy*"), reverse=True)
    inputs = [folder / "subset.parquet", *clusters]
    return [path.relative_to(folder) for path in inputs if path.exists()]


def carry(source: Path, target: Path) -> None:
    """Let a file appear as ``target``, whole: as a hard link where the file system allows it, else as a copy.

    Files of a run are replaced, never written to, so whatever happens to one of them leaves the other as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        os.link(source.resolve(), temporary)
        temporary.replace(target)
    except OSError:
        with source.open("rb") as content:
            write_atomically(target, lambda file: shutil.copyfileobj(content, file))
    finally:
        temporary.unlink(missing_ok=True)  # a rename onto a link to the same file leaves both names
