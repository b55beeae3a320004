"""Many callers, one batch: rows that arrive while a batch runs go out together in the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_serve.errors import Overloaded

Rows = npt.NDArray[Any]  # [N, …]


class _Job:
    """One caller's rows on their way through, some batches' worth at a time."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.taken = 0
        self.parts: list[Rows] = []
        self.future: Future[Rows] = Future()

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def take(self, count: int) -> Rows:
        self.taken += count
        return self.rows[self.taken - count : self.taken]

    def give(self, part: Rows) -> None:
        self.parts.append(part)
        if sum(map(len, self.parts)) == len(self.rows):
            self.future.set_result(self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts))


class MicroBatcher:
    """Calls `run` ([N, …] → [N, …], row by row) in a thread of its own, on the rows of all callers together.

    It never waits for company: an idle batcher runs what comes at once, and what comes meanwhile shares the
    next batch of at most `max_rows`. Every caller gets an equal share of a full batch, so a large request
    does not hold up small ones. Above `max_waiting` a call raises Overloaded at once.
    """

    def __init__(self, run: Callable[[Rows], Rows], *, max_rows: int = 64, max_waiting: int = 65536) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="micro-batcher", daemon=True)
        self._thread.start()

    def __call__(self, rows: Rows) -> Rows:
        """`run` of these rows, at least one. Raises Overloaded where too many wait, or what `run` raised."""
        job = _Job(rows)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            waiting = sum(other.waiting for other in self._jobs)
            if self._jobs and waiting + len(rows) > self._max_waiting:
                raise Overloaded(waiting, retry_after_s=1)
            self._jobs.append(job)
            self._changed.notify()
        return job.future.result()

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                batch = self._next_batch()
            self._run_batch(batch)

    def _next_batch(self) -> list[tuple[_Job, Rows]]:
        share = max(1, self._max_rows // len(self._jobs))
        batch: list[tuple[_Job, Rows]] = []
        room = self._max_rows
        for _ in range(len(self._jobs)):
            if room == 0:
                break
            job = self._jobs.popleft()
            count = min(job.waiting, share, room)
            batch.append((job, job.take(count)))
            room -= count
            if job.waiting:
                self._jobs.append(job)
        return batch

    def _run_batch(self, batch: list[tuple[_Job, Rows]]) -> None:
        try:
            results = self._run(batch[0][1] if len(batch) == 1 else np.concatenate([r for _, r in batch]))
        except Exception as error:
            if len(batch) > 1:  # find whose fault it is
                for entry in batch:
                    self._run_batch([entry])
            else:
                self._fail(batch[0][0], error)
            return
        start = 0
        for job, rows in batch:
            job.give(results[start : start + len(rows)])
            start += len(rows)

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed:
            if job.waiting:
                self._jobs.remove(job)
        job.future.set_exception(error)
