"""Who computes rows of an OUT: one driver, or the shares of one run side by side."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import STALE_AFTER_S, Claim, Held, claimed, exclusive, holder

log = logging.getLogger(__name__)

LEFT_BEHIND_FOR_S = STALE_AFTER_S + 20
LOOK_EVERY_S = 10.0
WHOLE = "whole"
ENTRANCE = "entrance"


def drivers_folder(out: Path) -> Path:
    """Where drivers leave their locks."""
    return out / "drivers"


@contextmanager
def driving(out: Path, share: str | None = None) -> Iterator[Callable[[], None]]:
    """Compute rows of ``out`` as its only driver, or as one share such as ``3/8`` beside the others.

    Yields
    ------
    Callable
        To be called from time to time; raises InputError when another driver took this one for dead.

    Raises
    ------
    InputError
        When another driver is at work there (names its host and process), or locks cannot be written there.
    """
    with ExitStack() as opened:
        try:
            claim = _enter_after_predecessor(out, share, opened)
        except Held as held:
            raise InputError(
                f"{out} is being computed by {held}; wait for it, stop it, or choose another --out (a driver that died "
                "is noticed after 3 minutes)"
            ) from None
        except OSError as error:
            raise InputError(
                f"{drivers_folder(out)} cannot be written ({error.strerror}); choose another --out"
            ) from None

        def confirm() -> None:
            if claim.is_lost():
                raise InputError(
                    f"{out}: another driver took this one for dead and goes on; this one stops"
                )

        yield confirm


def drivers(out: Path) -> dict[str, Held]:
    """The drivers that are at work on ``out``, by name."""
    holders = {}
    for lock in sorted(drivers_folder(out).glob("*.lock")):
        held = holder(lock)
        if held is not None:
            holders[lock.stem] = held
    return holders


def _enter_after_predecessor(out: Path, share: str | None, opened: ExitStack) -> Claim:
    """Enter; a job that Slurm has begun again waits for the lock that it left behind on another node, killed there."""
    was_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    until = time.monotonic() + (LEFT_BEHIND_FOR_S if was_requeued else 0)
    while True:
        try:
            return _enter(out, share, opened)
        except Held as held:
            if time.monotonic() > until:
                raise
            log.info(
                f"{out} is being computed by {held}; if that was this job, it is noticed within 3 minutes"
            )
        time.sleep(LOOK_EVERY_S)


def _enter(out: Path, share: str | None, opened: ExitStack) -> Claim:
    """Take the lock of a driver, which ``opened`` releases, unless another driver is at work.

    One process at a time looks and takes: of two that begin at the same instant, one finds nobody.
    """
    name = WHOLE if share is None else f"share-{share.replace('/', '-of-')}"
    with exclusive(drivers_folder(out) / ENTRANCE, poll_s=0.02) as entrance:
        for other, held in drivers(out).items():
            if not _is_share_of(share, other):
                raise held
        claim = opened.enter_context(claimed(drivers_folder(out) / f"{name}.lock"))
        if entrance.is_lost():
            raise InputError(
                f"{out}: this process was stopped while it began, and another one began meanwhile; start it again"
            )
        return claim


def _is_share_of(share: str | None, other: str) -> bool:
    """Whether ``other`` is a share of the same division."""
    return (
        share is not None
        and re.fullmatch(rf"share-\d+-of-{share.partition('/')[2]}", other) is not None
    )
