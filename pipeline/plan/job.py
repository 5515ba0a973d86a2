"""An entry of a run as a job for a worker, and its outcome for the driver."""

from dataclasses import dataclass
from pathlib import Path

from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing


@dataclass(frozen=True)
class Job:
    """One entry of a run, with everything that a worker needs.

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
        """Key that all layers of the entry's network share; the slug without a network identity."""
        return self.network_id or self.slug

    @property
    def name(self) -> str:
        """Display name."""
        return str(self.entry)


@dataclass(frozen=True)
class Outcome:
    """Result of an entry, ``ok`` or failed; its row is on disk. ``readings`` says how ambiguous input was read."""

    slug: str
    name: str
    ok: bool
    message: str
    seconds: float
    readings: str = ""
