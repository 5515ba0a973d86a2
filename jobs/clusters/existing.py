"""A Dask scheduler that is already there."""

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
from dsmi_zoo.pipeline.config.run import ComputeSettings

from .profile import load_profile

log = logging.getLogger(__name__)

DASK = ("python", "dask", "distributed", "cloudpickle", "msgpack")
ARRIVES_WITHIN = "20s"


@contextmanager
def existing_scheduler(
    settings: ComputeSettings, out: Path, modules: tuple[str, ...] = ()
) -> Iterator[Client]:
    """A client of the scheduler at ``settings.cluster``, which stays when the run ends.

    Raises
    ------
    InputError
        When nobody answers there, credentials are refused, or its workers cannot compute what this client means.
    """
    client = _connected(settings)
    with client:
        refuse_unfit(client, settings.cluster, out)
        yield client


def refuse_unfit(client: Client, name: str, out: Path) -> None:
    """Refuse a client whose workers cannot compute rows of ``out``; log what is odd there and does no harm.

    Raises
    ------
    InputError
        When it is an asynchronous client, its workers are threads of this process, Python or Dask differ, a worker
        lacks dsmi-zoo or does not see ``out``.
    """
    if client.asynchronous:
        raise InputError(
            f"{name}: the client is asynchronous; pass one that was made without asynchronous=True"
        )
    processes = cast(dict[str, tuple[str, int]], client.run(_process))
    # What ends a model that hangs or kills its process would end this program.
    if _process() in processes.values():
        raise InputError(
            f"{name}: its workers are threads of this process; make the cluster with processes=True"
        )
    for problem in differing_versions(cast(dict[str, Any], client.get_versions())):
        raise InputError(f"{name}: {problem}")
    for note in (*_differing_libraries(client, name), *_idle_threads(client, name)):
        log.warning(note)
    _refuse_other_folders(client, name, out)


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _connected(settings: ComputeSettings) -> Client:
    tls = load_profile(settings.profile).tls
    security = None
    if tls is not None:
        base = settings.profile.parent if settings.profile is not None else Path()
        files = {name: base / path for name, path in tls.model_dump().items()}
        absent = [path for path in files.values() if not path.is_file()]
        if absent:
            raise InputError(f"{settings.profile}: [tls] names {absent[0]}, which is not there")
        security = Security(
            tls_ca_file=str(files["ca_file"]),
            tls_client_cert=str(files["cert"]),
            tls_client_key=str(files["key"]),
            require_encryption=True,
        )
    try:
        return Client(settings.cluster, security=security, timeout=ARRIVES_WITHIN)
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        needs = (
            "; tls:// needs credentials: [tls] in a --profile"
            if settings.cluster.startswith("tls") and not tls
            else ""
        )
        raise InputError(
            f"--cluster {settings.cluster}: no scheduler can be reached there ({reason}){needs}"
        ) from None


def differing_versions(versions: Mapping[str, Any]) -> Iterator[str]:
    """What of Python and Dask differs between client, scheduler and workers, as ``Client.get_versions`` tells it."""
    here = versions["client"]["packages"]
    others = {
        "the scheduler": versions["scheduler"],
        **{f"worker {name}": v for name, v in versions["workers"].items()},
    }
    for name in DASK:
        for who, theirs in others.items():
            there = theirs["packages"].get(name) if theirs else None
            if _comparable(name, there) != _comparable(name, here.get(name)):
                yield f"{who} has {name} {there or 'missing'}, this client {here.get(name)}; set both up alike"


def _comparable(name: str, version: str | None) -> Any:
    """Python may differ in its last part."""
    return version.split(".")[:2] if name == "python" and version else version


def _differing_libraries(client: Client, address: str) -> Iterator[str]:
    """One line a library whose version some workers have otherwise; the rows record it too.

    Raises
    ------
    InputError
        When a worker has no dsmi-zoo.
    """
    try:
        workers = client.run(library_versions)
    except Exception as error:
        raise InputError(
            f"{address}: its workers cannot run dsmi-zoo ({type(error).__name__}: {' '.join(str(error).split())}); "
            "install the same version there"
        ) from None
    for name, here in library_versions().items():
        others = sorted({str(theirs.get(name)) for theirs in workers.values()} - {str(here)})
        if others:
            yield f"{address}: workers have {name} {', '.join(others)}, this client {here}; rows say which it was"


def _idle_threads(client: Client, address: str) -> Iterator[str]:
    """One line if workers have several threads: a model has its process to itself."""
    most = max(client.nthreads().values(), default=1)
    if most > 1:
        yield f"{address}: workers have up to {most} threads, and a run uses one of each; start them with one"


def _refuse_other_folders(client: Client, address: str, out: Path) -> None:
    # A plan makes no OUT.
    there_already = next(folder for folder in (out, *out.parents) if folder.is_dir())
    seen = client.run(os.path.isdir, str(there_already))
    blind = [worker for worker, there in seen.items() if not there]
    if blind:
        raise InputError(
            f"{address}: worker {blind[0]} does not see {out}; --out must be on a file system that all share"
        )
