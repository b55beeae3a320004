"""The golden vectors of a bundle, `golden.json`, by which programs in other languages check themselves.

`docs/bundle.md` describes the file.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve import arrays, interpolation, png
from rae_serve.arrays import MAX_INTEGER, Latents, Pixels
from rae_serve.bundle import GENERATOR
from rae_serve.engine import Engine
from rae_serve.errors import BundleError
from rae_serve.manifest import sha256
from rae_serve.preprocessing import read_picture
from rae_serve.sessions import Graph

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # colour types of PNG
NPZ_SEED: Final = 0  # the seed of the noise in golden.npz, from row 0 on
_ORIENTATION_TAG: Final = 0x0112  # of EXIF
_SAMPLES: Final = ((7, 0), (7, 1), (0, 0), (MAX_INTEGER, MAX_INTEGER))  # pairs of a seed and a row
_STEPS: Final = 5  # of each interpolation
_STRENGTHS: Final = (-1.0, 0.5, 2.0)
_MAX_PIXEL_BYTES: Final = 4096  # larger images are not in the file, which would have megabytes of them
# Programs differ in the last digit of float32 where they use sin or acos.
_FORMULA_TOLERANCE: Final = 1e-6


def vectors(engine: Engine) -> bytes:
    """Return the golden vectors that an engine computes, as the bytes of `golden.json`."""
    manifest = engine.manifest
    seeded = [_noise(engine, seed, row) for seed, row in _SAMPLES]
    latents = [engine.latents([noise])[0] for noise in seeded]
    samples = [
        {"seed": seed, "row": row, "noise": _numbers(noise), "latent": _numbers(latent)}
        | _image(engine.sample(1, seed=seed, offset=row)[0])
        for (seed, row), noise, latent in zip(_SAMPLES, seeded, latents, strict=True)
    ]
    pictures = []
    for name, file in _pictures(manifest.image.height, manifest.image.width):
        prepared = manifest.image(read_picture(file))
        encoded = {"latent": _numbers(engine.encode([prepared])[0])}
        pictures.append({"name": name, "file": _base64(file)} | _image(prepared) | encoded)
    direction = np.array(manifest.latent.std)
    document = {
        "npz": {"seed": NPZ_SEED, "rows": len(engine.bundle.golden()["noise"])},
        "samples": samples,
        "interpolations": [
            {"space": space, "path": path, "points": arrays.decimals(_between(engine, space, path, seeded, latents))}
            for space in ("latent", "noise")
            for path in ("linear", "spherical")
        ],
        "edit": {
            "direction": direction.tolist(),
            "strengths": _STRENGTHS,
            "points": arrays.decimals(interpolation.along(latents[0][None], direction, _STRENGTHS)),
        },
        "pictures": pictures,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def check(engine: Engine, document: dict[str, Any]) -> str:
    """Check that an engine and this library compute the golden vectors, and say what was checked.

    Noise and prepared pictures must be equal; latents and images may differ by the tolerance of the manifest.

    Raises:
        BundleError: A value differs, or the document has not the form of golden vectors.
    """
    try:
        return _check(engine, document)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden.json does not fit the bundle ({error!r})") from None


def png_file(
    samples: npt.NDArray[Any],
    colour_type: int,
    *,
    depth: int = 8,
    palette: bytes = b"",
    transparency: bytes = b"",
    orientation: int = 1,
) -> bytes:
    """Return a PNG file of a kind that `png.encode` does not write.

    Args:
        samples: Integers [H, W, C] below 2**depth.
        colour_type: GREY, COLOUR, PALETTE, GREY_ALPHA or COLOUR_ALPHA.
        depth: Bits per sample: 1, 2, 4, 8 or 16.
        palette: The data of the chunk PLTE; no such chunk if empty.
        transparency: The data of the chunk tRNS; no such chunk if empty.
        orientation: The EXIF orientation, in a chunk eXIf; no such chunk if 1.
    """
    height, width = samples.shape[:2]
    bits = samples.reshape(height, -1, 1) >> np.arange(depth)[::-1] & 1
    rows = np.packbits(bits.astype(np.uint8).reshape(height, -1), axis=1)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter type: 0, none
    # An EXIF block of one entry: the tag, type 3 (a 16-bit number), one of them.
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, _ORIENTATION_TAG, 3, 1, orientation, 0, 0)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0),
        b"eXIf": exif if orientation != 1 else b"",
        b"PLTE": palette,
        b"tRNS": transparency,
        b"IDAT": zlib.compress(filtered.tobytes(), 9),
    }
    return png.container((kind, data) for kind, data in chunks.items() if data)


def _check(engine: Engine, document: dict[str, Any]) -> str:
    tolerance = engine.manifest.tolerance
    npz = engine.bundle.golden()["noise"]
    file = f"{GENERATOR}.onnx"
    joined = Graph(engine.bundle.graph(GENERATOR), "cpu") if file in engine.bundle.contents else None
    _equal("the noise of golden.npz", engine.noise(document["npz"]["rows"], seed=document["npz"]["seed"]), npz)
    exact = 0
    for sample in document["samples"]:
        what = f"of seed {sample['seed']}, row {sample['row']}"
        noise = _noise(engine, sample["seed"], sample["row"])
        _equal(f"the noise {what}", noise, _floats(sample["noise"]))
        _near(f"the latent {what}", engine.latents([noise])[0], sample["latent"], tolerance.latents)
        image = engine.sample(1, seed=sample["seed"], offset=sample["row"])[0]
        exact += sha256(image.tobytes()) == sample["sha256"]
        if "pixels" in sample:
            wanted = np.frombuffer(base64.b64decode(sample["pixels"]), np.uint8).reshape(image.shape)
            _alike(f"the image {what}", image, wanted, tolerance.grey_levels)
        if joined:
            _alike(f"the image by {file} {what}", joined(noise[None])[0], image, tolerance.grey_levels)
    ends, latents = ([_floats(sample[name]) for sample in document["samples"]] for name in ("noise", "latent"))
    for walk in document["interpolations"]:
        points = _between(engine, walk["space"], walk["path"], ends, latents)
        what = f"the {walk['path']} interpolation in {walk['space']} space"
        _near(what, points, walk["points"], _FORMULA_TOLERANCE)
    edit = document["edit"]
    moved = interpolation.along(latents[0][None], edit["direction"], edit["strengths"])
    _near("the edit", moved, edit["points"], _FORMULA_TOLERANCE)
    for picture in document["pictures"]:
        prepared = engine.manifest.image(read_picture(base64.b64decode(picture["file"])))
        if sha256(prepared.tobytes()) != picture["sha256"]:
            raise BundleError(f"golden.json: the picture {picture['name']!r} is prepared differently")
        what = f"the latent of the picture {picture['name']!r}"
        _near(what, engine.encode([prepared])[0], picture["latent"], tolerance.latents)
    count = len(document["samples"])
    return (
        f"{exact} of {count} images to the bit; noise, latents, walks and {len(document['pictures'])} pictures agree"
    )


def _between(
    engine: Engine, space: str, path: interpolation.Path, noise: list[Latents], latents: list[Latents]
) -> Latents:
    """Interpolate between the first two samples."""
    if space == "noise":
        return interpolation.between_noises(noise[0], noise[1], _STEPS, path, engine.manifest.noise.roles)
    return interpolation.between(latents[0], latents[1], _STEPS, path, engine.manifest.latent.mean)


def _equal(what: str, actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    if not np.array_equal(actual, wanted):
        raise BundleError(f"golden.json: {what} differs")


def _alike(what: str, actual: Pixels, wanted: Pixels, tolerance: int) -> None:
    difference = np.abs(actual.astype(int) - wanted).max()
    if difference > tolerance:
        raise BundleError(f"golden.json: {what} differs by {difference} grey levels, more than {tolerance}")


def _near(what: str, actual: npt.NDArray[Any], wanted: npt.ArrayLike, tolerance: float) -> None:
    values = np.asarray(wanted, np.float64)
    difference = (np.abs(actual - values) / (1.0 + np.abs(values))).max()
    if not difference <= tolerance:
        raise BundleError(f"golden.json: {what} differs by {difference:.3g}, more than {tolerance:g}")


def _noise(engine: Engine, seed: int, row: int) -> Latents:
    return _floats(engine.noise(1, seed=seed, offset=row)[0])


def _floats(row: npt.ArrayLike) -> Latents:
    return np.asarray(row, np.float32)


def _numbers(row: Latents) -> list[float]:
    return arrays.decimals(row[None])[0]


def _image(image: Pixels) -> dict[str, str]:
    data = image.tobytes()
    return {"sha256": sha256(data)} | ({"pixels": _base64(data)} if len(data) <= _MAX_PIXEL_BYTES else {})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pictures(height: int, width: int) -> Iterator[tuple[str, bytes]]:
    """Yield pictures of ten kinds for a model of this shape, each with a name."""
    palette = bytes(i * step % 256 for i in range(16) for step in (16, 83, 211))
    yield "grey, of the model's size", png_file(_texture(height, width, 1), GREY)
    yield "colour, landscape", png_file(_texture(28, 61, 3), COLOUR)
    yield "colour, portrait, EXIF orientation 6", png_file(_texture(28, 61, 3), COLOUR, orientation=6)
    yield "colour, EXIF orientation 7", png_file(_texture(20, 31, 3), COLOUR, orientation=7)
    yield "colour, 3 × 2 pixels", png_file(_texture(2, 3, 3), COLOUR)
    yield "grey, 100 × 9 pixels", png_file(_texture(9, 100, 1), GREY)
    yield "colour with alpha", png_file(_texture(40, 33, 4), COLOUR_ALPHA)
    yield (
        "16 colours, five of them with alpha",
        png_file(
            _texture(35, 50, 1, 4), PALETTE, depth=4, palette=palette, transparency=bytes((0, 64, 128, 192, 254))
        ),
    )
    yield "black and white", png_file(_texture(50, 50, 1, 1), GREY, depth=1)
    yield "grey with alpha, 16 bits", png_file(_texture(24, 37, 2, 16), GREY_ALPHA, depth=16)


def _texture(height: int, width: int, channels: int, depth: int = 8) -> npt.NDArray[np.int64]:
    """Return integers [height, width, channels] below 2**depth, with much detail and without chance."""
    y, x, channel = np.ogrid[:height, :width, :channels]
    texture = (x * x + 3 * y * y + x * y * (channel + 1) + 40 * channel) % 256
    deep: npt.NDArray[np.int64] = texture * 256 + (37 * x + 91 * y) % 256
    return deep >> (16 - depth)
