"""What the files of OUT tell of a model: while a worker computes it, and after that worker died."""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from .config import RunConfig
from .store import row_mark, timeout_log
from .task import Done, row_written

GRACE_S = 15.0  # a worker ends a model that takes too long by itself; so much later the driver does


@dataclass
class Trace:
    """One attempt at a model: its files as they were when it began, and its clock as it was seen last."""

    row: object
    clock_before: object
    clock: object
    since: float
    ended: float = 0.0  # when the driver killed its worker


class Traces:
    """The traces of a run's models."""

    def __init__(self, config: RunConfig) -> None:
        self._out, self._timeout = config.folder, config.compute.model_timeout

    def begin(self, job: Any) -> Trace:
        """Note how the files of an entry are before an attempt."""
        clock = self._clock(job)
        return Trace(row_mark(self._out, job.slug), clock, clock, monotonic())

    def is_overdue(self, job: Any, trace: Trace) -> bool:
        """Whether a worker has had its time, and the grace, and has not ended: it may be suspended.

        Its time begins when torch is imported and published weights are here, however long that takes.
        """
        if self._timeout is None:
            return False
        if trace.ended:
            return True
        clock = self._clock(job)
        if clock != trace.clock:  # it began, or came to its end, since the last look
            trace.clock, trace.since = clock, monotonic()
        has_begun = clock not in (None, trace.clock_before)
        return has_begun and monotonic() - trace.since > self._timeout + GRACE_S

    def outcome(self, job: Any, trace: Trace) -> Done | Exception | None:
        """The row of a model whose worker died, if it was written after all; why it failed, if it took too long."""
        written = row_written(self._out, job, trace.row)
        if written is None and (trace.ended or self._was_timed_out(job, trace)):
            return self.too_long(job, trace)
        return written

    def too_long(self, job: Any, trace: Trace) -> TimeoutError:
        """What the row of a model says that took too long."""
        where = timeout_log(self._out, job.slug)
        told = f"see {where}" if not trace.ended else "its process did not answer any more, and was killed"
        return TimeoutError(f"took longer than --model-timeout {self._timeout:g} s; {told}")

    def _was_timed_out(self, job: Any, trace: Trace) -> bool:
        """Whether the worker's own clock ended it: then it has written where it was."""
        has_begun = self._clock(job) not in (None, trace.clock_before)
        return has_begun and timeout_log(self._out, job.slug).stat().st_size > 0

    def _clock(self, job: Any) -> tuple[int, int] | None:
        """Something that changes when the model's own time begins; None when it does not run."""
        try:
            stat = timeout_log(self._out, job.slug).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_ctime_ns
