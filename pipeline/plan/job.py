"""An entry of a run: ready for a worker, and what the driver learns once it is finished."""

from dataclasses import dataclass
from pathlib import Path

from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing


@dataclass(frozen=True)
class Job:
    """One entry of a run, with all that a worker needs.

    ``weights`` is a file, which may not be trained yet. None means the published weights that ``entry.weights`` names,
    those that the entry's builder makes, or timm's initial ones in a run with ``random_weights``. ``builder_sha256`` is
    the hash of the file of the builder's module. ``network_id`` is the identity of the embedding without the entry's
    layer: entries that share it are layers of one network, and one forward pass gives them all.
    """

    entry: ModelEntry
    preprocessing: Preprocessing
    weights: Path | None
    view: Path
    embedding_id: str
    row_id: str
    builder_sha256: str | None = None
    network_id: str = ""

    @property
    def slug(self) -> str:
        """Name of the entry's files."""
        return self.entry.slug

    @property
    def network(self) -> str:
        """What the entry shares with other layers of its network; without an identity it is alone."""
        return self.network_id or self.slug

    @property
    def name(self) -> str:
        """Name for people."""
        return str(self.entry)


@dataclass(frozen=True)
class Outcome:
    """How an entry ended, ``ok`` or failed; its row is on disk. ``readings`` says how ambiguous input was read."""

    slug: str
    name: str
    ok: bool
    message: str
    seconds: float
    readings: str = ""
