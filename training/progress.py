"""Show the progress of a training, and let Ctrl-C stop it without loss."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from training.priors.base import ignore
from training.trainer import Trainer

_REFRESH_SECONDS = 0.2  # on a terminal
_LINE_SECONDS = (30.0, 300.0)  # elsewhere: the least and the most between two lines, a quarter of the time so far


def fit(trainer: Trainer, console: Console) -> None:
    """Train to the end and show the progress. Ctrl-C, SIGTERM and SIGHUP save a checkpoint and raise Interrupted."""
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:  # as under nohup
        usual[hangup] = signal.getsignal(hangup)

    def stop(number: int, _: object) -> None:
        trainer.stop()
        # A second Ctrl-C ends the process at once. But a terminal that closes may send two signals, and torchrun
        # passes on the one that the terminal has sent to all.
        if number != hangup and trainer.world.size == 1:
            signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, stop)
    try:
        with ProgressLine(trainer, console) if trainer.world.first else nullcontext() as line:
            trainer.fit(line.report if line else ignore)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C in this block, say that nothing is lost, and exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what was computed is kept, and the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one progress bar per task on a terminal, and nothing elsewhere.

    Yields:
        A function to call with a task, how much of it is done, and its total.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done)

        yield report


class ProgressLine:
    """The stage, the losses, the speed and the time left: a live line on a terminal, elsewhere a line now and then.

    What cannot be shown, because the terminal or the reader is gone, does not end the training.
    """

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer = trainer
        self._console = console
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=18)),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:3.0f}%  {task.fields[left]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[terms]}", table_column=Column(no_wrap=True, ratio=1, overflow="ellipsis")),
        )
        self._progress = Progress(*columns, console=console, expand=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0, rate="", left="", terms="")
        self._stage = -1
        self._started = time.monotonic()
        self._due = self._started + (0.0 if console.is_terminal else _LINE_SECONDS[0])

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._progress.stop()

    def report(self, terms: Mapping[str, float]) -> None:
        """Show a step's loss terms, if the last ones were shown long enough ago."""
        now = time.monotonic()
        trainer, state = self._trainer, self._trainer.state
        if state.stage != self._stage:
            self._stage = state.stage
            self._began, self._first_step, self._first_progress = now, state.stage_step, trainer.progress
        if now < self._due:
            return
        elapsed, done = now - self._began, trainer.progress - self._first_progress
        rate = (state.stage_step - self._first_step) / elapsed if elapsed else 0.0
        left = elapsed * (1.0 - trainer.progress) / done if done > 0 else 0.0
        fields: dict[str, Any] = {
            "description": f"{trainer.stage.name} {state.step:,}",
            "left": f"{int(left) // 60}:{int(left) % 60:02d} left" if left else "",
            "rate": f"{rate:.1f} steps/s" if rate else "",
            "terms": "  ".join(f"{name} {value:.4g}" for name, value in self._shown(terms)),
        }
        with suppress(OSError):
            if self._console.is_terminal:
                self._progress.update(self._task, completed=trainer.progress, **fields)
                self._due = now + _REFRESH_SECONDS
            else:
                least, most = _LINE_SECONDS
                self._due = now + min(max(least, (now - self._started) / 4), most)
                words = (time.strftime("%H:%M:%S"), f"{trainer.progress:.0%}", *fields.values())
                print("  ".join(filter(None, words)), file=self._console.file, flush=True)

    def _shown(self, terms: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Yield the model's diagnostics that are numbers, such as the active dimensions, and then the losses."""
        for name, value in self._trainer.model.diagnostics().items():
            if isinstance(value, int | float):
                yield name, value
        for name, value in terms.items():
            yield _short(name), value


def _short(name: str) -> str:
    """Shorten critic/wasserstein to c/wasserstein, so that more fits into a terminal."""
    optimizer, term = name.split("/")
    return f"{optimizer[0]}/{term}"
