"""Thumbnails of a run's images for its page."""

import logging
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

from dsmi_zoo.pipeline.config.run import SubsetSettings

log = logging.getLogger(__name__)

SIDE = 112  # pixels


class Thumbnails:
    """Thumbnails, as data URIs, of a run's images by their names.

    What can no longer be read is left out, with a warning. ``asked`` is the number of images asked for so far.

    Raises
    ------
    InputError
        When the images are no longer where the run found them.
    """

    def __init__(self, settings: SubsetSettings) -> None:
        from dsmi_zoo.data_catalog.datasets.registry import open_dataset

        self._images = open_dataset(
            settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
        )
        self._numbers = {name: number for number, name in enumerate(self._images.names)}
        self.asked = 0

    def __call__(self, names: Sequence[str]) -> dict[str, str]:
        """Return the thumbnails of these images."""
        self.asked += len(names)
        uris = {}
        for name in names:
            try:
                image = self._images.image(self._numbers[name])
            except (KeyError, OSError, ValueError) as error:
                log.warning(
                    f"no thumbnail of {name}: it is no longer there, or unreadable ({error})"
                )
                continue
            image.thumbnail((SIDE, SIDE))
            file = BytesIO()
            image.save(file, "JPEG", quality=80)
            uris[name] = f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
        return uris
