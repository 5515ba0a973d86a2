"""How well a simple classifier on the embedding does: what one asks before choosing a pretrained model."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.measures.inputs import as_classes, as_embedding, as_seed, order_of_appearance

FOLDS = 5
ALPHAS = (1.0, 10.0, 100.0, 1e3, 1e4)
Z95 = 1.959963984540054  # the normal quantile of a two-sided 95% interval


class SingleImageError(ValueError):
    """A class with one image cannot be cross-validated."""


def probe_hits(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None, seed: int = 0
) -> NDArray[np.bool_]:
    """Whether a linear probe that has not seen an image classifies it right.

    A ridge classifier on standardised features, cross-validated in 5 folds (fewer when a class has fewer images);
    folds are stratified by class over images, so the repeats of an image stay together. The penalty is chosen inside
    each fold.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    labels : [n] or [n, 1]
        The class of each sample.
    image_ids : [n], optional
        The image of each sample; by default every sample is an image of its own.
    seed : int
        Seed of the folds.

    Returns
    -------
    bool [m]
        One entry an image, in the order in which images first appear: most of its repeats are classified right.

    Raises
    ------
    ValueError
        As the other measures; also if a class has a single image, for then no fold can hold it out and know it.

    References
    ----------
    scikit-learn's ``RidgeClassifierCV`` and ``StratifiedKFold``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    Z = as_embedding(Z)
    classes = as_classes(labels, len(Z))
    images = np.arange(len(Z)) if image_ids is None else order_of_appearance(np.asarray(image_ids))
    _, first = np.unique(images, return_index=True)
    fewest = int(np.bincount(classes[first]).min())
    if fewest < 2:
        raise SingleImageError("a class has a single image, which no fold can hold out and know; give each two or more")
    over_images = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=as_seed(seed)).split(
        first, classes[first]
    )
    folds = [
        (np.flatnonzero(np.isin(images, train)), np.flatnonzero(np.isin(images, test))) for train, test in over_images
    ]
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Singular matrix|Ill-conditioned matrix")
        predicted = cross_val_predict(probe, Z, classes, cv=folds)
    right = np.bincount(images, weights=predicted == classes)
    return right > np.bincount(images) / 2


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share, each limit in percent (Wilson, 1927)."""
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return 100 * float(centre - half), 100 * float(centre + half)


def probe_columns(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None, seed: int = 0
) -> dict[str, float | str]:
    """The probe's columns of a row: ``probe_accuracy`` with its interval (percent), and ``probe_hits``.

    Empty when a class has a single image.
    """
    try:
        hits = probe_hits(Z, labels, image_ids=image_ids, seed=seed)
    except SingleImageError:
        return {}
    low, high = wilson_interval(int(hits.sum()), len(hits))
    accuracy = 100 * float(hits.mean())
    return {"probe_accuracy": accuracy, "probe_low": low, "probe_high": high, "probe_hits": packed(hits)}


def packed(hits: NDArray[np.bool_]) -> str:
    """Hits as text: their number, then their bits as hexadecimal digits."""
    return f"{len(hits)}:{np.packbits(hits).tobytes().hex()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The hits that ``packed`` wrote."""
    count, digits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=int(count)).astype(bool)
