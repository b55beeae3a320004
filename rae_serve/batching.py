"""Many callers, one batch: rows that arrive while a batch runs go out together in the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rae_serve.errors import Expired, Overloaded

Rows = npt.NDArray[Any]  # [N, …]


class _Job:
    """One caller's rows on their way through, some batches' worth at a time."""

    def __init__(self, rows: Rows, deadline: float | None) -> None:
        self.rows = rows
        self.deadline = deadline
        self.taken = 0
        self.parts: dict[int, Rows] = {}  # by first row: two runners may end in either order
        self.missing = len(rows)
        self.failed = False
        self.future: Future[Rows] = Future()

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def take(self, count: int) -> _Part:
        self.taken += count
        return _Part(self, self.taken - count, self.rows[self.taken - count : self.taken])

    def give(self, first: int, part: Rows) -> bool:
        """Keep the result of some rows; whether it was the last that was missing."""
        self.parts[first] = part
        self.missing -= len(part)
        return not self.missing

    def result(self) -> Rows:
        parts = [self.parts[first] for first in sorted(self.parts)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Part(NamedTuple):
    """Rows of a job that are in one batch, and where they begin in it."""

    job: _Job
    first: int
    rows: Rows


class MicroBatcher:
    """Calls `run` ([N, …] → [N, …], row by row) in `runners` threads of its own, on the rows of all callers together.

    It never waits for company: an idle batcher runs what comes at once, and what comes meanwhile shares the
    next batch of at most `max_rows`. Callers take turns of a quarter of a batch, so a large request does not
    hold up small ones, and small ones are not cut, all to end at the same moment. Above `max_waiting` a call
    raises Overloaded at once. `observe` is told the rows of every batch. Idle runners share what waits, where
    it is more than a turn.
    """

    def __init__(
        self,
        run: Callable[[Rows], Rows],
        *,
        max_rows: int = 64,
        max_waiting: int = 2048,
        runners: int = 1,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        self._turn = max(1, max_rows // 4)
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(runners)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for a batch."""
        return self._waiting

    def __call__(self, rows: Rows) -> Rows:
        """`run` of these rows, at least one. Raises what `submit` and its future raise."""
        return self.submit(rows).result()

    def submit(self, rows: Rows, deadline: float | None = None, *, admitted: bool = False) -> Future[Rows]:
        """`run` of these rows, at least one, in the future; cancelled, it costs nothing more.

        Raises Overloaded where too many wait, unless they were admitted before. The future raises Expired where the
        rows still wait at `deadline` (of time.monotonic), or what `run` raised.
        """
        job = _Job(rows, deadline)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if not admitted:
                self.admit(len(rows))
            self._jobs.append(job)
            self._waiting += len(rows)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job))
        return job.future

    def admit(self, rows: int) -> None:
        """Raise Overloaded where so many rows more are too many. An idle batcher takes a request of any size."""
        if self._waiting and self._waiting + rows > self._max_waiting:
            raise Overloaded(self._waiting, retry_after_s=1)

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, job: _Job) -> None:
        """Take back what waits of a job that has its answer, an error, or nobody who wants it."""
        if not job.waiting:  # as of every job that was simply done
            return
        with self._changed:
            self._waiting -= job.waiting
            job.taken = len(job.rows)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._worth_a_batch() or self._closed)
                if not self._jobs:
                    return
                expired = self._expired()
                batch = self._next_batch()
                self._running += 1
            for job in expired:
                self._fail(job, Expired())
            if batch:
                self._run_batch(batch)
            with self._changed:
                self._running -= 1

    def _worth_a_batch(self) -> bool:
        """Whether something waits; beside a batch that runs already, at least a turn, since small ones cost more."""
        return bool(self._jobs) and (not self._running or self._waiting >= self._turn)

    def _expired(self) -> list[_Job]:
        now = time.monotonic()
        expired = [job for job in self._jobs if job.deadline is not None and job.deadline <= now]
        gone = set(map(id, expired))
        self._jobs = deque(job for job in self._jobs if job.waiting and id(job) not in gone)
        return expired

    def _next_batch(self) -> list[_Part]:
        idle = len(self._threads) - self._running  # this one among them
        batch: list[_Part] = []
        room = min(self._max_rows, max(self._turn, -(-self._waiting // idle)))
        while room and self._jobs:
            job = self._jobs.popleft()
            count = min(job.waiting, self._turn, room)
            batch.append(job.take(count))
            room -= count
            self._waiting -= count
            if job.waiting:
                self._jobs.append(job)
        if self._jobs:
            self._changed.notify()
        return batch

    def _run_batch(self, batch: list[_Part]) -> None:
        rows = batch[0].rows if len(batch) == 1 else np.concatenate([part.rows for part in batch])
        if self._observe:
            self._observe(len(rows))
        try:
            results = self._run(rows)
        except Exception as error:
            if len(batch) > 1:  # find whose fault it is
                for part in batch:
                    self._run_batch([part])
            else:
                self._fail(batch[0].job, error)
            return
        start = 0
        for job, first, rows in batch:
            with self._changed:
                complete = job.give(first, results[start : start + len(rows)])
            if complete:
                settle(job.future, job.result())
            start += len(rows)

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed:
            failed, job.failed = job.failed, True
        if not failed:
            settle(job.future, error)


def then(first: Future[Rows], submit: Callable[[Rows], Future[Rows]]) -> Future[Rows]:
    """What `submit` makes of the result of `first`, without a thread that waits; cancelling it cancels both."""
    last: Future[Rows] = Future()
    pending = [first]

    def forward(future: Future[Rows]) -> None:
        if future.cancelled():
            last.cancel()
        elif error := future.exception():
            settle(last, error)
        else:
            settle(last, future.result())

    def go_on(future: Future[Rows]) -> None:
        if future.cancelled() or future.exception() or last.cancelled():
            forward(future)
            return
        try:
            pending.append(submit(future.result()))
        except Exception as error:
            settle(last, error)
        else:
            pending[-1].add_done_callback(forward)

    first.add_done_callback(go_on)
    last.add_done_callback(lambda future: future.cancelled() and pending[-1].cancel())
    return last


def settle(future: Future[Rows], outcome: Rows | BaseException) -> None:
    """Give a future its outcome, unless it was cancelled just now."""
    if future.set_running_or_notify_cancel():
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
