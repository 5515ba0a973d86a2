"""Thumbnails of a run's images for its page."""

import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from io import BytesIO

from dsmi_zoo.pipeline.config.run import SubsetSettings

log = logging.getLogger(__name__)

SIDE = 112  # pixels


def thumbnails_of(settings: SubsetSettings) -> Callable[[Sequence[str]], dict[str, str]]:
    """Return the function that makes thumbnails, as data URIs, of images by their names.

    It leaves out, with a warning, what can no longer be read.

    Raises
    ------
    InputError
        When the images are no longer where the run found them.
    """
    from dsmi_zoo.data_catalog.datasets.registry import open_dataset

    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    numbers = {name: number for number, name in enumerate(images.names)}

    def thumbnails(names: Sequence[str]) -> dict[str, str]:
        uris = {}
        for name in names:
            try:
                image = images.image(numbers[name])
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

    return thumbnails
