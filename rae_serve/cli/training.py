"""Commands that need the extra `train`: quickstart, train, fit, recipes, export, evaluate, compare, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Column, Table

from rae_serve.cli.common import INTEGER, NUMBER, OUTPUT, DeviceOption, console, import_training, print_parity

app = typer.Typer()

_FROM_RECIPE = "from the recipe"
_STEPS = "Joint training steps. The key prior_steps sets how many steps of the prior follow."
_PRIORS = "mixture, flow, second-stage, generator or iop."
_PRECISION = "How the graphs hold weights. float16 halves the bundle; the command says how much it changes."
_KEEP = "Put the verdict into the bundle, or the report's pictures too, some of which show images of the data."
_STUDIES = "priors-2d, bias-variance, nearest-neighbours, mask-trajectory, latent-covariance or capacity."


@app.command()
def quickstart(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures.")],
    minutes: Annotated[float, typer.Option(**NUMBER, help="Time to train.")] = 60.0,
    name: Annotated[str | None, typer.Option(help="Name of the model.", show_default="that of the folder")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Make a model of a folder of pictures: look, train, export and evaluate."""
    import_training("quickstart").quickstart(folder, minutes, name, device)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a .toml file.")],
    data: Annotated[
        str | None, typer.Option(help="Data set, folder of images, or .npy or .npz file.", show_default=_FROM_RECIPE)
    ] = None,
    out: Annotated[Path | None, typer.Option(**OUTPUT, help="Folder of the run.", show_default="runs/RECIPE")] = None,
    steps: Annotated[int | None, typer.Option(**INTEGER, help=_STEPS, show_default=_FROM_RECIPE)] = None,
    minutes: Annotated[
        float | None, typer.Option(**NUMBER, help="Stop after this many minutes.", show_default="no limit")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(**INTEGER, help="Seed of all random numbers.", show_default=_FROM_RECIPE)
    ] = None,
    device: DeviceOption = "auto",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe. Repeatable.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Run or bundle whose weights to start from.", show_default="random weights"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run where it stopped.")] = False,
) -> None:
    """Train a model by a recipe."""
    named = {"steps": steps, "minutes": minutes, "seed": seed}
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    changes = [*(overrides or []), *given]
    import_training("commands").train(recipe, changes, data, out, device, resume=resume, start=start)


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    prior: Annotated[str, typer.Option(help=_PRIORS)],
    data: Annotated[str | None, typer.Option(help="The training data.", show_default="as in training")] = None,
    out: Annotated[
        Path | None, typer.Option(**OUTPUT, help="Folder of the new run.", show_default="RUN-PRIOR")
    ] = None,
    components: Annotated[
        str | None, typer.Option(help="Gaussians of a mixture: a number, or auto.", show_default="auto")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(**INTEGER, help="Steps of a prior that is trained by steps.", show_default="4000")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(**INTEGER, help="Seed of all random numbers.", show_default="as in training")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Take the checkpoint with the least held-out error.")] = False,
    device: DeviceOption = "auto",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the fit where it stopped.")] = False,
) -> None:
    """Fit another prior on the auto-encoder of a run, as a new run."""
    named = {"posthoc_components": components, "prior_steps": steps, "seed": seed}
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    commands = import_training("commands")
    commands.fit(run, prior, [*(overrides or []), *given], data, out, device, best=best, resume=resume)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Name or .toml file: show its keys.", show_default="all recipes"),
    ] = None,
) -> None:
    """List the recipes, or the keys of one with their values and meanings."""
    recipe = import_training("recipe", "cli")
    if name is None:
        table = Table("recipe", "data", Column("steps", justify="right"), "description", box=None, pad_edge=False)
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
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    out: Annotated[
        Path | None, typer.Option(**OUTPUT, help="Folder of the bundle.", show_default="bundles/RUN")
    ] = None,
    precision: Annotated[Literal["float32", "float16"], typer.Option(help=_PRECISION)] = "float32",
    generator: Annotated[
        bool | None,
        typer.Option(
            "--generator/--no-generator",
            help="Add generator.onnx: prior and decoder in one graph.",
            show_default="up to 64 MB",
        ),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Export the checkpoint with the least held-out error.")
    ] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Keep the dimensions that the mask closed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Export the model of a run to a bundle of ONNX graphs."""
    target = out or Path("bundles") / run.resolve().name
    loaded = import_training("runs").Run.open(run)
    exporter = import_training("export.bundle")
    bundle = exporter.export(
        loaded,
        target,
        precision="float32" if precision == "float32" else "float16-weights",
        generator=generator,
        prune=not no_prune,
        best=best,
        overwrite=overwrite,
    )
    typer.echo(f"{target}: digest {bundle.manifest.digest}")
    print_parity(bundle.manifest.parity)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a run or a bundle.")],
    data: Annotated[str | None, typer.Option(help="The training data.", show_default="as in training")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas.", show_default="all but authors-protocol")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(**OUTPUT, help="Folder of the results.", show_default="evaluations/NAME")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", **INTEGER, help="The most images of each kind.")] = 10_000,
    seed: Annotated[int, typer.Option(**INTEGER, help="Seed of the generated images.")] = 0,
    network: Annotated[
        Literal["cifar10", "inception"], typer.Option(help="Network whose features the metrics compare.")
    ] = "cifar10",
    weights: Annotated[
        Path | None, typer.Option(help="Weights file of the Inception network.", show_default="downloaded")
    ] = None,
    device: DeviceOption = "auto",
    keep: Annotated[Literal["verdict", "pictures"] | None, typer.Option(help=_KEEP, show_default="nothing")] = None,
) -> None:
    """Measure a model, and write its figures and an HTML report."""
    commands = import_training("evaluation.commands")
    commands.evaluate(model, data, metrics, out, n, seed, network, weights, device, keep)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Names of recipes, or .toml files.")],
    out: Annotated[Path, typer.Option(**OUTPUT, help="Folder of runs and results. Name it again to continue.")],
    data: Annotated[
        str | None, typer.Option(help="Data set, folder or file of images.", show_default="of the first recipe")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(**NUMBER, help="Time budget of each run.", show_default=_FROM_RECIPE)
    ] = None,
    seeds: Annotated[int, typer.Option(**INTEGER, help="Runs of each recipe, with seeds 0, 1, …")] = 1,
    device: DeviceOption = "auto",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of every recipe that has it. Repeatable."),
    ] = None,
) -> None:
    """Compare systems on the same images: train them under one budget, and write a table and pictures."""
    commands = import_training("comparison.commands")
    commands.compare(recipes, overrides or [], data, out, minutes, seeds, device)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help=_STUDIES)],
    out: Annotated[
        Path, typer.Option(**OUTPUT, help="Folder of the results. Name it again to continue after a stop.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Data set with test images.", show_default="depends on the study")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use the small digits: minutes instead of an hour.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Reproduce a published figure: its data, pictures and a page."""
    import_training("studies.commands").study(name, data, out, quick, device)
