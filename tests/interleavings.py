"""A search over all interleavings of a few processes that want one lock, with real functions on real files.

Each process is a thread with its own process number; one runs at a time, from one step on the lock to the next. All
choices of which process runs next, which dies and when time leaps are tried, depth first; known states are skipped.
Time stands still except for leaps, each longer than a lock may go without a heartbeat.
"""

import errno
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dsmi_zoo._util.locks import Claim

STALE_AFTER_S, LEAP_S = 4.0, 5.0
FIRST_PID = 5_000_000  # above any real process number
READING, WRITING = (
    ("stat", "lstat", "listdir", "scandir"),
    ("mkdir", "rmdir", "rename", "unlink", "open"),
)
MAX_STEPS = 300

Hold = Callable[[Path], AbstractContextManager[Claim | None]]


class Died(BaseException):
    """Raised in a process to kill it."""


@dataclass
class Actor:
    """A process that wants the lock once."""

    number: int
    machine: str
    turn: SimpleQueue[None] = field(default_factory=SimpleQueue)
    history: list[tuple[object, ...]] = field(default_factory=list)
    asleep_at: int | None = None
    inside: bool = False
    got_it: bool = False
    dead: bool = False
    was_stopped: bool = False
    ended: bool = False
    names: int = 0
    pending: str = ""
    waits_for: tuple[object, float] = ((), 0.0)
    lost: bool | None = None
    steps: int = 0
    error: BaseException | None = None

    @property
    def pid(self) -> int:
        return FIRST_PID + self.number

    def remember_only_what_a_waiter_does(self, now: float) -> None:
        """Keep only what a waiter saw last and since when: nothing else in a poll affects the next one."""
        seen = [step[1] for step in self.history if step[0] == "listdir"]
        if seen and self.waits_for[0] != seen[-1]:
            self.waits_for = seen[-1], now
        self.history, self.steps = [("waits for", *self.waits_for)], 0

    def state(self) -> tuple[object, ...]:
        return (
            tuple(self.history),
            self.steps,
            self.asleep_at is not None,
            self.dead,
            self.was_stopped,
        )


@dataclass(frozen=True)
class Given:
    """Settings of a search: the machine of each process, and how many deaths and untimely leaps it may insert."""

    machines: tuple[str, ...]
    deaths: int = 0
    leaps: int = 0
    preemptions: int = 1000  # how often a process that could continue is interrupted
    may_give_up: bool = False  # by LockHeldError
    prepare: Callable[[Path], object] = lambda lock: None


class Play:
    """One interleaving, given by the indices of its choices."""

    def __init__(self, folder: Path, hold: Hold, given: Given) -> None:
        self.lock, self._hold, self._given = folder / "it.lock", hold, given
        self.actors = [Actor(number, machine) for number, machine in enumerate(given.machines)]
        self.now, self._changes = 0.0, 0
        self._deaths, self._leaps, self._idle_leaps = given.deaths, given.leaps, 0
        self._by_thread: dict[int, Actor] = {}
        self._back: SimpleQueue[None] = SimpleQueue()
        self._last: Actor | None = None
        self._preemptions = given.preemptions

    def actor(self) -> Actor | None:
        """Return the actor of this thread, or None in the test's main thread."""
        return self._by_thread.get(threading.get_ident())

    def run(self, choices: list[int], seen: set[object]) -> list[tuple[int, int]]:
        """Make the given choices, then always the first; return the number of options and the choice at each point.

        Stop early at a state in ``seen``.
        """
        shutil.rmtree(self.lock.parent, ignore_errors=True)
        self.lock.parent.mkdir()
        self._given.prepare(self.lock)
        threads = [threading.Thread(target=self._act, args=(actor,)) for actor in self.actors]
        for thread in threads:
            thread.start()
            self._back.get()  # before its first step
        made: list[tuple[int, int]] = []
        try:
            while not all(actor.ended for actor in self.actors):
                if len(made) >= len(choices):
                    state = self._state()
                    if state in seen:
                        return made
                    seen.add(state)
                assert len(made) < MAX_STEPS, "no progress"
                possible = self._possible()
                chosen = choices[len(made)] if len(made) < len(choices) else 0
                made.append((len(possible), chosen))
                possible[chosen]()
                self._check()
            assert any(actor.got_it for actor in self.actors) or self._given.deaths, (
                "nobody got the lock"
            )
            assert self._given.deaths or not list(self.lock.parent.iterdir()), "something was left"
        finally:
            for actor, thread in zip(self.actors, threads, strict=True):
                actor.dead = True
                actor.turn.put(None)
                thread.join()
        return made

    def step(self, actor: Actor, name: str) -> None:
        """Wait for the next turn."""
        actor.pending = name
        if not actor.dead:
            self._back.put(None)
            actor.turn.get()
        if actor.dead:
            raise Died

    def sleep(self) -> None:
        """Wait until another process has changed something, or time has leapt."""
        actor = self.actor()
        assert actor is not None
        actor.asleep_at = self._changes
        actor.remember_only_what_a_waiter_does(self.now)
        self.step(actor, "sleep")

    def note(self, actor: Actor, step: str, result: object) -> None:
        """Record the result of a step; a state is what its processes have seen."""
        actor.history.append((step, result))
        if step in WRITING and result == "done":
            self._changes += 1

    def holds(self, actor: Actor) -> bool:
        """Return whether the lock has the actor's process number."""
        return str(actor.pid) in self._there()

    def _act(self, actor: Actor) -> None:
        self._by_thread[threading.get_ident()] = actor
        try:
            self.step(actor, "begin")
            with self._hold(self.lock) as claim:
                actor.inside = actor.got_it = True
                try:
                    self.step(actor, "work")
                    if claim is not None:
                        actor.lost = claim.is_lost()
                finally:
                    actor.inside = False
        except BaseException as error:
            actor.error = error
        actor.ended = True
        self._back.put(None)

    def _possible(self) -> list[Callable[[], None]]:
        able = [
            a
            for a in self.actors
            if not a.ended and (a.asleep_at is None or a.asleep_at != self._changes)
        ]
        alive = [actor for actor in self.actors if not actor.ended]
        chosen = able if self._preemptions or self._last not in able else [self._last]
        choices: list[Callable[[], None]] = [partial(self._go_on, actor, able) for actor in chosen]
        if self._deaths:  # a death before a read is the same as one after it
            choices += [
                partial(self._die, a) for a in alive if a.pending == "work" or a.pending in WRITING
            ]
        if any(actor.asleep_at is not None for actor in alive) and (self._leaps or not able):
            choices.append(partial(self._leap, able))
        assert choices, "nobody can go on"
        return choices

    def _go_on(self, actor: Actor, able: Sequence[Actor] = ()) -> None:
        if self._last is not actor and self._last in able:
            self._preemptions -= 1
        self._last = actor
        actor.asleep_at = None
        actor.steps += 1
        actor.turn.put(None)
        self._back.get()

    def _die(self, actor: Actor) -> None:
        self._deaths -= 1
        actor.dead = True
        self._changes += 1  # sleepers may notice
        self._go_on(actor)

    def _leap(self, stopped: list[Actor]) -> None:
        """Let time pass, as if the process about to act had been suspended, without heartbeats."""
        if stopped:
            self._leaps -= 1
        else:
            self._idle_leaps += 1
            assert self._idle_leaps < 20, "all wait for ever"
        for actor in self.actors:
            actor.was_stopped |= actor in stopped or actor.inside
            actor.asleep_at = None
        self.now += LEAP_S

    def _state(self) -> object:
        last = self._last.number if self._last and self._given.preemptions < 100 else None
        left = self._deaths, self._leaps, self._preemptions
        return self._there(), tuple(actor.state() for actor in self.actors), last, left

    def _there(self) -> str:
        """Return what is at the lock's path."""
        try:
            return "|".join(path.name for path in self.lock.iterdir())
        except FileNotFoundError:
            return "nothing"
        except NotADirectoryError:
            return self.lock.read_text()

    def _check(self) -> None:
        for actor in self.actors:
            gave_up = self._given.may_give_up and type(actor.error).__name__ == "LockHeldError"
            if actor.error is not None and not isinstance(actor.error, Died) and not gave_up:
                raise actor.error
        sure = [actor for actor in self.actors if actor.inside and not actor.was_stopped]
        assert len(sure) <= 1, "two hold the lock"
        assert all(self.holds(actor) for actor in sure), "a live lock was dropped"
        for actor in self.actors:
            assert actor.lost in (None, not self.holds(actor)), (
                "the owner is wrong about whether it holds the lock"
            )
            actor.lost = None


def explore(
    module: ModuleType, hold: Hold, folder: Path, given: Given, at_most: int = 20_000
) -> int:
    """Try every interleaving; raise the AssertionError of the first bad one.

    Returns
    -------
    int
        The number of interleavings tried, each at most up to a known state.
    """
    seen: set[object] = set()
    choices: list[int] = []
    plays: list[Play] = []
    with intercepted_steps(module, plays):
        for count in range(1, at_most + 1):
            plays[:] = [Play(folder, hold, given)]
            made = plays[0].run(choices, seen)
            while made and made[-1][1] + 1 == made[-1][0]:
                made.pop()
            if not made:
                return count
            choices = [chosen for _, chosen in made[:-1]] + [made[-1][1] + 1]
    raise AssertionError(f"more than {at_most} interleavings")


@contextmanager
def intercepted_steps(module: ModuleType, plays: list[Play]) -> Iterator[None]:
    """Hand control to the play before each step on the lock; each actor has its own pid, clock and names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*READING, *WRITING):
            patch.setattr(os, name, _stepwise(name, getattr(os, name), plays))
        patch.setattr(io, "open", _stepwise("read", io.open, plays))
        patch.setattr(os, "link", _no_hard_links)
        patch.setattr(os, "getpid", _own(plays, os.getpid, lambda actor: actor.pid))
        patch.setattr(os, "kill", _kill_of(plays, os.kill))
        clock = SimpleNamespace(
            monotonic=lambda: plays[0].now, sleep=lambda _: plays[0].sleep(), time=time.time
        )
        patch.setattr(module, "time", clock)
        patch.setattr(module, "threading", SimpleNamespace(Event=threading.Event, Thread=NoHeart))
        patch.setattr(module, "uuid", SimpleNamespace(uuid4=lambda: _next_name(plays[0])))
        patch.setattr(module, "_machine", _own(plays, module._machine, lambda actor: actor.machine))
        yield


class NoHeart:
    """A heartbeat thread that does nothing: time passes only in leaps, during which no process beats."""

    ident = None

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


def _stepwise(name: str, real: Callable[..., Any], plays: list[Play]) -> Callable[..., Any]:
    def step(path: Any, *arguments: Any, **options: Any) -> Any:
        actor = plays[0].actor() if plays else None
        if actor is None or plays[0].lock.name not in str(path):
            return real(path, *arguments, **options)
        touched = (path, arguments[0]) if name == "rename" else (path,)
        if any(_is_of(plays[0].lock, Path(one)) for one in touched):
            plays[0].step(actor, name)
        elif actor.dead:
            raise Died
        try:
            result = real(path, *arguments, **options)
        except OSError as error:
            plays[0].note(actor, name, type(error))
            raise
        plays[0].note(actor, name, tuple(result) if name == "listdir" else "done")
        return result

    return step


def _is_of(lock: Path, path: Path) -> bool:
    """Return whether other processes see a step at the path; they never look at a process's private names."""
    return path == lock or path.parent == lock


def _no_hard_links(*_: object, **__: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no hard links here")


def _own(
    plays: list[Play], real: Callable[[], Any], of: Callable[[Actor], Any]
) -> Callable[[], Any]:
    def own() -> Any:
        actor = plays[0].actor() if plays else None
        return real() if actor is None else of(actor)

    return own


def _kill_of(plays: list[Play], real: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def kill(pid: int, signal: int) -> None:
        if pid < FIRST_PID:
            real(pid, signal)
        elif plays[0].actors[pid - FIRST_PID].ended:
            raise ProcessLookupError

    return kill


def _next_name(play: Play) -> SimpleNamespace:
    actor = play.actor()
    assert actor is not None
    actor.names += 1
    return SimpleNamespace(hex=f"{actor.number:016x}{actor.names:016x}")
