"""Claims of others, tested on the rows of the study of scores: the rules declared in docs/replications.md."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dsmi_zoo._util.text import counted

from ..page.rendering import AnyCell, Section, prose, table_of_words
from ..statistics.bootstrap import LEVEL, RESAMPLES, middle_error, quietly
from ..wording import fixed, interval, measure_title
from .claims import Answer, Claim, undecided
from .score_verdicts import Setting, fisher_z, simultaneous_quantile

Array = np.ndarray
OWN = ("digits", "fashion")
PROBES = ("digits to fashion, probe", "fashion to digits, probe")
TRANSFERS = (*PROBES, "digits to fashion, fine-tuned", "fashion to digits, fine-tuned")
NEIGHBOURS = "neighbour_accuracy"
RIVALS = (
    "logme", "h_score", "transrate", "n_leep", "gbc", "sfda", "parc", "nce", "leep", "pactran_gauss",
)  # fmt: skip
STATIC = "source_top1"
CORRELATES = 0.4  # half of what the sources report
SUFFICES = 0.1  # in Fisher's z: 0.05 in rho, for a rho near 0.7


@dataclass(frozen=True)
class Estimate:
    """A quantity of a claim: its value over all networks, and in every resample of architectures, [b]."""

    name: str
    value: float
    drawn: Array


@dataclass(frozen=True)
class ClaimQuantity:
    """A quantity of a claim with its simultaneous interval."""

    name: str
    value: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class Replication:
    """A claim and its answer; ``left_out`` are scores without a value for some network."""

    claim: Claim
    quantities: list[ClaimQuantity]
    left_out: list[str]


@quietly()
def replicate(rows: Mapping[str, pd.DataFrame], resamples: int = RESAMPLES) -> list[Replication]:
    """Answer all claims from the rows of the six settings, as ``study_scores`` takes them."""
    settings = {name: Setting(name, of, resamples) for name, of in rows.items()}
    return [
        _mst_dimension(settings),
        _neighbours(settings),
        _static_ranking(settings),
        _effective_dimension(settings),
        _rankme(settings, "budget", _within_budgets),
        _rankme(settings, "architecture", _within_architectures),
    ]


def decide(
    claim: str,
    what: str,
    estimates: Sequence[Estimate],
    bound: float,
    *,
    seeds: int,
    architectures: int,
    above: bool = True,
    shown: Callable[[Any], Any] = lambda value: value,
) -> tuple[Claim, list[ClaimQuantity]]:
    """Decide whether all quantities are beyond a bound, by simultaneous 95% intervals.

    The claim holds if every interval is beyond the bound, and does not hold here if one is wholly on the other side.
    Its statistic is the quantity that decides.

    Parameters
    ----------
    bound
        The bound, on the scale of ``shown``.
    above
        Whether "beyond" means above the bound.
    shown
        Increasing function that converts quantities to the scale on which they are reported.
    """
    t = float(stats.t(architectures - 1).ppf(0.5 + LEVEL / 2))
    quantile = max(t, simultaneous_quantile([e.drawn - e.value for e in estimates]))
    quantities = []
    for estimate in estimates:
        half = quantile * middle_error(estimate.drawn)
        ci = float(shown(estimate.value - half)), float(shown(estimate.value + half))
        quantities.append(ClaimQuantity(estimate.name, float(shown(estimate.value)), ci))
    sign = 1 if above else -1
    near, far = (0, 1) if above else (1, 0)
    answer: Answer = "cannot tell"
    deciding = min(quantities, key=lambda q: sign * q.ci[near])
    if sign * deciding.ci[near] > sign * bound:
        answer = "holds"
    else:
        against = min(quantities, key=lambda q: sign * q.ci[far])
        if sign * against.ci[far] < sign * bound:
            answer, deciding = "does not hold here", against
    rule = f"every simultaneous 95% interval is {'above' if above else 'below'} {bound:g}"
    what = f"{what}; {deciding.name}"
    decided = Claim(claim, answer, deciding.value, deciding.ci, None, seeds, what, rule)
    return decided, quantities


def _replication(
    claim: str,
    what: str,
    settings: Iterable[Setting],
    estimates: Sequence[Estimate],
    bound: float,
    left_out: Sequence[str] = (),
    **how: Any,
) -> Replication:
    first = next(iter(settings))
    seeds = len(first.of_seeds)
    if not estimates:
        why = f"no value for some network: {', '.join(map(measure_title, left_out))}"
        return Replication(undecided(claim, why, what, seeds), [], list(left_out))
    decided, quantities = decide(
        claim, what, estimates, bound, seeds=seeds, architectures=first.architectures, **how
    )
    return Replication(decided, quantities, list(left_out))


def _on_fishers_scale(setting: Setting, correlation: tuple[float, Array]) -> Estimate:
    value, drawn = map(fisher_z, correlation)
    return Estimate(setting.name, float(value), drawn)


def _mst_dimension(settings: Mapping[str, Setting]) -> Replication:
    asked = [settings[name] for name in (*OWN, *PROBES)]
    known = all(setting.knows("mst_dimension") for setting in asked)
    estimates = [_on_fishers_scale(of, of.correlations("mst_dimension")) for of in asked if known]
    return _replication(
        "MST dimension predicts accuracy, lower is better (2606.03338)",
        "rho of MST dimension with the target",
        asked,
        estimates,
        -CORRELATES,
        [] if known else ["mst_dimension"],
        above=False,
        shown=np.tanh,
    )


def _neighbours(settings: Mapping[str, Setting]) -> Replication:
    asked = [settings[name] for name in TRANSFERS]
    rivals, left_out = _known(RIVALS, asked)
    return _replication(
        "Nearest neighbours surpass transferability metrics (2503.18528)",
        "z of 10 nearest neighbours less that of a rival, mean over transfers",
        asked,
        [_difference(asked, NEIGHBOURS, rival, rival) for rival in rivals],
        0.0,
        left_out,
    )


def _static_ranking(settings: Mapping[str, Setting]) -> Replication:
    asked = [settings[name] for name in TRANSFERS]
    scores, left_out = _known((NEIGHBOURS, *RIVALS), asked)
    return _replication(
        "A static ranking suffices (2510.06448)",
        "z of a score less that of top-1 on the training data, mean over transfers",
        asked,
        [_difference(asked, score, STATIC, score) for score in scores],
        SUFFICES,
        left_out,
        above=False,
    )


def _effective_dimension(settings: Mapping[str, Setting]) -> Replication:
    asked = [settings[name] for name in OWN]
    estimates = [
        _on_fishers_scale(of, of.partial("participation_ratio", ["log10_params"])) for of in asked
    ]
    return _replication(
        "Effective dimension predicts accuracy given capacity (2602.00130)",
        "partial rho of participation ratio and top-1 given parameters",
        asked,
        estimates,
        CORRELATES,
        shown=np.tanh,
    )


def _rankme(
    settings: Mapping[str, Setting],
    group: str,
    within: Callable[[Setting, str], tuple[float, Array]],
) -> Replication:
    asked = [settings[name] for name in OWN]
    estimates = []
    for setting in asked:
        (value, drawn), (across, across_drawn) = (
            within(setting, "rankme"),
            setting.correlations("rankme"),
        )
        estimates.append(Estimate(setting.name, value - across, drawn - across_drawn))
    return _replication(
        f"RankMe predicts better within one {group} than across all (2210.02885)",
        f"mean rho within one {group} less rho over all networks",
        asked,
        estimates,
        0.0,
    )


def _known(scores: Sequence[str], asked: Sequence[Setting]) -> tuple[list[str], list[str]]:
    """Return the scores with values for all networks of these settings, and those with values for only some."""
    there = [score for score in scores if any(setting.has(score) for setting in asked)]
    known = [score for score in there if all(setting.knows(score) for setting in asked)]
    return known, [score for score in there if score not in known]


def _difference(asked: Sequence[Setting], score: str, from_: str, name: str) -> Estimate:
    """Return the mean over settings of z of a score minus z of another; resamples are the same in all settings."""
    values, draws = [], []
    for setting in asked:
        (z, drawn), (other_z, other_drawn) = (
            map(fisher_z, setting.correlations(of)) for of in (score, from_)
        )
        values.append(z - other_z)
        draws.append(drawn - other_drawn)
    return Estimate(measure_title(name), float(np.mean(values)), np.mean(draws, axis=0))


def _within_budgets(setting: Setting, score: str) -> tuple[float, Array]:
    """Return the mean over training budgets of the score's rho among architectures, overall and in every resample."""
    rows = pd.concat(setting.of_seeds)
    found = [
        Setting(setting.name, part, len(setting.resamples.counts)).correlations(score)
        for _, part in rows.groupby("log10_budget")
    ]
    values, draws = zip(*found, strict=True)
    return float(np.mean(values)), np.mean(draws, axis=0)


def _within_architectures(setting: Setting, score: str) -> tuple[float, Array]:
    """Return the mean over architectures of the score's rho among their budgets, overall and in every resample."""
    unit, of_seeds = setting.resamples.unit, []
    for x, y in zip(setting.columns(score), setting.targets, strict=True):
        members = [np.flatnonzero(unit == number) for number in range(setting.architectures)]
        of_seeds.append([_rho(x[rows], y[rows]) for rows in members])
    rhos = np.nanmean(of_seeds, axis=0)
    defined = np.isfinite(rhos)
    weights = setting.resamples.counts[:, defined]
    return float(rhos[defined].mean()), (weights @ rhos[defined]) / weights.sum(axis=1)


def _rho(x: Array, y: Array) -> float:
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def replications_section(found: Sequence[Replication]) -> Section:
    """Return the section on claims of others for ``validate``'s page."""
    seeds = counted(max(of.claim.seeds for of in found), "seed")
    answers: list[list[AnyCell]] = []
    details: list[list[AnyCell]] = []
    for of in found:
        claim = of.claim
        statistic = (fixed(claim.statistic), interval(claim.ci))
        answers.append(
            [claim.claim, claim.answer, statistic, f"{claim.what}; holds if {claim.rule}"]
        )
        for quantity in of.quantities:
            value = (fixed(quantity.value), interval(quantity.ci))
            details.append([claim.claim, quantity.name, value])
    left_out = dict.fromkeys(measure_title(score) for of in found for score in of.left_out)
    tables = [
        table_of_words(
            None,
            ["Claim", "Answer", "Deciding quantity", "Which, and the rule"],
            answers,
            text_columns=(0, 1, 3),
            note=f"Left out, without a value for some network: {', '.join(left_out)}."
            if left_out
            else "",
            wordy=True,
        ),
        table_of_words(
            "All quantities, with simultaneous 95% intervals",
            ["Claim", "Quantity", "Value"],
            details,
            text_columns=(0, 1),
        ),
    ]
    return Section("replications", "Claims of others", prose("replications", seeds=seeds), tables)
