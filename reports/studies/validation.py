"""The page of ``dsmi-zoo validate``: every claim with its answer, and the studies behind it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsmi_zoo._util.text import counted

from ..page.parts import Section, table_of_words
from ..page.rendering import prose
from ..page.training import CurvePage, write_curve_page
from ..wording import p_value, significant, significant_interval
from . import simulation, trainings
from .claims import Claim
from .score_study import study_scores
from .score_study_section import answer, score_study_section

ANSWERS = ("holds", "does not hold here", "cannot tell")


def write_validation_report(
    out: Path,
    studies: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Any],
    record: Mapping[str, Any],
) -> tuple[Path, list[Claim]]:
    """Write ``OUT/report`` and return its page and the claims.

    Parameters
    ----------
    studies
        The settings of each complete study, by its name.
    results
        Of ``simulated`` the cells' rows, of ``dynamics`` the rows of each data set, of ``initialisation`` the rows, of
        ``scores`` the rows of each setting.
    record
        Versions and commit.
    """
    claims: list[Claim] = []
    sections: list[Section] = []
    if "simulated" in results:
        claims += simulation.claims_of(results["simulated"])
        sections.append(simulation.section(results["simulated"]))
    if "dynamics" in results:
        claims += trainings.dynamics_claims(results["dynamics"])
        sections.append(trainings.dynamics_section(results["dynamics"]))
    if "initialisation" in results:
        claims += trainings.initialisation_claims(results["initialisation"])
        sections.append(trainings.initialisation_section(results["initialisation"]))
    study = study_scores(results["scores"]) if "scores" in results else None
    if study is not None:
        sections.append(score_study_section(study))
    small = [name for name, settings in studies.items() if settings["small"]]
    content: dict[str, Any] = {
        "claims": [claim.as_json() for claim in claims],
        "studies": {name: dict(settings) for name, settings in studies.items()},
    }
    if study is not None:
        content["scores"] = asdict(study) | {"recommended": study.recommended()}
    page = CurvePage(
        eyebrow=f"dsmi-zoo validate · {', '.join(studies)}",
        title="Do the paper’s other claims hold here?" if claims else "Which score predicts best?",
        lead=[
            *(_lead_of_claims(claims) if claims else []),
            *(answer(study) if study is not None else []),
            "Each answer follows from a rule that was written down before the first run.",
        ],
        warnings=[f"Of reduced size, to try the command, not to answer: {', '.join(small)}."]
        if small
        else [],
        sections=[*([_claims_section(claims)] if claims else []), *sections],
        content=content,
        provenance=[
            *(
                (f"Time of {name}", f"{settings['seconds']:.0f} s")
                for name, settings in studies.items()
            ),
            (
                "Versions",
                "; ".join(
                    f"{name} {version}" for name, version in record.get("versions", {}).items()
                ),
            ),
            ("Git commit", str(record.get("git_commit") or "unknown")),
        ],
    )
    return write_curve_page(page, out / "report"), claims


def _lead_of_claims(claims: list[Claim]) -> list[str]:
    counts = {answer: sum(claim.answer == answer for claim in claims) for answer in ANSWERS}
    untold = f"; of {counts['cannot tell']} one cannot tell" if counts["cannot tell"] else ""
    of = counted(len(claims), "claim")
    return [
        f"Of {of}, {counts['holds']} hold and {counts['does not hold here']} do not hold here{untold}."
    ]


def _claims_section(claims: list[Claim]) -> Section:
    words: list[list[str | tuple[str, str]]] = [
        [
            claim.claim,
            claim.answer,
            (significant(claim.statistic), significant_interval(claim.ci) if claim.ci else ""),
            p_value(claim.p),
            str(claim.seeds),
            f"{claim.what}; holds if {claim.rule}",
        ]
        for claim in claims
    ]
    heads = [
        "Claim",
        "Answer",
        "Statistic, 95% interval",
        "p",
        "Seeds",
        "What the number is, and the rule",
    ]
    return Section(
        "claims",
        "Claims",
        prose("claims"),
        [table_of_words(None, heads, words, text_columns=(0, 1, 5), wordy=True)],
    )
