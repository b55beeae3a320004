"""How a training shows how it goes, and how it is interrupted."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from training.trainer import Trainer


def fit(trainer: Trainer, console: Console) -> None:
    """Train to the end with a line that shows how it goes. Raises Interrupted, once saved, on Ctrl-C and SIGTERM."""
    # The second Ctrl-C ends at once: the handler has put the usual one back.
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        trainer.stop()
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, stop)
    try:
        with ProgressLine(trainer, console) as bar:
            trainer.fit(bar.report)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


class ProgressLine:
    """A live line with the stage, the rate, the losses and the time left; nothing in a pipe."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer = trainer
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=18)),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:3.0f}%  {task.fields[left]} left", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[terms]}", table_column=Column(no_wrap=True, ratio=1, overflow="ellipsis")),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1.0, rate="", left="", terms="")
        self._stage = -1
        self._shown_at = 0.0

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, terms: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._shown_at < 0.2:
            return
        trainer = self._trainer
        if trainer.stage != self._stage:
            self._stage = trainer.stage
            self._began, self._first, self._done = now, trainer.stage_step, trainer.progress
        self._shown_at = now
        elapsed, done = now - self._began, trainer.progress - self._done
        rate = (trainer.stage_step - self._first) / elapsed if elapsed else 0.0
        left = elapsed * (1.0 - trainer.progress) / done if done > 0 else 0.0
        self._progress.update(
            self._task,
            completed=trainer.progress,
            description=f"{trainer.stages[trainer.stage]} {trainer.step:,}",
            rate=f"{rate:.1f} steps/s" if rate else "",
            left=f"{int(left) // 60}:{int(left) % 60:02d}" if left else "?",
            terms="  ".join(f"{name} {value:.4g}" for name, value in self._facts(terms)),
        )

    def _facts(self, terms: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """What the model has to tell of itself as one number, such as the active dimensions; then the losses."""
        for name, value in self._trainer.model.diagnostics().items():
            if isinstance(value, int | float):
                yield name, value
        for name, value in terms.items():
            yield _short(name), value


def _short(name: str) -> str:
    """critic/wasserstein → c/wasserstein: a terminal is only so wide."""
    optimizer, term = name.split("/")
    return f"{optimizer[0]}/{term}"


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost, and end."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what was computed is kept, and the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
