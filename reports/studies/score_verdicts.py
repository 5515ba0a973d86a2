"""The study of scores over several zoos and seeds: the statistics declared in docs/score-study.md, and their page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES

from ..figures.canvas import COLOURS, MARKERS, STYLE, Rendered, legend, render
from ..page.rendering import AnyCell, Illustration, Section, Table, prose, table_of_words
from ..statistics.bootstrap import LEVEL, RESAMPLES, Resamples, middle_error, quietly
from ..statistics.correlation import holm, residuals
from ..statistics.sample import CEILING, OF_CLASSIFIER, sign_of, values
from ..wording import MISSING, fixed, interval, measure_title, p_value

CANDIDATES = ("dsmi_z_y", "dsmi_z_y_scale_free", "dsmi_z_y_angular")
RIVALS = ("neighbour_accuracy", "centre_accuracy")
PARTIAL_SCORES = ("dse_z", "dsmi_z_y", "dsmi_z_y_angular")
CHOSEN_ON = {"dsmi_z_y_scale_free": ("digits",), "dsmi_z_y_angular": ("digits",)}
STATIC = ("log10_params", "embedding_dim", "log10_budget", "source_top1")
MARGIN = 0.05  # the loss of rho that "as good as" allows
NEARLY_ONE = 1 - 1e-9

Verdict = Literal["better", "as good as", "worse", "cannot tell"]
Array = np.ndarray


@dataclass(frozen=True)
class ScoreInSetting:
    """Mean over seeds of a score's Spearman correlation with the target, and its 95% interval over architectures.

    ``from_best`` is the simultaneous interval of Fisher's z of the setting's best score minus that of this one.
    """

    score: str
    setting: str
    rho: float
    ci: tuple[float, float]
    from_best: tuple[float, float]

    @property
    def tied_with_best(self) -> bool:
        """Whether it may be as good as the best score."""
        return self.from_best[0] <= 0


@dataclass(frozen=True)
class RivalComparison:
    """A candidate against a rival in a setting: the difference of Fisher's z and its simultaneous interval."""

    candidate: str
    rival: str
    setting: str
    difference: float
    ci: tuple[float, float]
    verdict: Verdict

    @property
    def counts(self) -> bool:
        """Whether the verdict counts, because the candidate was not chosen on this setting."""
        return self.setting not in CHOSEN_ON.get(self.candidate, ())


@dataclass(frozen=True)
class PartialRho:
    """The partial rank correlation of a score and the target given both rivals, with Holm's p over all of them."""

    score: str
    setting: str
    rho: float
    ci: tuple[float, float]
    p_holm: float


@dataclass(frozen=True)
class ScoreStudyResult:
    """The results of the study; ``left_out`` has the scores without a value for some network, by setting."""

    seeds: int
    models: int
    scores: list[ScoreInSetting]
    comparisons: list[RivalComparison]
    own_parts: list[PartialRho]
    left_out: dict[str, list[str]]

    def recommended(self) -> list[str]:
        """Return the candidates that are better or as good as both rivals wherever they were not chosen."""
        candidates = []
        for candidate in CANDIDATES:
            counted = [c for c in self.comparisons if c.candidate == candidate and c.counts]
            verdicts = [comparison.verdict for comparison in counted]
            if verdicts and all(verdict in ("better", "as good as") for verdict in verdicts):
                candidates.append(candidate)
        return candidates

    def best(self) -> dict[str, ScoreInSetting]:
        """Return the score with the greatest mean rho in each setting."""
        best: dict[str, ScoreInSetting] = {}
        for score in self.scores:
            if score.setting not in best or score.rho > best[score.setting].rho:
                best[score.setting] = score
        return best


class Setting:
    """One zoo with one target, over seeds: the correlations of scores with the target, in every resample.

    Parameters
    ----------
    name
        The name on the page.
    rows
        One row per network and seed, with the columns ``seed``, ``model``, ``architecture``, ``target`` and the scores.
    resamples
        How often architectures are drawn.
    """

    def __init__(self, name: str, rows: pd.DataFrame, resamples: int) -> None:
        self.name = name
        self.of_seeds = [part.sort_values("model") for _, part in rows.groupby("seed")]
        architectures = pd.factorize(self.of_seeds[0]["architecture"])[0]
        self.architectures = int(architectures.max()) + 1
        self.resamples = Resamples.drawn(architectures, resamples, seed=0)
        self.targets = [values(part, "target") for part in self.of_seeds]

    def columns(self, score: str) -> list[Array]:
        """Return a score's values for the networks of each seed, signed so that more is better."""
        return [sign_of(score) * values(part, score) for part in self.of_seeds]

    def knows(self, score: str) -> bool:
        """Return whether the score has a value for every network, and varies."""
        columns = self.columns(score)
        return all(np.isfinite(column).all() and np.ptp(column) > 0 for column in columns)

    def correlations(self, score: str) -> tuple[float, Array]:
        """Return the mean over seeds of Spearman's rho, overall and in every resample, [b]."""
        pairs = list(zip(self.columns(score), self.targets, strict=True))
        value = np.mean([stats.spearmanr(x, y).statistic for x, y in pairs])
        drawn = np.nanmean([self.resamples.spearman(x, y) for x, y in pairs], axis=0)
        return float(value), drawn

    def has(self, score: str) -> bool:
        """Return whether any network of any seed has a value."""
        return any(np.isfinite(column).any() for column in self.columns(score))

    def partial(self, score: str, given: Sequence[str]) -> tuple[float, Array]:
        """Return the partial correlation given the ranks of other scores, in the form of `correlations`."""
        rhos, drawn = [], []
        given_of_seeds = zip(*(self.columns(other) for other in given), strict=True)
        for x, y, others in zip(self.columns(score), self.targets, given_of_seeds, strict=True):
            design = np.column_stack([np.ones(len(x)), *map(stats.rankdata, others)])
            left_x, left_y = (residuals(stats.rankdata(column), design) for column in (x, y))
            rhos.append(np.corrcoef(left_x, left_y)[0, 1])
            drawn.append(self._partial_in_resamples([x, y, *others]))
        return float(np.mean(rhos)), np.nanmean(drawn, axis=0)

    def _partial_in_resamples(self, columns: Sequence[Array]) -> Array:
        """Return the partial rank correlation of the first two columns given the others, refitted in each resample."""
        size = len(columns)
        matrices = np.tile(np.eye(size), (len(self.resamples.counts), 1, 1))
        for i in range(size):
            for j in range(i):
                rho = self.resamples.spearman(columns[i], columns[j])
                matrices[:, i, j] = matrices[:, j, i] = rho
        # The partial correlation is minus the scaled entry of the inverse.
        defined = np.isfinite(matrices).all(axis=(1, 2))
        inverse = np.full_like(matrices, np.nan)
        inverse[defined] = np.linalg.pinv(matrices[defined], hermitian=True)
        scale = np.sqrt(inverse[:, 0, 0] * inverse[:, 1, 1])
        return np.clip(-inverse[:, 0, 1] / scale, -1, 1)


@quietly()
def study_scores(rows: Mapping[str, pd.DataFrame], resamples: int = RESAMPLES) -> ScoreStudyResult:
    """Compute all results of the study.

    Parameters
    ----------
    rows
        For each setting one row per network and seed: ``seed``, ``model``, ``architecture``, ``target`` (percent), the
        columns of a row, and the static rankers.
    resamples
        How often architectures are drawn.

    References
    ----------
    The declaration in ``docs/score-study.md``; Holm (1979); Romano and Wolf (2005) for intervals by the greatest
    deviation of a resample.
    """
    settings = [Setting(name, of, resamples) for name, of in rows.items()]
    names = [score.name for score in (*MEASURES, *COMPARISONS)]
    names += [name for name in OF_CLASSIFIER if name != CEILING]
    names += STATIC
    in_settings, comparisons, left_out = [], [], {}
    deviations = []
    for setting in settings:
        there = [name for name in names if setting.has(name)]
        known = [name for name in there if setting.knows(name)]
        left_out[setting.name] = [name for name in there if name not in known]
        z = {name: tuple(map(fisher_z, setting.correlations(name))) for name in known}
        in_settings += _in_setting(setting, z)
        for candidate in CANDIDATES:
            for rival in RIVALS:
                difference = float(z[candidate][0] - z[rival][0])
                drawn = z[candidate][1] - z[rival][1]
                pair = (candidate, rival, setting.name)
                deviations.append((pair, difference, drawn, float(z[rival][0])))
    quantile = simultaneous_quantile([drawn - difference for _, difference, drawn, _ in deviations])
    for pair, difference, drawn, of_rival in deviations:
        half = quantile * middle_error(drawn)
        ci = difference - half, difference + half
        comparisons.append(RivalComparison(*pair, difference, ci, _verdict(ci, of_rival)))
    return ScoreStudyResult(
        seeds=len(settings[0].of_seeds),
        models=len(settings[0].of_seeds[0]),
        scores=in_settings,
        comparisons=comparisons,
        own_parts=_own_parts(settings),
        left_out=left_out,
    )


def _in_setting(setting: Setting, z: Mapping[str, Sequence[Any]]) -> list[ScoreInSetting]:
    best = max(z, key=lambda name: z[name][0])
    behind = {}
    for name, (value, drawn) in z.items():
        behind[name] = float(z[best][0] - value), z[best][1] - drawn
    others = [drawn - lag for name, (lag, drawn) in behind.items() if name != best]
    quantile = simultaneous_quantile(others)
    t = stats.t(setting.architectures - 1).ppf(0.5 + LEVEL / 2)
    scores = []
    for name, (value, drawn) in z.items():
        half, (lag, of_lag) = float(t) * middle_error(drawn), behind[name]
        reach = quantile * middle_error(of_lag)
        ci = float(np.tanh(value - half)), float(np.tanh(value + half))
        from_best = lag - reach, lag + reach
        rho = float(np.tanh(value))
        scores.append(ScoreInSetting(name, setting.name, rho, ci, from_best))
    return scores


def _own_parts(settings: Sequence[Setting]) -> list[PartialRho]:
    parts: dict[tuple[str, str], PartialRho] = {}
    for setting in settings:
        t = stats.t(setting.architectures - 1)
        for score in PARTIAL_SCORES:
            value, drawn = map(fisher_z, setting.partial(score, RIVALS))
            error = middle_error(drawn)
            half = float(t.ppf(0.5 + LEVEL / 2)) * error
            p = float(2 * t.sf(abs(value) / error)) if error > 0 else 1.0
            ci = float(np.tanh(value - half)), float(np.tanh(value + half))
            rho = float(np.tanh(value))
            parts[score, setting.name] = PartialRho(score, setting.name, rho, ci, p)
    adjusted = holm({key: part.p_holm for key, part in parts.items()})
    return [replace(part, p_holm=adjusted[key]) for key, part in parts.items()]


def _verdict(ci: tuple[float, float], z_of_rival: float) -> Verdict:
    low, high = ci
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    loses = np.tanh(z_of_rival) - np.tanh(z_of_rival + low)
    return "as good as" if loses < MARGIN else "cannot tell"


def simultaneous_quantile(deviations: Sequence[Array]) -> float:
    """Return the quantile of the greatest absolute deviation of a resample, in standard errors."""
    in_errors = []
    for drawn in deviations:
        error = middle_error(drawn)
        if error > 0:
            in_errors.append(np.abs(drawn) / error)
    return float(np.nanquantile(np.nanmax(in_errors, axis=0), LEVEL)) if in_errors else 0.0


def fisher_z(rho: Any) -> Any:
    """Return Fisher's transformation, finite for a correlation of 1."""
    return np.arctanh(np.clip(rho, -NEARLY_ONE, NEARLY_ONE))


TITLES = {
    "log10_params": "Parameters (no image)",
    "embedding_dim": "Embedding dimension (no image)",
    "log10_budget": "Training budget (no image)",
    "source_top1": "Top-1 on the training data (no image)",
}


def score_study_section(result: ScoreStudyResult) -> Section:
    """Return the section on scores for ``validate``'s page."""
    words = prose(
        "scores",
        answer=" ".join(answer(result)),
        networks=counted(result.models, "network"),
        seeds=counted(result.seeds, "seed"),
    )
    tables = [_verdict_table(result), _correlation_table(result), _own_part_table(result)]
    figures = [Illustration("scores", picture(result), prose("scores_figure"))]
    return Section("scores", "Which score predicts best?", words, tables, figures)


def answer(result: ScoreStudyResult) -> list[str]:
    """Return the answer of the study in sentences."""
    rivals = "10 nearest neighbours and nearest centre"
    recommended = " and ".join(measure_title(name) for name in result.recommended())
    verdict = (
        f"No DSMI is as good as {rivals} in every setting that it was not chosen on: with labels, use those or a "
        "ridge probe."
    )
    if recommended:
        verdict = f"{recommended}: as good as {rivals} wherever it was not chosen."
    best = [
        f"{_title(score.score)} in {name} ({fixed(score.rho)})"
        for name, score in result.best().items()
    ]
    return [verdict, f"Best: {'; '.join(best)}."]


def picture(result: ScoreStudyResult) -> Rendered:
    """Draw the mean rho of every score in every setting."""
    settings = list(result.best())
    order = _by_mean(result)[::-1]
    place = {name: i for i, name in enumerate(order)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.26 * len(order) + 1.8), layout="constrained")
        axes = figure.add_subplot()
        handles = []
        for number, setting in enumerate(settings):
            scores = [score for score in result.scores if score.setting == setting]
            style: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number]}
            rhos, places = [s.rho for s in scores], [place[s.score] for s in scores]
            axes.plot(rhos, places, linestyle="", markersize=5, **style)
            handles.append(Line2D([], [], linestyle="none", markersize=6, label=setting, **style))
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.set_yticks(range(len(order)), [_title(name) for name in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set_xlabel("Spearman's rho with the target, mean over seeds")
        legend(figure, handles)
        best = ", ".join(_title(name) for name in order[::-1][:3])
        words = f"Mean rho of {len(order)} scores in {len(settings)} settings; highest: {best}."
        return render(figure, words)


def _by_mean(result: ScoreStudyResult) -> list[str]:
    """Return the scores by decreasing mean rho over their settings."""
    rhos: dict[str, list[float]] = {}
    for score in result.scores:
        rhos.setdefault(score.score, []).append(score.rho)
    return sorted(rhos, key=lambda name: -float(np.mean(rhos[name])))


def _verdict_table(result: ScoreStudyResult) -> Table:
    by_names = {(c.candidate, c.setting, c.rival): c for c in result.comparisons}
    rows: list[list[AnyCell]] = []
    for candidate in CANDIDATES:
        for setting in result.best():
            cells: list[AnyCell] = [measure_title(candidate), setting]
            for rival in RIVALS:
                compared = by_names[candidate, setting, rival]
                cells += [(fixed(compared.difference), interval(compared.ci)), compared.verdict]
            cells.append("chosen on it" if setting in CHOSEN_ON.get(candidate, ()) else "")
            rows.append(cells)
    heads = ["Candidate", "Setting"]
    for rival in RIVALS:
        heads += [f"z minus that of {measure_title(rival)}", "Verdict"]
    columns = (0, 1, 3, 5, 6)
    return table_of_words("DSMI and its rivals", [*heads, "Note"], rows, text_columns=columns)


def _correlation_table(result: ScoreStudyResult) -> Table:
    settings = list(result.best())
    by_names = {(score.score, score.setting): score for score in result.scores}
    rows: list[list[AnyCell]] = []
    for name in _by_mean(result):
        cells: list[AnyCell] = [_title(name)]
        for setting in settings:
            score = by_names.get((name, setting))
            if score is None:
                cells.append(MISSING)
            else:
                star = "*" if score.tied_with_best else ""
                cells.append((fixed(score.rho) + star, interval(score.ci)))
        rows.append(cells)
    title = "Mean rho and 95% interval over architectures; * may be tied with the best"
    return table_of_words(title, ["Score", *settings], rows)


def _own_part_table(result: ScoreStudyResult) -> Table:
    heads = ["Score", "Setting", "Partial rho given both rivals", "p (Holm)"]
    rows: list[list[AnyCell]] = []
    for part in result.own_parts:
        rho = (fixed(part.rho), interval(part.ci))
        rows.append([measure_title(part.score), part.setting, rho, p_value(part.p_holm)])
    title = "What a score adds to both rivals"
    return table_of_words(title, heads, rows, text_columns=(0, 1))


def _title(name: str) -> str:
    return TITLES.get(name) or measure_title(name)
