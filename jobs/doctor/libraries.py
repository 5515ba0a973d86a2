"""Python, libraries and Slurm's commands; whether two machines have the same."""

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Mapping

from ...pipeline.provenance import library_versions
from .findings import Finding

# What is sent from one to the other is unpickled by name.
MUST_AGREE = (
    "dsmi-zoo",
    "dask",
    "distributed",
)


def library_findings() -> list[Finding]:
    """Python, and whether every library that dsmi-zoo requires is there and new enough."""
    from packaging.requirements import Requirement

    findings = [
        Finding(level="ok", what="Python", found=f"{platform.python_version()}, {sys.executable}")
    ]
    lacking, there = [], {}
    for line in importlib.metadata.requires("dsmi-zoo") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = version_of(requirement.name)
        there[requirement.name] = version
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement} ({version or 'not installed'})")
    if lacking:
        do = "pip install " + " ".join(f"'{line.partition(' (')[0]}'" for line in lacking)
        return [
            *findings,
            Finding(
                level="problem", what="libraries", found=f"lacking: {', '.join(lacking)}", do=do
            ),
        ]
    shown = ", ".join(
        f"{name} {there[name]}" for name in ("timm", "dask", "distributed") if name in there
    )
    return [
        *findings,
        Finding(level="ok", what="libraries", found=f"all {len(there)} are new enough; {shown}"),
    ]


def slurm_finding(wanted: bool) -> Finding:
    """Whether `--cluster slurm` could be used from here."""
    jobqueue, sbatch = version_of("dask-jobqueue"), shutil.which("sbatch")
    if jobqueue and sbatch:
        return Finding(level="ok", what="Slurm", found=f"{sbatch}, dask-jobqueue {jobqueue}")
    lacking = [
        *(["no sbatch on PATH"] if not sbatch else []),
        *(["no dask-jobqueue"] if not jobqueue else []),
    ]
    steps = [
        *(
            ["--cluster slurm needs them here, and `submit slurm` on the nodes too"]
            if not wanted
            else []
        ),
        *(["use a login node"] if wanted and not sbatch else []),
        *(["pip install 'dsmi-zoo[slurm]'"] if not jobqueue else []),
    ]
    return Finding(
        level="problem" if wanted else "note",
        what="Slurm",
        found=", ".join(lacking),
        do="; ".join(steps),
    )


def versions() -> dict[str, str]:
    """Versions that must, or should, be the same on all machines of a run."""
    return library_versions() | {
        name: version_of(name) or "not installed" for name in ("dask", "distributed")
    }


def version_findings(there: Mapping[str, str], here: Mapping[str, str], host: str) -> list[Finding]:
    """Where the versions of this machine differ from those of ``host``, which hands out the work."""
    findings = []
    for name, version in here.items():
        other = there.get(name, "not installed")
        if version == other:
            continue
        found = f"{name} {version} here, {other} on {host}"
        major_differs = name == "python" and version.split(".")[:2] != other.split(".")[:2]
        if name in MUST_AGREE or major_differs:
            do = "set up both alike, or name the node's Python in the --profile (python = ...)"
            findings.append(Finding(level="problem", what="versions", found=found, do=do))
        else:
            do = "numbers may differ in their last digits; each row says which version computed it"
            findings.append(Finding(level="note", what="versions", found=found, do=do))
    return findings or [Finding(level="ok", what="versions", found=f"as on {host}")]


def version_of(name: str) -> str | None:
    """A library's installed version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
