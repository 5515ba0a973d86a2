"""A Dask scheduler that is already running."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from distributed import Client
from distributed.security import Security

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.pipeline.config.compute import ComputeSettings

from .profile import load_profile

log = logging.getLogger(__name__)

DASK = ("python", "dask", "distributed", "cloudpickle", "msgpack")
CONNECT_WITHIN = "20s"


@contextmanager
def existing_scheduler(settings: ComputeSettings, out: Path) -> Iterator[Client]:
    """Connect to the scheduler at ``settings.cluster``, which keeps running when the run ends.

    Raises
    ------
    InputError
        When no scheduler answers there, credentials are refused, or its workers are unfit for the run.
    """
    with _connected(settings) as client:
        refuse_unfit(client, settings.cluster, out)
        yield client


def _connected(settings: ComputeSettings) -> Client:
    tls = load_profile(settings.profile).tls
    security = None
    if tls is not None:
        assert settings.profile is not None
        folder = settings.profile.parent
        files = {name: folder / path for name, path in tls.model_dump().items()}
        for path in files.values():
            if not path.is_file():
                raise InputError(f"{settings.profile}: [tls] names {path}, which is not there")
        security = Security(
            tls_ca_file=str(files["ca_file"]),
            tls_client_cert=str(files["cert"]),
            tls_client_key=str(files["key"]),
            require_encryption=True,
        )
    try:
        return Client(settings.cluster, security=security, timeout=CONNECT_WITHIN)
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        needs = ""
        if settings.cluster.startswith("tls") and not tls:
            needs = "; tls:// needs credentials: [tls] in a --profile"
        raise InputError(
            f"--cluster {settings.cluster}: no scheduler can be reached there ({reason}){needs}"
        ) from None


def refuse_unfit(client: Client, name: str, out: Path) -> None:
    """Refuse a client whose workers cannot compute rows of ``out``; warn of differences that do no harm.

    Raises
    ------
    InputError
        When the client is asynchronous, its workers are threads of this process, Python or Dask differ, a worker lacks
        dsmi-zoo or does not see ``out``.
    """
    if client.asynchronous:
        raise InputError(
            f"{name}: the client is asynchronous; pass one that was made without asynchronous=True"
        )
    # With workers in this process, ending a model that hangs would end this program.
    if _process() in cast(dict[str, Any], client.run(_process)).values():
        raise InputError(
            f"{name}: its workers are threads of this process; make the cluster with processes=True"
        )
    for problem in differing_versions(cast(dict[str, Any], client.get_versions())):
        raise InputError(f"{name}: {problem}")
    _compare_libraries(client, name)
    threads = max(client.nthreads().values(), default=1)
    if threads > 1:
        log.warning(
            f"{name}: workers have up to {threads} threads, and a run uses one of each; start them with one"
        )
    # OUT may not exist yet: planning does not create it.
    existing = next(folder for folder in (out, *out.parents) if folder.is_dir())
    for worker, sees in client.run(os.path.isdir, str(existing)).items():
        if not sees:
            raise InputError(
                f"{name}: worker {worker} does not see {out}; --out must be on a file system that all share"
            )


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def differing_versions(versions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences of Python and Dask between client, scheduler and workers, by ``Client.get_versions``."""
    here = versions["client"]["packages"]
    others = {"the scheduler": versions["scheduler"]}
    for worker, theirs in versions["workers"].items():
        others[f"worker {worker}"] = theirs
    for name in DASK:
        for who, theirs in others.items():
            there = theirs["packages"].get(name) if theirs else None
            if _comparable(name, there) != _comparable(name, here.get(name)):
                yield f"{who} has {name} {there or 'missing'}, this client {here.get(name)}; set both up alike"


def _comparable(name: str, version: str | None) -> Any:
    """Return the part of a version that must match: of Python's, major and minor version."""
    return version.split(".")[:2] if name == "python" and version else version


def _compare_libraries(client: Client, name: str) -> None:
    """Warn of libraries whose versions differ; the rows record them too. Refuse workers without dsmi-zoo."""
    try:
        workers = client.run(library_versions)
    except Exception as error:
        raise InputError(
            f"{name}: its workers cannot run dsmi-zoo ({type(error).__name__}: {' '.join(str(error).split())}); "
            "install the same version there"
        ) from None
    for library, here in library_versions().items():
        others = sorted({str(theirs.get(library)) for theirs in workers.values()} - {str(here)})
        if others:
            log.warning(
                f"{name}: workers have {library} {', '.join(others)}, this client {here}; rows record which"
            )
