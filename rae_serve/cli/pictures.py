"""Commands that put a bundle to work on pictures and latents."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from rae_serve import files, images
from rae_serve.arrays import Latents, Pixels
from rae_serve.bundle import Bundle
from rae_serve.cli.common import BundleArgument, DeviceOption
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import read_picture

app = typer.Typer()

PicturesArgument = Annotated[list[Path], typer.Argument(help="Picture files.", show_default=False)]
OutOption = Annotated[Path, typer.Option(help="FILE.png, .webp, .jpeg, .gif or .npy.", show_default=False)]
_POINT = "SEED:ROW, a picture file, or a .npy file of one latent."


@app.command()
def encode(
    path: BundleArgument,
    pictures: PicturesArgument,
    out: Annotated[Path, typer.Option(help="FILE.npy or FILE.json.", show_default=False)],
    device: DeviceOption = "auto",
) -> None:
    """Encode pictures to latents, float32 [N, latent_dim]."""
    engine = Engine(Bundle.load(path), device=device)
    if out.suffix not in (".npy", ".json"):
        raise InvalidInput("--out", f"must end in .npy or .json, not {out}")
    codes = engine.encode(_read(pictures, engine))
    if out.suffix == ".npy":
        files.write(out, images.encode_npy(codes))
    else:
        active = engine.manifest.latent.active
        files.write(out, json.dumps({"active": active, "latents": codes.tolist()}).encode())
    typer.echo(f"{out}: {len(codes)} latents of {codes.shape[1]} dimensions")


@app.command()
def decode(
    path: BundleArgument,
    latents: Annotated[Path, typer.Argument(help="A .npy file of [N, latent_dim].", show_default=False)],
    out: OutOption,
    device: DeviceOption = "auto",
) -> None:
    """Make images of latents."""
    engine = Engine(Bundle.load(path), device=device)
    _write(out, engine.decode(_array(latents)), None)


@app.command()
def reconstruct(
    path: BundleArgument, pictures: PicturesArgument, out: OutOption, device: DeviceOption = "auto"
) -> None:
    """Encode pictures and decode them again."""
    engine = Engine(Bundle.load(path), device=device)
    _write(out, engine.reconstruct(_read(pictures, engine)), None)


@app.command()
def interpolate(
    path: BundleArgument,
    start: Annotated[str, typer.Argument(help=_POINT, show_default=False)],
    end: Annotated[str, typer.Argument(help=_POINT, show_default=False)],
    out: OutOption,
    steps: Annotated[int, typer.Option(help="How many images, both ends included.")] = 8,
    space: Annotated[Literal["latent", "noise"], typer.Option(help="noise: of two seeds.")] = "latent",
    way: Annotated[Literal["linear", "spherical"], typer.Option("--path", help="A line or an arc.")] = "linear",
    device: DeviceOption = "auto",
) -> None:
    """Make images on the way between two points."""
    engine = Engine(Bundle.load(path), device=device)
    _limited("steps", steps)
    find = _noise if space == "noise" else _latent
    a, b = find(engine, start), find(engine, end)
    _write(out, engine.interpolate(a, b, steps, space=space, path=way), steps)


@app.command()
def edit(
    path: BundleArgument,
    point: Annotated[str, typer.Argument(help=_POINT, show_default=False)],
    attribute: Annotated[str, typer.Option(help="One that inspect lists.", show_default=False)],
    out: OutOption,
    strength: Annotated[
        list[float] | None, typer.Option(help="In distances between the classes; repeatable.", show_default="-1 0 1")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Make images of a point with more, or less, of an attribute."""
    engine = Engine(Bundle.load(path), device=device)
    strengths = strength or [-1.0, 0.0, 1.0]
    _limited("strength", len(strengths))
    _write(out, engine.edit([_latent(engine, point)], attribute, strengths), len(strengths))


def _latent(engine: Engine, point: str) -> Any:
    """The latent [latent_dim] that a word on the command line means."""
    if _seed(point):
        return engine.latents(_noise(engine, point)[None])[0]
    file = Path(point)
    if file.suffix == ".npy":
        row = np.squeeze(_array(file))
        if row.ndim != 1:
            raise InvalidInput(point, f"must hold one latent, not {list(row.shape)}")
        return row
    return engine.encode(_read([file], engine))[0]


def _noise(engine: Engine, point: str) -> Any:
    seed = _seed(point)
    if seed is None:
        raise InvalidInput(point, "must be SEED:ROW: only seeds have a noise; use --space latent for this point")
    return engine.noise(1, seed=seed[0], offset=seed[1])[0]


def _seed(point: str) -> tuple[int, int] | None:
    seed, _, row = point.partition(":")
    return (int(seed), int(row or 0)) if seed.isdecimal() and (row or "0").isdecimal() else None


def _read(pictures: list[Path], engine: Engine) -> Pixels:
    return np.stack([engine.manifest.image(read_picture(file.read_bytes(), str(file))) for file in pictures])


def _array(file: Path) -> Latents:
    try:
        loaded = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(str(file), f"is not a readable .npy file ({error})") from None
    if not isinstance(loaded, np.ndarray):
        raise InvalidInput(str(file), "must be a .npy file of one array")
    return loaded


def _limited(name: str, count: int) -> None:
    if not 1 <= count <= 10_000:
        raise InvalidInput(name, f"must be from 1 to 10000, not {count}")


def _write(out: Path, pixels: Pixels, columns: int | None) -> None:
    """Images as one picture (in `columns`, or nearly square), an animation, or an array."""
    encoding: Any = {".jpg": "jpeg"}.get(out.suffix, out.suffix[1:])
    match encoding:
        case "png" | "webp" | "jpeg":
            data = images.encode(images.grid(pixels, columns), encoding)
        case "gif":
            data = images.animate(pixels, "gif")
        case "npy":
            data = images.encode_npy(pixels)
        case _:
            raise InvalidInput("--out", f"must end in .png, .webp, .jpeg, .gif or .npy, not {out}")
    files.write(out, data)
    typer.echo(f"{out}: {len(pixels)} image{'s' if len(pixels) > 1 else ''}")
