"""Commands that use a bundle on pictures and latents: prepare, encode, decode, reconstruct, interpolate, edit."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rae_serve import files, images, interpolation, picture_files
from rae_serve.arrays import Latents, Pixels, at_most, in_range
from rae_serve.bundle import Bundle
from rae_serve.cli.common import OUTPUT, BundleArgument, DeviceOption, output, output_format
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, is_dark

app = typer.Typer()

PicturesArgument = Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Picture files of any size.")]
_SUFFIXES = (".png", ".webp", ".jpeg", ".jpg", ".gif", ".npy")
_POINT = "SEED:ROW, a picture file, or a .npy file with one latent."
_SPACE = "Interpolate latents, or the noise of two SEED:ROW points."
_PATH = "linear: a straight line. spherical: an arc."
_STRENGTH = "How far to move: 1 is the distance between images with and without the attribute. Repeatable."
_MAX_STEPS = 10_000


def _pictures_file(text: str) -> Path:
    """Parse the name of a file of images, before the work that makes them."""
    out = output(text)
    output_format(out, _SUFFIXES)
    return out


_OUT = "Output: FILE.png, .webp, .jpeg, .gif or .npy."
OutOption = Annotated[Path, typer.Option(parser=_pictures_file, metavar="FILE", help=_OUT)]


@app.command()
def prepare(bundle: BundleArgument, pictures: PicturesArgument, out: OutOption) -> None:
    """Write the images that the model encodes for pictures."""
    _write(out, _read_pictures(pictures, Bundle.load(bundle).manifest.image), None)


@app.command()
def encode(
    bundle: BundleArgument,
    pictures: PicturesArgument,
    out: Annotated[Path, typer.Option(**OUTPUT, help="Output: FILE.npy or FILE.json.")],
    device: DeviceOption = "auto",
) -> None:
    """Encode pictures to latents."""
    suffix = output_format(out, (".npy", ".json"))
    engine = Engine(Bundle.load(bundle), device=device)
    codes = engine.encode(_read_pictures(pictures, engine.manifest.image))
    if suffix == ".npy":
        files.write(out, images.encode_npy(codes))
    else:
        active = engine.manifest.latent.active
        files.write(out, json.dumps({"active": active, "latents": codes.tolist()}).encode())
    typer.echo(f"{out}: {len(codes)} latents of {codes.shape[1]} dimensions")


@app.command()
def decode(
    bundle: BundleArgument,
    latents: Annotated[Path, typer.Argument(metavar="LATENTS", help=".npy file of latents [N, latent_dim].")],
    out: OutOption,
    device: DeviceOption = "auto",
) -> None:
    """Decode latents to images."""
    engine = Engine(Bundle.load(bundle), device=device)
    _write(out, engine.decode(_read_array(latents)), None)


@app.command()
def reconstruct(
    bundle: BundleArgument, pictures: PicturesArgument, out: OutOption, device: DeviceOption = "auto"
) -> None:
    """Encode pictures, and decode their latents to images."""
    engine = Engine(Bundle.load(bundle), device=device)
    _write(out, engine.reconstruct(_read_pictures(pictures, engine.manifest.image)), None)


@app.command()
def interpolate(
    bundle: BundleArgument,
    start: Annotated[str, typer.Argument(metavar="START", help=f"First point: {_POINT}")],
    end: Annotated[str, typer.Argument(metavar="END", help="Last point, of the same kinds.")],
    out: OutOption,
    steps: Annotated[int, typer.Option(help="How many images to generate, both ends included.")] = 8,
    space: Annotated[interpolation.Space, typer.Option(help=_SPACE)] = "latent",
    path: Annotated[interpolation.Path, typer.Option(help=_PATH)] = "linear",
    device: DeviceOption = "auto",
) -> None:
    """Generate images between two points."""
    engine = Engine(Bundle.load(bundle), device=device)
    in_range("steps", steps, 1, _MAX_STEPS)
    read_point = _noise if space == "noise" else _latent
    first, last = read_point(engine, start), read_point(engine, end)
    _write(out, engine.interpolate(first, last, steps, space=space, path=path), steps)


@app.command()
def edit(
    bundle: BundleArgument,
    point: Annotated[str, typer.Argument(metavar="POINT", help=_POINT)],
    attribute: Annotated[str, typer.Option(help="Name of an attribute; `rae-serve inspect` lists them.")],
    out: OutOption,
    strength: Annotated[list[float] | None, typer.Option(help=_STRENGTH, show_default="-1 0 1")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Generate images of a point with more or less of an attribute."""
    engine = Engine(Bundle.load(bundle), device=device)
    strengths = strength or [-1.0, 0.0, 1.0]
    at_most("strength", len(strengths), _MAX_STEPS, "values")
    _write(out, engine.edit([_latent(engine, point)], attribute, strengths), len(strengths))


def _latent(engine: Engine, point: str) -> Any:
    """Return the latent [latent_dim] of a point on the command line."""
    if _seed_and_row(point):
        return engine.latents(_noise(engine, point)[None])[0]
    file = Path(point)
    if file.suffix.lower() == ".npy":
        row = np.squeeze(_read_array(file))
        if row.ndim != 1:
            raise InvalidInput(point, f"must hold one latent, not an array of shape {list(row.shape)}")
        return row
    return engine.encode(_read_pictures([file], engine.manifest.image))[0]


def _noise(engine: Engine, point: str) -> Any:
    """Return the noise [noise_dim] of a point on the command line, which must be SEED:ROW."""
    found = _seed_and_row(point)
    if found is None:
        raise InvalidInput(point, "must be SEED:ROW, because other points have no noise; or use --space latent")
    seed, row = found
    return engine.noise(1, seed=seed, offset=row)[0]


def _seed_and_row(point: str) -> tuple[int, int] | None:
    seed, _, row = point.partition(":")
    return (int(seed), int(row or 0)) if seed.isdecimal() and (row or "0").isdecimal() else None


def _read_pictures(pictures: list[Path], preprocessing: Preprocessing) -> Pixels:
    prepared, dark = [], 0
    for file in pictures:
        picture = picture_files.read(file, str(file))
        prepared.append(preprocessing(picture))
        dark += is_dark(picture)
    picture_files.warn_of_dark(dark)
    return np.stack(prepared)


def _read_array(file: Path) -> Latents:
    try:
        loaded = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(str(file), f"is not a readable .npy file ({error})") from None
    if not isinstance(loaded, np.ndarray):
        raise InvalidInput(str(file), "must be a .npy file of one array")
    return loaded


def _write(out: Path, pixels: Pixels, columns: int | None) -> None:
    """Write images as a grid, an animation or an array, by the suffix of `out`.

    Args:
        out: The file.
        pixels: Images [N, H, W, C].
        columns: Columns of the grid; None makes the grid nearly square.
    """
    suffix = output_format(out, _SUFFIXES)
    encoding: Any = {".jpg": "jpeg"}.get(suffix, suffix[1:])
    match encoding:
        case "gif":
            data = images.animate(pixels, "gif")
        case "npy":
            data = images.encode_npy(pixels)
        case _:
            data = images.encode(images.grid(pixels, columns), encoding)
    files.write(out, data)
    typer.echo(f"{out}: {len(pixels)} image{'s' if len(pixels) > 1 else ''}")
