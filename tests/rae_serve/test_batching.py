from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rae_serve.batching import MicroBatcher
from rae_serve.errors import Expired, Overloaded
from tests.waiting import wait_until


class Recorder:
    """Doubles rows, remembers batch sizes, and waits until it is let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started = threading.Event()
        self.go = threading.Event()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.sizes.append(len(rows))
        self.started.set()
        assert self.go.wait(10)
        if (rows < 0).any():
            raise ValueError("negative")
        return rows * 2


def test_what_waits_goes_together_and_comes_back_to_its_caller():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=16)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher, np.zeros((1, 2)))
        assert run.started.wait(10)
        jobs = [(rows := np.full((n, 2), n), pool.submit(batcher, rows)) for n in (1, 2, 3, 4)]
        wait_until(lambda: len(batcher._jobs) == 4, 10, "4 jobs wait")
        run.go.set()
        for rows, job in jobs:
            assert np.array_equal(job.result(10), rows * 2)
        assert first.result(10).shape == (1, 2)
    assert run.sizes == [1, 10]
    batcher.close()


def test_a_large_request_is_cut_and_shares_its_batches():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=8)
    rows = np.arange(50.0)[:, None]
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(batcher, rows)
        assert run.started.wait(10)
        small = pool.submit(batcher, rows[:1])
        wait_until(lambda: len(batcher._jobs) == 2, 10, "2 jobs wait")
        run.go.set()
        assert np.array_equal(small.result(10), rows[:1] * 2)
        assert np.array_equal(large.result(10), rows * 2)
    assert max(run.sizes) <= 8
    assert run.sizes[1] == 8  # the small one's single row is in it, beside the large one's turns
    batcher.close()


def test_a_bad_request_fails_alone():
    run = Recorder()
    batcher = MicroBatcher(run)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(batcher, np.zeros((1, 1)))
        assert run.started.wait(10)
        bad, good = pool.submit(batcher, -np.ones((1, 1))), pool.submit(batcher, np.ones((1, 1)))
        wait_until(lambda: len(batcher._jobs) == 2, 10, "2 jobs wait")
        run.go.set()
        assert good.result(10) == 2
        with pytest.raises(ValueError, match="negative"):
            bad.result(10)
    batcher.close()


def test_too_much_waiting_is_refused_at_once():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=1, max_waiting=2)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(batcher, np.zeros((1, 1)))
        assert run.started.wait(10)
        waiting = pool.submit(batcher, np.zeros((2, 1)))
        wait_until(lambda: batcher._jobs, 10, "a job waits")
        with pytest.raises(Overloaded, match="2 rows are waiting"):
            batcher(np.zeros((1, 1)))
        run.go.set()
        waiting.result(10)
    batcher.close()


def test_a_closed_batcher_finishes_what_waits():
    batcher = MicroBatcher(lambda rows: rows)
    assert batcher(np.ones((3, 1))).sum() == 3
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher(np.ones((1, 1)))


def test_expired_and_abandoned_rows_are_never_run():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=8, max_waiting=4)
    first = batcher.submit(np.zeros((1, 1)))
    assert run.started.wait(10)
    late = batcher.submit(np.ones((1, 1)), deadline=time.monotonic())
    left = batcher.submit(np.ones((2, 1)))
    kept = batcher.submit(np.ones((1, 1)), deadline=time.monotonic() + 60)
    with pytest.raises(Overloaded):
        batcher.submit(np.ones((1, 1)))
    assert left.cancel()
    assert batcher.waiting == 2  # its place is free at once
    more = batcher.submit(np.ones((2, 1)))
    run.go.set()
    assert first.result(10) == 0
    assert kept.result(10) == 2
    assert more.result(10).shape == (2, 1)
    with pytest.raises(Expired):
        late.result(10)
    batcher.close()
    assert run.sizes == [1, 3]
    assert batcher.waiting == 0


def test_batches_are_observed():
    sizes: list[int] = []
    batcher = MicroBatcher(lambda rows: rows, max_rows=4, observe=sizes.append)
    batcher(np.ones((10, 1)))
    assert sizes == [4, 4, 2]
    batcher.close()


def test_two_runners_share_what_waits_and_its_rows_keep_their_order():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=16, runners=2)
    rows = np.arange(40.0)[:, None]
    whole = batcher.submit(rows)
    wait_until(lambda: len(run.sizes) == 2, 10, "both runners are at work")
    others = [batcher.submit(rows[:n]) for n in (1, 7, 30)]
    run.go.set()
    assert np.array_equal(whole.result(10), rows * 2)
    for n, other in zip((1, 7, 30), others, strict=True):
        assert np.array_equal(other.result(10), rows[:n] * 2)
    batcher.close()
    assert sum(run.sizes) == 78


def test_a_request_that_fails_in_two_batches_fails_once():
    run = Recorder()
    batcher = MicroBatcher(run, max_rows=4, runners=2)
    bad = batcher.submit(-np.ones((40, 1)))
    wait_until(lambda: len(run.sizes) == 2, 10, "both runners are at work")
    run.go.set()
    with pytest.raises(ValueError, match="negative"):
        bad.result(10)
    assert batcher(np.ones((3, 1))).sum() == 6
    batcher.close()
    assert batcher.waiting == 0
