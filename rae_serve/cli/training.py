"""Commands that need torch: train, recipes, export, evaluate, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from rae_serve.cli.common import INTEGER, NUMBER, DeviceOption, console, print_parity, training

app = typer.Typer()

RunArgument = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]
_RECIPES = "the recipe's"  # where a recipe has the default
_STUDIES = "priors-2d, bias-variance, nearest-neighbours, mask-trajectory, latent-covariance or capacity."


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(help="A data set's name, a folder of images, or a .npy/.npz file.", show_default=_RECIPES),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/RECIPE")] = None,
    steps: Annotated[
        int | None,
        typer.Option(**INTEGER, help="How many joint steps; prior_steps, a key, come after.", show_default=_RECIPES),
    ] = None,
    minutes: Annotated[float | None, typer.Option(**NUMBER, help="A time budget.", show_default="none")] = None,
    seed: Annotated[
        int | None,
        typer.Option(**INTEGER, help="Of everything random.", show_default=_RECIPES),
    ] = None,
    device: DeviceOption = "auto",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run where it stopped.")] = False,
) -> None:
    """Train a model by a recipe."""
    named = {"steps": steps, "minutes": minutes, "seed": seed}
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    training("commands").train(recipe, [*(overrides or []), *given], data, out, device, resume)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe's name, or a .toml file: show its keys.", show_default="all recipes"),
    ] = None,
) -> None:
    """List the recipes, or the keys of one with their values and meanings."""
    recipe = training("recipe")
    if name is None:
        table = Table(box=None, pad_edge=False)
        for column in ("recipe", "data", "steps", "description"):
            table.add_column(column, justify="right" if column == "steps" else "left")
        for known in recipe.names():
            loaded = recipe.load(known)
            table.add_row(known, loaded.data, f"{loaded.steps:,}", loaded.description)
    else:
        table = Table("key", "value", "meaning", box=None, pad_edge=False)
        for key in recipe.explain(recipe.load(name)):
            table.add_row(key.name, "" if key.value is None else str(key.value), key.meaning)
    console.print(table)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.", show_default="bundles/RUN")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="Add generator.onnx: prior and decoder in one.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The joint checkpoint of least held-out error.")] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Keep the dimensions that a mask closed.")] = False,
) -> None:
    """Export a run's model to a bundle of ONNX graphs."""
    target = out or Path("bundles") / run.resolve().name
    loaded = training("runs").Run.open(run)
    bundle = training("export.bundle").export(loaded, target, fused=fused, prune=not no_prune, best=best)
    typer.echo(f"{target}: digest {bundle.manifest.digest}")
    print_parity(bundle.manifest.parity)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run's or a bundle's folder.", show_default=False)],
    data: Annotated[
        str | None, typer.Option(help="The data set it was trained on.", show_default="as in training")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Some of them, with commas between.", show_default="all but authors-protocol")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write.", show_default="evaluations/NAME")] = None,
    n: Annotated[int, typer.Option("-n", "--n", **INTEGER, help="At most so many images of each kind.")] = 10_000,
    seed: Annotated[int, typer.Option(**INTEGER, help="Of the generated images.")] = 0,
    network: Annotated[Literal["cifar10", "inception"], typer.Option(help="Which features compare.")] = "cifar10",
    weights: Annotated[Path | None, typer.Option(help="Inception's file.", show_default="fetched")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure a model, and write its figures and a report for people."""
    commands = training("evaluation.commands")
    commands.evaluate(model, data, metrics, out, n, seed, network, weights, device)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help=_STUDIES, show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write, and to go on in.", show_default=False)],
    data: Annotated[str | None, typer.Option(help="A data set with test images.", show_default="the study's")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes instead of an hour, on the small digits.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Do a published figure again: data, pictures and a page; restartable."""
    training("studies.commands").study(name, data, out, quick, device)
