"""The command that generates images by the million: generate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from rae_serve import generation
from rae_serve.bundle import Bundle
from rae_serve.cli.common import INTEGER, NUMBER, OUTPUT, SEED, TEMPERATURE, BundleArgument, DeviceOption
from rae_serve.generation import ALONE, Worker
from rae_serve.shards import LIST, ROWS_PER_SHARD, Format

app = typer.Typer()

_OUT = "Folder of the shards. What is there already and undamaged is not made again."
_SHARD = "Make every K-th shard, from shard k on, where k is from 0 to K − 1."
_FORMAT = "png, webp: tar files of pictures, as WebDataset reads them. npz: NumPy files."
_CUT = "Rows of each shard; the last may have fewer."
_THREADS = "CPU cores to use; 0 means all that the process may use."


def _two_numbers(text: str, separator: str, wanted: str) -> tuple[int, int]:
    found = re.fullmatch(rf"([0-9]{{1,20}}){separator}([0-9]{{1,20}})", text)
    if not found:
        raise typer.BadParameter(f"must be {wanted}, not {text!r}")
    return int(found[1]), int(found[2])


def _rows(text: str) -> range:
    return range(*_two_numbers(text, ":", "A:B, such as 0:1000000"))


def _worker(text: str) -> Worker:
    return Worker(*_two_numbers(text, "/", "k/K, such as 0/8"))


@app.command()
def generate(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(**OUTPUT, help=_OUT)],
    seed: Annotated[int, typer.Option(**INTEGER, help=SEED)],
    rows: Annotated[range, typer.Option(parser=_rows, metavar="A:B", help="The rows A … B − 1 of the seed.")],
    shard: Annotated[
        Worker | None, typer.Option(parser=_worker, metavar="k/K", help=_SHARD, show_default="0/1")
    ] = None,
    format: Annotated[Format, typer.Option(help=_FORMAT)] = "png",
    rows_per_shard: Annotated[int, typer.Option(**INTEGER, help=_CUT)] = ROWS_PER_SHARD,
    temperature: Annotated[float, typer.Option(**NUMBER, help=TEMPERATURE)] = 1.0,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option(**INTEGER, help=_THREADS)] = 0,
) -> None:
    """Generate images by the million, in shards that any number of machines can divide among themselves."""
    with _progress() as report:
        outcome = generation.generate(
            Bundle.load(bundle),
            out,
            seed=seed,
            rows=rows,
            worker=shard or ALONE,
            format=format,
            rows_per_shard=rows_per_shard,
            temperature=temperature,
            device=device,
            threads=threads,
            report=report,
        )
    complete = f"{LIST} lists all shards" if outcome.complete else "shards of other workers are missing"
    typer.echo(f"{out}: shards made: {outcome.made}, found undamaged: {outcome.found}; {complete}")


@contextmanager
def _progress() -> Iterator[generation.Report]:
    """Show how much is done, the rate and the time left, on a terminal only. Yield the function to report to."""
    console = Console(stderr=True)
    columns = BarColumn(bar_width=20), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    """Shows the images per second of the last half minute."""

    def render(self, task: Task) -> Text:
        """Return the rate as text; no text while it is not known."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")
