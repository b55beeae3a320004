"""Micro-batching: rows of many requests run together in one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rae_serve.errors import Expired, Overloaded

Rows = npt.NDArray[Any]  # [N, …]
Result = TypeVar("Result")


class _Job:
    """The rows of one request. They may be divided among several batches."""

    def __init__(self, rows: Rows, deadline: float | None) -> None:
        self.rows = rows
        self.deadline = deadline
        self.taken = 0
        self.parts: dict[int, Rows] = {}  # results by first row: two runners may finish in either order
        self.missing = len(rows)
        self.failed = False
        self.future: Future[Rows] = Future()

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def take(self, count: int) -> _Part:
        self.taken += count
        return _Part(self, self.taken - count, self.rows[self.taken - count : self.taken])

    def add_result(self, first: int, part: Rows) -> bool:
        """Keep the results of some rows; return whether all rows have results."""
        self.parts[first] = part
        self.missing -= len(part)
        return not self.missing

    def result(self) -> Rows:
        parts = [self.parts[first] for first in sorted(self.parts)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Part(NamedTuple):
    """The rows of one job that are in one batch; `first` is the index of the first of them in the job."""

    job: _Job
    first: int
    rows: Rows


class MicroBatcher:
    """Runs a row-by-row function in its own threads, on batches made of the rows of many callers.

    An idle batcher runs new rows immediately; rows that arrive during a batch share the next one. Callers take turns
    of a quarter of a batch, so that a large request does not delay small ones. Small requests stay whole, because if
    they were cut, all of them would end at the same moment. Idle runners divide the waiting rows among themselves if
    there is more than one turn of them.

    Args:
        run: The function, [N, …] → [N, …]; called from several threads if `runners` is more than 1.
        max_rows: The largest batch.
        max_waiting: How many rows may wait; a call beyond this limit raises Overloaded at once.
        runners: How many batches may run at the same time, each in its own thread.
        observe: Called with the number of rows of every batch; None observes nothing.
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
        """Number of rows that wait for a batch."""
        return self._waiting

    def __call__(self, rows: Rows) -> Rows:
        """Return `run` of these rows, at least one. Raises what `submit` and its future raise."""
        return self.submit(rows).result()

    def submit(self, rows: Rows, deadline: float | None = None) -> Future[Rows]:
        """Queue rows and return a future of their results. Cancelling the future drops the rows that still wait.

        Args:
            rows: At least one row.
            deadline: Time of time.monotonic() after which waiting rows are dropped; None waits for ever.

        Returns:
            A future that raises Expired if rows still wait at the deadline, or the exception of `run`.

        Raises:
            Overloaded: Too many rows wait. An idle batcher takes a request of any size.
        """
        job = _Job(rows, deadline)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._waiting and self._waiting + len(rows) > self._max_waiting:
                raise Overloaded(self._waiting, retry_after_s=1)
            self._jobs.append(job)
            self._waiting += len(rows)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._drop_remaining(job))
        return job.future

    def close(self) -> None:
        """Finish the rows that wait, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _drop_remaining(self, job: _Job) -> None:
        """Drop the remaining rows of a finished or cancelled job from the queue."""
        if not job.waiting:  # true of every job that ended with a result
            return
        with self._changed:
            self._waiting -= job.waiting
            job.taken = len(job.rows)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._should_run() or self._closed)
                if not self._jobs:
                    return
                expired = self._remove_expired()
                batch = self._next_batch()
                self._running += 1
            for job in expired:
                self._fail(job, Expired())
            if batch:
                self._run_batch(batch)
            with self._changed:
                self._running -= 1

    def _should_run(self) -> bool:
        """Return whether to start a batch.

        Beside a batch that runs already, a new one needs at least a turn of rows: small batches cost more per row.
        """
        return bool(self._jobs) and (not self._running or self._waiting >= self._turn)

    def _remove_expired(self) -> list[_Job]:
        """Remove jobs without waiting rows and jobs past their deadline from the queue; return the latter."""
        now = time.monotonic()
        expired = [job for job in self._jobs if job.deadline is not None and job.deadline <= now]
        removed = set(map(id, expired))
        self._jobs = deque(job for job in self._jobs if job.waiting and id(job) not in removed)
        return expired

    def _next_batch(self) -> list[_Part]:
        idle = len(self._threads) - self._running  # includes this thread
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
            if len(batch) > 1:  # run each part alone, so that only the request that causes the error fails
                for part in batch:
                    self._run_batch([part])
            else:
                self._fail(batch[0].job, error)
            return
        start = 0
        for job, first, rows in batch:
            with self._changed:
                complete = job.add_result(first, results[start : start + len(rows)])
            if complete:
                _settle(job.future, job.result())
            start += len(rows)

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed:
            failed, job.failed = job.failed, True
        if not failed:
            _settle(job.future, error)


class InFlight:
    """Counts the requests that have no result yet, and their rows. Safe to use from many threads."""

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self._lock = threading.Lock()

    def track(self, rows: int, submit: Callable[[], Future[Result]]) -> Future[Result]:
        """Register a request, then submit it; forget it when its future is done or `submit` raises.

        The request is registered first, because a batch may run its rows before `submit` returns.

        Args:
            rows: The number of rows of the request.
            submit: Hands the rows over and returns the future of their result.
        """
        self._add(1, rows)
        try:
            future = submit()
        except BaseException:
            self._add(-1, -rows)
            raise
        future.add_done_callback(lambda _: self._add(-1, -rows))
        return future

    def is_only(self, rows: int) -> bool:
        """Return whether exactly one request is in flight and it has this many rows."""
        with self._lock:
            return self.requests == 1 and self.rows == rows

    def _add(self, requests: int, rows: int) -> None:
        with self._lock:
            self.requests += requests
            self.rows += rows


def _settle(future: Future[Rows], outcome: Rows | BaseException) -> None:
    """Give a future its result or exception, unless it was cancelled."""
    if future.set_running_or_notify_cancel():
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
