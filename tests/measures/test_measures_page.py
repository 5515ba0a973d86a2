"""The claims of ``docs/measures.md`` on published code, limits and scale, checked against that code and ours."""

import inspect

import numpy as np
import pytest
from by_name import value_of
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from dsmi_zoo.pipeline.measures.core.context import MAX_IMAGES, MeasureContext
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings

CLASSES, WIDTH = 10, 64


def embedding(
    seed: int = 0,
    sizes: tuple[int, ...] = (30,) * CLASSES,
    d: int = WIDTH,
    signal: float = 0.5,
    decay: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Return Gaussian classes whose variances fall by a power of the dimension, in a random basis, with an offset."""
    rng = np.random.default_rng([11, seed])
    y = np.repeat(np.arange(len(sizes)), sizes)
    axes = np.arange(1, d + 1) ** -decay
    Z = axes * rng.normal(size=(len(y), d)) + signal * axes * rng.normal(size=(len(sizes), d))[y]
    return Z @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 0.2, y


def several() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return 24 embeddings that differ in signal and spectrum."""
    rng = np.random.default_rng(0)
    return [
        embedding(seed, d=128, signal=rng.uniform(0.2, 1.5), decay=rng.uniform(0, 1.2))
        for seed in range(24)
    ]


# TransRate


def coding_rate(Z: np.ndarray, eps: float = 1e-4) -> float:
    n, d = Z.shape
    return 0.5 * np.linalg.slogdet(np.eye(d) + Z.T @ Z / (n * eps))[1]


def published_transrate(Z: np.ndarray, y: np.ndarray, *, scaled: bool) -> float:
    """Return TransRate by the authors' listing, or ``scaled`` first as in their code."""
    if scaled:
        Z = Z / np.sqrt(np.trace(Z @ Z.T))
    Z = Z - Z.mean(axis=0, keepdims=True)
    of_classes = [coding_rate(Z[y == c]) for c in range(y.max() + 1)]
    return coding_rate(Z) - float(np.mean(of_classes))


UNEQUAL = (5, 5, 5, 5, 10, 10, 20, 40, 80, 120)


def test_transrate_is_the_listing_for_equal_classes_and_weights_unequal_ones() -> None:
    Z, y = embedding()
    assert value_of("transrate", Z, y) == pytest.approx(published_transrate(Z, y, scaled=False))
    Z, y = embedding(sizes=UNEQUAL)
    more = published_transrate(Z, y, scaled=False) - value_of("transrate", Z, y)
    assert more == pytest.approx(72, abs=1)


def test_networks_are_ordered_much_as_by_the_code_that_scales_transrate_first() -> None:
    pairs = [
        (value_of("transrate", *one), published_transrate(*one, scaled=True)) for one in several()
    ]
    assert spearmanr(pairs).statistic == pytest.approx(0.94, abs=0.02)


def test_a_tenth_of_the_scale_reorders_sfda_and_hardly_transrate() -> None:
    some = several()
    agreement = {
        name: spearmanr(
            [(value_of(name, Z, y), value_of(name, Z / 10, y)) for Z, y in some]
        ).statistic
        for name in ("sfda", "transrate")
    }
    assert agreement == pytest.approx({"sfda": 0.75, "transrate": 0.98}, abs=0.03)


# LogME


def copied_logme(f: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the evidence at the fixed point of the authors' code and the term it lacks, as means over classes."""
    n, d = f.shape
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    sigma = s**2
    found = []
    for c in range(y.max() + 1):
        target = (y == c).astype(float)
        x2 = (u.T @ target) ** 2
        res_x2 = (target**2).sum() - x2.sum()
        alpha, beta = 1.0, 1.0
        for _ in range(200):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * x2 / (t + sigma) ** 2).sum()
            res2 = (x2 / (1 + sigma / t) ** 2).sum() + res_x2
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (res2 + 1e-5)
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta)
        evidence -= 0.5 * np.log(alpha + beta * sigma).sum()
        evidence -= beta / 2 * res2 + alpha / 2 * m2 + n / 2 * np.log(2 * np.pi)
        found.append((evidence / n, (d - len(s)) / 2 * np.log(alpha) / n))
    evidence, lacking = np.mean(found, axis=0)
    return float(evidence), float(lacking)


def test_the_copied_logme_lacks_a_term_where_there_are_more_columns_than_rows() -> None:
    Z, y = embedding(sizes=(12,) * 5, d=40, signal=1)
    copied, lacking = copied_logme(Z, y)
    assert lacking == 0
    assert value_of("logme", Z, y) == pytest.approx(copied, abs=1e-3)
    Z, y = embedding(sizes=(12,) * 5, d=200, signal=1)
    copied, lacking = copied_logme(Z, y)
    assert lacking > 5  # nats, most of the value
    assert value_of("logme", Z, y) == pytest.approx(copied - lacking, abs=1e-3)


def test_the_copied_logme_then_follows_the_width_and_ours_does_not() -> None:
    rng = np.random.default_rng(0)
    widths = rng.permutation(np.linspace(80, 400, 12).astype(int))
    ours, copied = [], []
    for seed, d in enumerate(widths):
        Z, y = embedding(seed, sizes=(12,) * 5, d=int(d), signal=rng.uniform(0.2, 1.5))
        ours.append(value_of("logme", Z, y))
        copied.append(copied_logme(Z, y)[0])
    follows = [spearmanr(some, widths).statistic for some in (copied, ours)]
    assert follows == pytest.approx([0.9, 0.16], abs=0.03)


# PACTran-Gauss


def published_pactran(Z: np.ndarray, y: np.ndarray) -> float:
    """Return PACTran by the authors' code: the Hessian of the summed loss, and the trace of its whole diagonal."""
    (n, d), k = Z.shape, y.max() + 1
    X = Z - Z.mean(axis=0)
    fitted = LogisticRegression(C=10, tol=1e-6, max_iter=10_000).fit(X, y)
    p = fitted.predict_proba(X)
    least = -np.mean(np.log(p[np.arange(n), y])) + np.sum(fitted.coef_**2) / (20 * n)
    trace = np.sum((p - p**2).sum(axis=1) * ((X**2).sum(axis=1) + 1)) + k * d / (10 * n)
    return float(least + 5 * k / n * np.log(trace * 10 * n / (k * d)))


def test_pactran_is_the_codes_but_for_the_hessian_of_a_sum_and_depends_on_scale() -> None:
    some = several()
    ours = [value_of("pactran_gauss", *one) for one in some]
    theirs = [published_pactran(*one) for one in some]
    assert spearmanr(ours, theirs).statistic == pytest.approx(0.99, abs=0.01)
    # They differ by about 5 k/n ln n, as far as the 1 inside the logarithm is small.
    assert np.subtract(theirs, ours) == pytest.approx(5 * CLASSES / 300 * np.log(300), rel=0.4)
    smaller = [value_of("pactran_gauss", Z / 10, y) for Z, y in some]
    assert spearmanr(ours, smaller).statistic == pytest.approx(0.95, abs=0.02)


# N-LEEP, CLID, GBC, alpha-ReQ, RankMe


def published_n_leep(Z: np.ndarray, y: np.ndarray) -> float:
    """Return N-LEEP with full covariances instead of diagonal ones."""
    points = PCA(0.8).fit_transform(Z)
    points /= np.sqrt((points**2).mean())
    share = GaussianMixture(5 * CLASSES, random_state=0).fit(points).predict_proba(points)
    by_class = np.stack([share[y == c].sum(axis=0) for c in range(CLASSES)])
    conditional = by_class / np.maximum(by_class.sum(axis=0), 1e-300)
    return float(np.log(np.maximum((conditional[y] * share).sum(axis=1), 1e-10)).mean())


def test_n_leep_orders_as_with_full_covariances() -> None:
    pairs = [(value_of("n_leep", *one), published_n_leep(*one)) for one in several()[:16]]
    assert spearmanr(pairs).statistic == pytest.approx(0.96, abs=0.02)


def test_clid_as_a_product_orders_otherwise_than_the_standardised_sum() -> None:
    found = []
    for Z, _ in several():
        dimension = value_of("two_nn_dimension", Z)
        found.append((value_of("clid", Z), dimension))
    product, dimension = np.array(found).T
    learnability = product / dimension
    total = sum((one - one.mean()) / one.std() for one in (learnability, dimension))
    assert spearmanr(product, total).statistic == pytest.approx(0.86, abs=0.03)


def overlap(components: np.ndarray, y: np.ndarray) -> float:
    """Return GBC by its equation for spherical Gaussians in these components."""
    k = components.shape[1]
    of_classes = [components[y == c] for c in range(y.max() + 1)]
    total = 0.0
    for a, of_a in enumerate(of_classes):
        for b, of_b in enumerate(of_classes):
            v_a, v_b = of_a.var(axis=0).mean(), of_b.var(axis=0).mean()
            apart = ((of_a.mean(axis=0) - of_b.mean(axis=0)) ** 2).sum()
            v = (v_a + v_b) / 2
            total -= (a != b) * np.exp(-apart / (8 * v) - k / 2 * np.log(v / np.sqrt(v_a * v_b)))
    return float(total)


def test_gbc_leaves_out_components_without_variance() -> None:
    Z, y = embedding(signal=0.3)
    low = Z[:, :6] @ np.random.default_rng(1).normal(size=(6, WIDTH))
    components = PCA(WIDTH).fit_transform(low)
    assert value_of("gbc", low, y) == pytest.approx(overlap(components[:, :6], y))
    assert overlap(components, y) - value_of("gbc", low, y) == pytest.approx(55, abs=1)


def published_alpha(Z: np.ndarray, first: int) -> float:
    """Return Stringer's fit from the eigenvalue of index ``first`` to the 100th or the last."""
    eigenvalues = np.linalg.eigvalsh(np.cov(Z.T))[::-1]
    place = np.arange(first, min(100, *Z.shape))
    ones = np.ones(len(place))
    x = np.stack([-np.log(place + 1), ones], axis=1)
    weighted = x / (place + 1)[:, None]
    return float(np.linalg.solve(weighted.T @ x, weighted.T @ np.log(eigenvalues[place]))[0])


def test_alpha_req_orders_as_in_other_ranges_of_eigenvalues() -> None:
    some = [Z for Z, _ in several()]
    ours = [value_of("alpha_req", Z) for Z in some]
    for first, expected in ((10, 1.0), (3, 0.96)):
        theirs = [published_alpha(Z, first) for Z in some]
        assert spearmanr(ours, theirs).statistic == pytest.approx(expected, abs=0.02)


def test_an_offset_takes_rankme_from_61_to_1() -> None:
    Z, _ = embedding(decay=0)
    assert value_of("rankme", Z) == pytest.approx(60.9, abs=0.1)
    assert value_of("rankme", Z + 1000) == pytest.approx(1.08, abs=0.01)


# Points that are left out or merged


def test_of_more_than_4096_images_so_many_give_dimensions_and_pairs() -> None:
    Z = np.random.default_rng(0).normal(size=(5000, 2))
    context = MeasureContext(Z, np.arange(5000) % 3, None, None, MeasureSettings())
    assert MAX_IMAGES == 4096
    assert len(np.unique(context.some_first_rows)) == 4096


@pytest.mark.parametrize(("apart", "left"), [(0.5e-6, 60), (2e-6, 61)])
def test_rows_within_a_millionth_of_the_typical_distance_count_once(
    apart: float, left: int
) -> None:
    Z = np.random.default_rng(0).normal(size=(60, 4))
    typical = np.sqrt(np.mean(np.sum((Z[:, None] - Z) ** 2, axis=2)))
    near = Z[:1] + apart * typical / 2  # a distance of apart * typical over four columns
    context = MeasureContext(np.concatenate([Z, near]), None, None, None, MeasureSettings())
    assert len(context.different_image_points) == left


def test_the_authors_package_subsamples_and_has_a_sigma_of_10() -> None:
    dse = pytest.importorskip("dse_dsmi.dse")
    defaults = inspect.signature(dse.diffusion_spectral_entropy).parameters
    assert defaults["gaussian_kernel_sigma"].default == 10
    assert defaults["max_N"].default == 10_000
