"""The study of scores in words: its answer, its picture and its tables."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsmi_zoo._util.text import counted

from ..figures.scatter import COLOURS, MARKERS, STYLE, Rendered, legend, render
from ..page.parts import Illustration, Section, Table, table_of_words
from ..page.rendering import prose
from ..wording import MISSING, fixed, interval, measure_title, p_value
from .score_study import CANDIDATES, CHOSEN_ON, RIVALS, ScoreInSetting, ScoreStudyResult

TITLES = {
    "log10_params": "Parameters (no image)",
    "log10_budget": "Training budget (no image)",
    "source_top1": "Top-1 on the training data (no image)",
}


Cells = list[str | tuple[str, str]]
"""A row of a table; a pair is a number and its interval."""


def score_study_section(result: ScoreStudyResult) -> Section:
    """The section of ``validate``'s page."""
    words = prose(
        "scores",
        answer=" ".join(answer(result)),
        networks=counted(result.models, "network"),
        seeds=counted(result.seeds, "seed"),
    )
    return Section(
        "scores",
        "Which score predicts best?",
        words,
        [_verdicts(result), _correlations(result), _own_parts(result)],
        [Illustration("scores", picture(result), prose("scores_figure"))],
    )


def answer(result: ScoreStudyResult) -> list[str]:
    """What the study says, in sentences."""
    recommended = result.recommended()
    if recommended:
        titles = " and ".join(measure_title(name) for name in recommended)
        said = [
            f"{titles}: as good as 10 nearest neighbours and nearest centre wherever it was not chosen."
        ]
    else:
        said = [
            "No DSMI is as good as 10 nearest neighbours and nearest centre in every setting that it was not chosen "
            "on: with labels, use those or a linear probe."
        ]
    best = [
        f"{_title(score.score)} in {name} ({fixed(score.rho)})"
        for name, score in result.best().items()
    ]
    said.append(f"Best: {'; '.join(best)}.")
    return said


def picture(result: ScoreStudyResult) -> Rendered:
    """Every score's mean rho in every setting."""
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
            axes.plot(
                [s.rho for s in scores],
                [place[s.score] for s in scores],
                linestyle="",
                markersize=5,
                **style,
            )
            handles.append(Line2D([], [], linestyle="none", markersize=6, label=setting, **style))
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.set_yticks(range(len(order)), [_title(name) for name in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set_xlabel("Spearman's rho with the target, mean over seeds")
        legend(figure, handles)
        names = ", ".join(_title(name) for name in order[::-1][:3])
        return render(
            figure,
            f"Mean rho of {len(order)} scores in {len(settings)} settings; highest: {names}.",
        )


def _by_mean(result: ScoreStudyResult) -> list[str]:
    """The scores, the greatest mean rho over their settings first."""
    of: dict[str, list[float]] = {}
    for score in result.scores:
        of.setdefault(score.score, []).append(score.rho)
    return sorted(of, key=lambda name: -float(np.mean(of[name])))


def _verdicts(result: ScoreStudyResult) -> Table:
    by_names = {(c.candidate, c.setting, c.rival): c for c in result.comparisons}
    rows: list[Cells] = []
    for candidate in CANDIDATES:
        for setting in result.best():
            cells: Cells = [measure_title(candidate), setting]
            for rival in RIVALS:
                compared = by_names[candidate, setting, rival]
                cells += [(fixed(compared.difference), interval(compared.ci)), compared.verdict]
            cells.append("chosen on it" if setting in CHOSEN_ON.get(candidate, ()) else "")
            rows.append(cells)
    heads = ["Candidate", "Setting"]
    for rival in RIVALS:
        heads += [f"z less that of {measure_title(rival)}", "Verdict"]
    return table_of_words(
        "DSMI against its rivals", [*heads, "Note"], rows, text_columns=(0, 1, 3, 5, 6)
    )


def _correlations(result: ScoreStudyResult) -> Table:
    settings = list(result.best())
    by_names = {(score.score, score.setting): score for score in result.scores}
    rows = []
    for name in _by_mean(result):
        cells = [_cell(by_names.get((name, setting))) for setting in settings]
        rows.append([_title(name), *cells])
    return table_of_words(
        "Mean rho and 95% interval over architectures; * is not told from the best",
        ["Score", *settings],
        rows,
    )


def _cell(score: ScoreInSetting | None) -> str | tuple[str, str]:
    if score is None:
        return MISSING
    return fixed(score.rho) + ("*" if score.tied_with_best else ""), interval(score.ci)


def _own_parts(result: ScoreStudyResult) -> Table:
    rows: list[Cells] = [
        [
            measure_title(part.score),
            part.setting,
            (fixed(part.rho), interval(part.ci)),
            p_value(part.p_holm),
        ]
        for part in result.own_parts
    ]
    heads = ["Score", "Setting", "Partial rho given both rivals", "p (Holm)"]
    return table_of_words("What a score tells beyond both rivals", heads, rows, text_columns=(0, 1))


def _title(name: str) -> str:
    return TITLES.get(name) or measure_title(name)
