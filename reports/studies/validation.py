"""The page of ``dsmi-zoo validate``: every claim with its answer, and the studies behind it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsmi_zoo._util.text import counted

from ..page.rendering import AnyCell, Section, prose, table_of_words
from ..page.training import CurvePage, write_curve_page
from ..wording import p_value, significant, significant_interval
from .claims import Claim
from .replications import replicate, replications_section
from .score_verdicts import answer, score_study_section, study_scores
from .simulation_page import claims_of, section
from .trainings_page import (
    dynamics_claims,
    dynamics_section,
    initialisation_claims,
    initialisation_section,
)

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
        ``simulated`` has the rows of the cells, ``dynamics`` those of each data set, ``initialisation`` its rows,
        ``scores`` and ``replications`` the rows of each setting.
    record
        The versions of libraries and the Git commit.
    """
    claims: list[Claim] = []
    sections: list[Section] = []
    if "simulated" in results:
        claims += claims_of(results["simulated"])
        sections.append(section(results["simulated"]))
    if "dynamics" in results:
        claims += dynamics_claims(results["dynamics"])
        sections.append(dynamics_section(results["dynamics"]))
    if "initialisation" in results:
        claims += initialisation_claims(results["initialisation"])
        sections.append(initialisation_section(results["initialisation"]))
    study = study_scores(results["scores"]) if "scores" in results else None
    if study is not None:
        sections.append(score_study_section(study))
    replications = replicate(results["replications"]) if "replications" in results else []
    if replications:
        sections.append(replications_section(replications))
    of_others = [found.claim for found in replications]
    small = [name for name, settings in studies.items() if settings["small"]]
    content: dict[str, Any] = {
        "claims": [asdict(claim) for claim in (*claims, *of_others)],
        "studies": {name: dict(settings) for name, settings in studies.items()},
    }
    if study is not None:
        content["scores"] = asdict(study) | {"recommended": study.recommended()}
    if replications:
        content["replications"] = [asdict(found) for found in replications]
    lead = _lead_of_claims(claims) if claims else []
    lead += _lead_of_claims(of_others, " of others") if of_others else []
    lead += answer(study) if study is not None else []
    lead.append("Each answer follows from a rule that was written down before the first run.")
    warnings = []
    if small:
        warnings.append(f"Of reduced size, to try the command, not to answer: {', '.join(small)}.")
    times = [
        (f"Time of {name}", f"{settings['seconds']:.0f} s") for name, settings in studies.items()
    ]
    versions = [f"{name} {version}" for name, version in record.get("versions", {}).items()]
    page = CurvePage(
        eyebrow=f"dsmi-zoo validate · {', '.join(studies)}",
        title=_title(bool(claims), study is not None),
        lead=lead,
        warnings=warnings,
        sections=[_claims_section(claims), *sections] if claims else sections,
        content=content,
        provenance=[
            *times,
            ("Versions", "; ".join(versions)),
            ("Git commit", str(record.get("git_commit") or "unknown")),
        ],
    )
    return write_curve_page(page, out / "report"), [*claims, *of_others]


def _title(papers_claims: bool, scores: bool) -> str:
    if papers_claims:
        return "Do the paper’s other claims hold here?"
    return "Which score predicts best?" if scores else "Do claims of others hold here?"


def _lead_of_claims(claims: list[Claim], whose: str = "") -> list[str]:
    counts = {answer: sum(claim.answer == answer for claim in claims) for answer in ANSWERS}
    is_open = f"; {counts['cannot tell']} cannot be decided" if counts["cannot tell"] else ""
    of = counted(len(claims), "claim") + whose
    return [
        f"Of {of}, {counts['holds']} hold and {counts['does not hold here']} do not hold here{is_open}."
    ]


def _claims_section(claims: list[Claim]) -> Section:
    rows: list[list[AnyCell]] = []
    for claim in claims:
        ci = significant_interval(claim.ci) if claim.ci else ""
        statistic = (significant(claim.statistic), ci)
        rule = f"{claim.what}; holds if {claim.rule}"
        rows.append([claim.claim, claim.answer, statistic, p_value(claim.p), claim.seeds, rule])
    heads = ["Claim", "Answer", "Statistic, 95% interval", "p", "Seeds", "The number, and the rule"]
    table = table_of_words(None, heads, rows, text_columns=(0, 1, 5), wordy=True)
    return Section("claims", "Claims", prose("claims"), [table])
