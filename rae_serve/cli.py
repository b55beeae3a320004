"""The `rae-serve` command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from rae_serve import files, images, noise, parity, verbs
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.optional import training

app = typer.Typer(
    help="Train generative auto-encoders, export them to ONNX, sample them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(verbs.app)
out_console = Console()
Number = TypeVar("Number")


def _integer(text: str) -> int:
    return _parsed(int, text, "an integer")


def _number(text: str) -> float:
    return _parsed(float, text, "a number")


def _parsed(kind: Callable[[str], Number], text: str, wanted: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"must be {wanted}, not {text!r}") from None


_INTEGER: dict[str, Any] = {"parser": _integer, "metavar": "N"}
_NUMBER: dict[str, Any] = {"parser": _number, "metavar": "X"}
_RECIPES = "the recipe's"  # where a recipe has the default
_STUDIES = "priors-2d, bias-variance, nearest-neighbours, mask-trajectory, latent-covariance or capacity."

DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]

MAX_IMAGES = 1_000_000
MAX_IN_ONE_FILE = 100_000
_CHUNK = 1024


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
        typer.Option(**_INTEGER, help="How many joint steps; prior_steps, a key, come after.", show_default=_RECIPES),
    ] = None,
    minutes: Annotated[float | None, typer.Option(**_NUMBER, help="A time budget.", show_default="none")] = None,
    seed: Annotated[
        int | None,
        typer.Option(**_INTEGER, help="Of everything random.", show_default=_RECIPES),
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
def recipes() -> None:
    """List the recipes."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "data", "steps", "description"):
        table.add_column(column, justify="right" if column == "steps" else "left")
    recipe = training("recipe")
    for name in recipe.names():
        loaded = recipe.load(name)
        table.add_row(name, loaded.data, f"{loaded.steps:,}", loaded.description)
    out_console.print(table)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.", show_default="bundles/RUN")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="Add generator.onnx: prior and decoder in one.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The joint checkpoint of least held-out error.")] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Keep the dimensions that a mask closed.")] = False,
) -> None:
    """Export a run's model to a bundle of ONNX graphs."""
    runs = training("runs")
    target = out or Path("bundles") / run.resolve().name
    loaded = runs.Run.open(run)
    bundle = training("export").export(loaded, target, fused=fused, prune=not no_prune, best=best)
    typer.echo(f"{target}: digest {bundle.manifest.digest}")
    _print_parity(bundle.manifest.parity)


@app.command()
def inspect(
    bundle: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest, without its checksum.")] = False,
) -> None:
    """Show what a bundle holds."""
    manifest = Bundle.load(bundle).manifest
    document = manifest.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    height, width, channels = manifest.image.shape
    rows = {
        "model": f"{manifest.model.kind}, by the recipe {manifest.model.recipe}",
        "image": f"{height} × {width} × {channels}, {manifest.image.mode}",
        "latent": f"{manifest.latent.dim} of {manifest.latent.trained_dim} trained dimensions",
        "noise": f"{manifest.noise.dim} columns, {manifest.noise.algorithm}",
        "attributes": ", ".join(manifest.attributes) or "none",
        "training": f"{manifest.training.steps:,} steps on {manifest.training.images:,} images "
        f"of {manifest.training.data}, seed {manifest.training.seed}",
        **{name: f"{figure.value:g} ({figure.protocol})" for name, figure in manifest.quality.items()},
        "format": f"{manifest.precision}, opset {manifest.opset}, IR version {manifest.ir_version}",
        "licence": manifest.licence,
        "created by": manifest.created_by,
        "digest": manifest.digest,
        **{name: f"{file.bytes:,} bytes" for name, file in manifest.files.items()},
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    out_console.print(table)


@app.command()
def verify(bundle: BundleArgument) -> None:
    """Check a bundle's hashes, and its graphs against the golden arrays from torch."""
    loaded = Bundle.load(bundle)
    typer.echo(f"{len(loaded.manifest.files)} files are what the manifest says")
    measured = parity.measure(Engine(loaded, device="cpu"), loaded.golden())
    parity.check(measured, loaded.manifest.tolerance_grey_levels)
    _print_parity(measured)


@app.command()
def sample(
    bundle: BundleArgument,
    out: Annotated[
        Path, typer.Option(help="FILE.png (a grid where n > 1), FILE.npz, or a folder.", show_default=False)
    ],
    n: Annotated[int, typer.Option("-n", "--n", **_INTEGER, help="How many images.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(**_INTEGER, help="Row i of a seed is one image.", show_default="random"),
    ] = None,
    offset: Annotated[int, typer.Option(**_INTEGER, help="The first row.")] = 0,
    temperature: Annotated[float, typer.Option(**_NUMBER, help="A factor on the noise.")] = 1.0,
    device: DeviceOption = "auto",
) -> None:
    """Generate images."""
    limit = MAX_IN_ONE_FILE if out.suffix in (".png", ".npz") else MAX_IMAGES
    if not 1 <= n <= limit:
        raise InvalidInput("n", f"must be from 1 to {limit:,} for {out}, not {n}")
    engine = Engine(Bundle.load(bundle), device=device)
    seed = noise.random_seed() if seed is None else seed
    if out.suffix not in (".png", ".npz"):
        if out.suffix:
            raise InvalidInput("--out", f"must end in .png or .npz, or be a folder's name, not {out}")
        with files.new_folder(out) as folder:
            for start in range(offset, offset + n, _CHUNK):
                count = min(_CHUNK, offset + n - start)
                pixels = engine.sample(count, seed=seed, offset=start, temperature=temperature)
                for index, image in enumerate(pixels, start):
                    (folder / f"{seed}-{index:06d}.png").write_bytes(images.encode(image))
    else:
        pixels = engine.sample(n, seed=seed, offset=offset, temperature=temperature)
        if out.suffix == ".png":
            files.write(out, images.encode(images.grid(pixels)))
        else:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, images=pixels, seed=seed, offset=offset, digest=engine.manifest.digest)
            files.write(out, buffer.getvalue())
    typer.echo(f"{out}: {n} image{'s' if n > 1 else ''} of seed {seed}, from row {offset}")


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
    n: Annotated[int, typer.Option("-n", "--n", **_INTEGER, help="At most so many images of each kind.")] = 10_000,
    seed: Annotated[int, typer.Option(**_INTEGER, help="Of the generated images.")] = 0,
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
    training("evaluation.commands").study(name, data, out, quick, device)


def main() -> None:
    """Run the command; an error is one line on stderr and exit status 2."""
    try:
        # Anything but a number is a command's own end, which is a success.
        status = app(standalone_mode=False, prog_name="rae-serve")
        sys.exit(status if isinstance(status, int) else 0)
    except RaeServeError as error:
        _fail(str(error))
    except TyperException as error:  # of the command line itself
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", status=130)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}")


def _fail(message: str, status: int = 2) -> None:
    if message:  # there is none where the help has just been shown instead
        print("rae-serve: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def _print_parity(measured: Any) -> None:
    typer.echo(
        f"against torch: prior {measured.prior:.1e}, encoder {measured.encoder:.1e} (relative), "
        f"decoder {measured.decoder_grey_levels} grey levels"
    )


if __name__ == "__main__":
    main()
