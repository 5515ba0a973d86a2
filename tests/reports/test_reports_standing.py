"""Differences between scores, and their ranks, against formulas written out and in simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.statistics.bootstrap import Resamples, influence_on_spearman, small_sample
from dsmi_zoo.reports.statistics.correlation import Bootstraps
from dsmi_zoo.reports.statistics.sample import static_rankers
from dsmi_zoo.reports.statistics.standing import (
    differences,
    simultaneous_reach,
    standings_for,
    strength,
)

pytestmark = pytest.mark.long

Array = np.ndarray
SCORES = ("dsmi_z_y", "dse_z", "logme", "h_score", "rankme")


def zoo(
    noise: dict[str, float], families: int = 20, size: int = 3, seed: int = 0, **columns: float
) -> pd.DataFrame:
    """Return rows whose scores and further columns are accuracy plus noise of the given standard deviation."""
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(families), size)
    quality = rng.normal(size=families)[family] + rng.normal(size=len(family))
    frame = pd.DataFrame(
        {"model": [f"m{i}" for i in range(len(family))], "family": [f"f{f}" for f in family]}
    )
    frame = frame.assign(
        architecture=frame["model"], status="ok", img_size=224, top1=60 + 5 * quality
    )
    for name, spread in (noise | columns).items():
        frame[name] = quality + spread * rng.normal(size=len(family))
    return rows_frame(frame.to_dict("records"))


def test_a_difference_is_tested_on_fishers_scale_with_the_middle_of_the_resamples() -> None:
    rows = zoo({"dsmi_z_y": 1.0, "logme": 0.7})
    family = pd.factorize(rows["family"])[0]
    resamples = Resamples.drawn(family, 400, seed=0)
    top1, pair = rows["top1"].to_numpy(), ("logme", "dsmi_z_y")
    a, b = (np.arctanh(resamples.spearman(rows[name].to_numpy(), top1)) for name in pair)
    za, zb = (np.arctanh(stats.spearmanr(rows[name], top1).statistic) for name in pair)
    low, high = np.quantile(a - b, stats.norm.cdf([-1, 1]))
    found = differences(rows, "top1", "dsmi_z_y", Bootstraps(400))["logme"]
    assert found.value == pytest.approx(np.tanh(za) - np.tanh(zb))
    of_each = [
        influence_on_spearman(rows[name].to_numpy(), rows["top1"].to_numpy())
        for name in ("logme", "dsmi_z_y")
    ]
    small = small_sample(family, of_each[0] - of_each[1])
    error = small.scale * (high - low) / 2
    assert found.p == pytest.approx(2 * stats.t.sf((za - zb) / error, small.degrees), rel=1e-3)
    assert found.ci is not None
    assert (found.ci[0] > 0 or found.ci[1] < 0) == (found.p < 0.05)


def test_a_score_of_opposite_sign_is_as_strong_as_its_mirror_image() -> None:
    rows = zoo({"dsmi_z_y": 1.0, "logme": 0.3})
    rows["h_score"] = -rows["logme"]
    found = differences(rows, "top1", "dsmi_z_y", Bootstraps(200))
    assert found["h_score"].value == pytest.approx(found["logme"].value)
    assert found["h_score"].p == pytest.approx(found["logme"].p)
    both = standings_for(rows, "top1", Bootstraps(200)).scores
    assert both is not None
    assert both["h_score"].ranks == both["logme"].ranks
    assert both["h_score"].rank == both["logme"].rank == 1


def test_ranks_span_the_scores_that_cannot_be_told_apart() -> None:
    rows = zoo({"logme": 0.1, "h_score": 0.1, "dsmi_z_y": 3.0, "dse_z": 3.0}, families=60)
    found = standings_for(rows, "top1", Bootstraps(500))
    assert found.scores is not None
    of_interest = {
        name: found.scores[name].ranks for name in ("logme", "h_score", "dsmi_z_y", "dse_z")
    }
    assert of_interest == {"logme": (1, 2), "h_score": (1, 2), "dsmi_z_y": (3, 4), "dse_z": (3, 4)}
    assert found.best in ("logme", "h_score")
    best = found.scores[found.best]
    assert (best.behind_best, best.behind_best_ci) == (0, (0, 0))
    for standing in found.scores.values():
        assert standing.ranks[0] <= standing.rank <= standing.ranks[1]
        assert standing.behind_best_ci[0] <= standing.behind_best <= standing.behind_best_ci[1]


def test_a_score_is_held_against_the_best_ranker_that_looks_at_no_image() -> None:
    rows = zoo(
        {"logme": 0.1, "dsmi_z_y": 2.0, "log10_params": 1.0, "log10_gmacs": 3.0}, families=60
    )
    rows = rows.assign(log10_params=rows["log10_params"].astype(float))
    found = standings_for(rows, "top1", Bootstraps(500))
    assert found.static == "log10_params"
    assert found.scores is not None
    better, worse = (
        found.scores["logme"].beyond_static_ci,
        found.scores["dsmi_z_y"].beyond_static_ci,
    )
    assert better is not None
    assert better[0] > 0
    assert worse is not None
    assert worse[0] < 0
    assert found.scores["log10_params"].beyond_static_ci is None


def test_published_accuracy_is_a_ranker_for_targets_that_are_something_else() -> None:
    assert "top1" in static_rankers("robustness_top1")
    for target in ("top1", "top5", "real_top1", "v2_top1"):
        assert "top1" not in static_rankers(target)


def test_a_score_that_few_models_have_does_not_shrink_the_sample() -> None:
    rows = zoo({"dsmi_z_y": 1.0, "logme": 1.0, "h_score": 1.0})
    rows.loc[10:, "h_score"] = None
    found = standings_for(rows, "top1", Bootstraps(100))
    assert found.n == len(rows)
    assert found.left_out is not None
    assert found.left_out["h_score"] == "known for 10 of 60 models"
    few = standings_for(rows.iloc[:9], "top1", Bootstraps(100))
    assert few.scores is None
    assert "fewer than" in (few.reason or "")
    one = standings_for(zoo({"dsmi_z_y": 1.0, "logme": 0.7}, families=1), "top1", Bootstraps())
    assert (one.reason or "").startswith("1 independent unit, fewer than ")


def test_no_difference_of_equally_good_scores_is_seen_in_19_of_20_zoos() -> None:
    family = np.repeat(np.arange(24), 3)
    wrong, zoos = 0, 120
    for seed in range(zoos):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=24)[family] + rng.normal(size=72)
        resamples = Resamples.drawn(family, 300, seed)
        found = []
        for _ in range(6):
            x = y + rng.normal(size=24)[family] + rng.normal(size=72)
            found.append(strength(x, y, resamples))
        z = np.array([one.z for one in found])
        reach = simultaneous_reach(found, family)
        wrong += bool((np.abs(z[:, None] - z) > reach)[np.triu_indices(6, 1)].any())
    assert wrong / zoos < 0.1
