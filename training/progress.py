"""Show the progress of a training, and let Ctrl-C stop it without loss."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from training.trainer import Trainer

_REFRESH_SECONDS = 0.2


def fit(trainer: Trainer, console: Console) -> None:
    """Train to the end and show a progress line. Ctrl-C and SIGTERM save a checkpoint and raise Interrupted."""
    # `stop` restores the usual handler, so that a second Ctrl-C ends the process at once.
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        trainer.stop()
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, stop)
    try:
        with ProgressLine(trainer, console) as line:
            trainer.fit(line.report)
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


class ProgressLine:
    """A live line with the stage, the losses, the speed and the time left. Nothing is shown without a terminal."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer = trainer
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=18)),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:3.0f}%  {task.fields[left]} left", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[terms]}", table_column=Column(no_wrap=True, ratio=1, overflow="ellipsis")),
        )
        self._progress = Progress(*columns, console=console, expand=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0, rate="", left="", terms="")
        self._stage = -1
        self._shown_at = 0.0

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, terms: Mapping[str, float]) -> None:
        """Show the loss terms of a step; called more often than five times a second, skip some steps."""
        now = time.monotonic()
        if now - self._shown_at < _REFRESH_SECONDS:
            return
        trainer, state = self._trainer, self._trainer.state
        if state.stage != self._stage:
            self._stage = state.stage
            self._began, self._first_step, self._first_progress = now, state.stage_step, trainer.progress
        self._shown_at = now
        elapsed, done = now - self._began, trainer.progress - self._first_progress
        rate = (state.stage_step - self._first_step) / elapsed if elapsed else 0.0
        left = elapsed * (1.0 - trainer.progress) / done if done > 0 else 0.0
        self._progress.update(
            self._task,
            completed=trainer.progress,
            description=f"{trainer.stage.name} {state.step:,}",
            rate=f"{rate:.1f} steps/s" if rate else "",
            left=f"{int(left) // 60}:{int(left) % 60:02d}" if left else "?",
            terms="  ".join(f"{name} {value:.4g}" for name, value in self._shown(terms)),
        )

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
