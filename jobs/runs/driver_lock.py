"""The lock of the process that computes rows of an OUT: one driver, or the shares of one run side by side."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import STALE_AFTER_S, Claim, LockHeldError, acquired, exclusive, holder

log = logging.getLogger(__name__)

STALE_LOCK_WAIT_S = STALE_AFTER_S + 20
LOOK_EVERY_S = 10.0
WHOLE = "whole"
ENTRANCE = "entrance"


def drivers_folder(out: Path) -> Path:
    """Return the folder of the drivers' locks."""
    return out / "drivers"


def drivers(out: Path) -> dict[str, LockHeldError]:
    """Return the drivers that are at work on ``out``, by name."""
    holders = {}
    for lock in sorted(drivers_folder(out).glob("*.lock")):
        held = holder(lock)
        if held is not None:
            holders[lock.stem] = held
    return holders


@contextmanager
def driver_lock(out: Path, share: str | None = None) -> Iterator[Callable[[], None]]:
    """Hold the lock of ``out`` as its only driver, or as one share such as ``3/8`` beside the others.

    Yields
    ------
    Callable
        To be called regularly; it raises InputError when another driver has taken over the lock as stale.

    Raises
    ------
    InputError
        When another driver is at work there (the message names its host and process), or locks cannot be written there.
    """
    # A job that Slurm requeued waits for the lock that it left on another node, where it was killed.
    was_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    deadline = time.monotonic() + (STALE_LOCK_WAIT_S if was_requeued else 0)
    with ExitStack() as stack:
        claim = None
        while claim is None:
            try:
                claim = _acquire(out, share, stack)
            except LockHeldError as held:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{out} is being computed by {held}; wait for it, stop it, or choose another --out "
                        "(the lock of a driver that died expires after 3 minutes)"
                    ) from None
                log.info(
                    f"{out} is being computed by {held}; if that was this job, its lock expires within 3 minutes"
                )
                time.sleep(LOOK_EVERY_S)
            except OSError as error:
                raise InputError(
                    f"{drivers_folder(out)} cannot be written ({error.strerror}); choose another --out"
                ) from None

        acquired = claim

        def confirm_lock() -> None:
            if acquired.is_lost():
                raise InputError(
                    f"{out}: another driver found this one's lock stale and goes on; this one stops"
                )

        yield confirm_lock


def _acquire(out: Path, share: str | None, stack: ExitStack) -> Claim:
    """Take the lock of a driver, which ``stack`` releases, unless another driver is at work.

    The entrance lock lets one process at a time check and acquire, so that of two that start at once only one succeeds.
    """
    name, siblings = WHOLE, ""
    if share is not None:
        part, _, parts = share.partition("/")
        name, siblings = f"share-{part}-of-{parts}", rf"share-\d+-of-{parts}"
    with exclusive(drivers_folder(out) / ENTRANCE, poll_s=0.02) as entrance:
        for other, held in drivers(out).items():
            if not re.fullmatch(siblings, other):
                raise held
        claim = stack.enter_context(acquired(drivers_folder(out) / f"{name}.lock"))
        if entrance.is_lost():
            raise InputError(
                f"{out}: this process was stopped while it began, and another one began meanwhile; start it again"
            )
        return claim
