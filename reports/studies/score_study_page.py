"""The study of scores on the page: its answer, its figure and its tables."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsmi_zoo._util.text import counted

from ..figures.canvas import COLOURS, MARKERS, STYLE, Rendered, legend, render
from ..page.parts import AnyCell, Illustration, Section, Table, table_of_words
from ..page.rendering import prose
from ..wording import MISSING, fixed, interval, measure_title, p_value
from .score_verdicts import CANDIDATES, CHOSEN_ON, RIVALS, ScoreStudyResult

TITLES = {
    "log10_params": "Parameters (no image)",
    "log10_budget": "Training budget (no image)",
    "source_top1": "Top-1 on the training data (no image)",
}


def score_study_section(result: ScoreStudyResult) -> Section:
    """Return the section of ``validate``'s page."""
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
        "linear probe."
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
