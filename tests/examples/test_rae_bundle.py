"""examples/js: rae-bundle against the golden vectors of bundles, the library, and the HTTP API."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from PIL import Image

from rae_serve import golden
from rae_serve.engine import Engine
from rae_serve.manifest import sha256
from rae_serve.preprocessing import Preprocessing, read_picture
from tests.examples.conftest import BUNDLES, EXAMPLES

RNG = np.random.default_rng(0)
WAVES = BUNDLES["waves"]
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def pixels(texts: list[str], shape: tuple[int, int, int]) -> np.ndarray:
    """Images [N, H, W, C] of their bytes in base64."""
    return np.stack([np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape) for text in texts])


def distance(actual, wanted) -> float:
    wanted = np.asarray(wanted, np.float64)
    return float((np.abs(np.asarray(actual, np.float64) - wanted) / (1 + np.abs(wanted))).max())


def grey_levels(actual: np.ndarray, wanted: np.ndarray) -> int:
    assert actual.shape == wanted.shape
    return int(np.abs(actual.astype(int) - wanted).max())


def test_golden_vectors(example, javascript):
    vectors, manifest = example.vectors(), example.manifest
    found = javascript(
        """
        const bundle = await open(given.folder);
        const { samples, interpolations, edit, pictures: files } = JSON.parse(
          new TextDecoder().decode(await bundle.file("golden.json")));
        const noise = samples.flatMap(({ seed, row }) => bundle.noise({ seed, row }));
        const [noise0, noise1, latent0, latent1] = floats(
          ["noise", "latent"].flatMap((kind) => samples.slice(0, 2).map((sample) => sample[kind])));
        const { latent, noise: { roles } } = bundle.manifest;
        const prepared = [];
        for (const { file } of files) prepared.push(bundle.prepare(await pictures.readPng(bytes(file))));
        return {
          noise: numbers(noise),
          latents: numbers(await bundle.latents(noise)),
          images: (await Promise.all(samples.map((one) => bundle.sample(one)))).map(([image]) => base64(image)),
          walks: interpolations.map(({ space, path }) => numbers(space === "latent"
            ? rae.between(latent0, latent1, 5, path, latent.mean)
            : rae.betweenNoises(noise0, noise1, 5, path, roles))),
          edit: numbers(rae.along([latent0], edit.direction, edit.strengths)),
          prepared: prepared.map(base64),
          encoded: numbers(await bundle.encode(prepared)),
        };
        """,
        folder=str(example.path),
    )
    shape, tolerance, samples = manifest.image.shape, manifest.tolerance, vectors["samples"]
    assert np.array_equal(np.float32(found["noise"]), np.float32([sample["noise"] for sample in samples]))
    assert distance(found["latents"], [sample["latent"] for sample in samples]) <= tolerance.latents
    wanted = pixels([sample["pixels"] for sample in samples], shape)
    assert grey_levels(pixels(found["images"], shape), wanted) <= tolerance.grey_levels
    for walk, points in zip(vectors["interpolations"], found["walks"], strict=True):
        assert distance(points, walk["points"]) <= 1e-6
    assert distance(found["edit"], vectors["edit"]["points"]) <= 1e-6
    hashes = [sha256(base64.b64decode(image)) for image in found["prepared"]]
    assert hashes == [picture["sha256"] for picture in vectors["pictures"]]
    assert distance(found["encoded"], [picture["latent"] for picture in vectors["pictures"]]) <= tolerance.latents


def test_http_api(example, javascript, client, photograph):
    shape, tolerance = example.manifest.image.shape, example.manifest.tolerance
    names = list(example.manifest.directions())[:2]  # an attribute and, in waves, an opposite
    found = javascript(
        """
        const bundle = await open(given.folder);
        const images = (list) => list.map(base64);
        const [start, end] = bundle.noise({ seed: 3, row: 5, n: 2 });
        const latents = await bundle.latents([start, end]);
        const walks = [];
        for (const [space, ends] of [["latent", latents], ["noise", [start, end]]])
          for (const path of ["linear", "spherical"])
            walks.push(images(await bundle.interpolate(...ends, 7, { space, path })));
        const picture = bundle.prepare(await pictures.readPng(bytes(given.photograph)));
        const edits = [];
        for (const name of given.names) edits.push(images(await bundle.edit(latents.slice(0, 1), name, [-1, 0.5])));
        return {
          samples: images(await bundle.sample({ seed: 7, row: 60, n: 70, temperature: 0.7 })),
          walks,
          edits,
          prepared: images([picture]),
          encoded: numbers(await bundle.encode([picture])),
          reconstructed: images(await bundle.reconstruct([picture])),
        };
        """,
        folder=str(example.path),
        photograph=base64.b64encode(photograph).decode(),
        names=names,
    )
    wanted = client.sample(70, seed=7, offset=60, temperature=0.7)
    assert wanted.std(0).mean() > 10 * tolerance.grey_levels  # or the comparisons would say nothing
    assert grey_levels(pixels(found["samples"], shape), wanted) <= tolerance.grey_levels
    ways = [(space, path) for space in ("latent", "noise") for path in ("linear", "spherical")]
    for (space, path), walk in zip(ways, found["walks"], strict=True):
        wanted = client.interpolate((3, 5), (3, 6), 7, space=space, path=path)
        assert grey_levels(pixels(walk, shape), wanted) <= tolerance.grey_levels
    for name, edit in zip(names, found["edits"], strict=True):
        assert grey_levels(pixels(edit, shape), client.edit((3, 5), name, [-1, 0.5])) <= tolerance.grey_levels
    assert np.array_equal(pixels(found["prepared"], shape), client.prepare([photograph]))
    assert distance(found["encoded"], client.encode([photograph])) <= tolerance.latents
    wanted = client.reconstruct([photograph])
    assert grey_levels(pixels(found["reconstructed"], shape), wanted) <= tolerance.grey_levels


def files() -> Iterator[bytes]:
    """Yield PNG files of every colour type and depth: with transparency or not, turned, and interlaced."""
    kinds = [(golden.GREY, depth) for depth in (1, 2, 4, 8, 16)] + [(golden.PALETTE, depth) for depth in (1, 2, 4, 8)]
    kinds += [(kind, depth) for kind in (golden.COLOUR, golden.GREY_ALPHA, golden.COLOUR_ALPHA) for depth in (8, 16)]
    channels = {golden.GREY: 1, golden.COLOUR: 3, golden.PALETTE: 1, golden.GREY_ALPHA: 2, golden.COLOUR_ALPHA: 4}
    for i, ((kind, depth), transparent) in enumerate(product(kinds, (False, True))):
        samples = RNG.integers(0, 2**depth, (*RNG.integers(1, 50, 2), channels[kind]))
        palette = RNG.bytes(3 * 2**depth) if kind == golden.PALETTE else b""
        transparency = b""
        if transparent and kind in (golden.GREY, golden.COLOUR):
            transparency = samples[0, 0].astype(">u2").tobytes()
        elif transparent and kind == golden.PALETTE:
            transparency = RNG.bytes(2 ** (depth - 1))
        file = golden.png_file(
            samples, kind, depth=depth, palette=palette, transparency=transparency, orientation=i % 8 + 1
        )
        yield file
        yield interlaced(file, [golden.png_file(part, kind, depth=depth) for part in adam7(samples)])
    y, x = np.mgrid[:40, :50]
    file = io.BytesIO()
    Image.fromarray(((x * x + y * 3) // 7 % 256).astype(np.uint8)).save(file, "PNG")  # with filters of every type
    yield file.getvalue()


def adam7(samples: np.ndarray) -> list[np.ndarray]:
    """Return the seven passes of an interlaced PNG file, without those that are empty."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = [samples[y::down, x::across] for x, y, across, down in steps]
    return [one for one in passes if one.size]


def interlaced(file: bytes, passes: list[bytes]) -> bytes:
    """Return a PNG file with the chunks of `file` and the pixels of `passes`, which are PNG files of their own."""
    rows = b"".join(zlib.decompress(dict(chunks(one))[b"IDAT"]) for one in passes)
    new = {b"IHDR": dict(chunks(file))[b"IHDR"][:12] + b"\1", b"IDAT": zlib.compress(rows)}
    return file[:8] + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in (dict(chunks(file)) | new).items()
    )


def chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        yield file[at + 4 : at + 8], file[at + 8 : at + 8 + length]
        at += 12 + length


def test_pictures_of_every_kind_are_prepared_to_the_byte(javascript):
    cases = []
    for file in files():
        crop = [("none", "center", 9)[int(RNG.integers(3))], int(RNG.integers(1, 40))][int(RNG.integers(2))]
        height, width, background = (int(x) for x in (*RNG.integers(1, 33, 2), RNG.integers(256)))
        mode, resize = ("L", "RGB")[int(RNG.integers(2))], FILTERS[len(cases) % len(FILTERS)]
        rules = Preprocessing(height=height, width=width, mode=mode, crop=crop, resize=resize, background=background)
        cases.append((file, rules))
    found = javascript(
        """
        const prepared = [];
        for (const [file, rules] of given.cases) {
          prepared.push(base64(rae.prepare(await pictures.readPng(bytes(file)), rules)));
        }
        return prepared;
        """,
        cases=[(base64.b64encode(file).decode(), rules.model_dump()) for file, rules in cases],
    )
    for text, (file, rules) in zip(found, cases, strict=True):
        assert np.array_equal(pixels([text], rules.shape)[0], rules(read_picture(file))), rules


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_are_read_by_others(javascript, channels):
    image = RNG.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    file = javascript(
        "return base64(await pictures.writePng(bytes(given.image), 7, 5))", image=base64.b64encode(image).decode()
    )
    with Image.open(io.BytesIO(base64.b64decode(file))) as picture:
        assert np.array_equal(np.asarray(picture).reshape(image.shape), image)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (
            "manifest.json",
            b'"waves"',
            b'"waveZ"',
            "BundleError: manifest.json is damaged",
        ),
        (
            "manifest.json",
            b'"schema_version": 2',
            b'"schema_version": 3',
            "manifest.json has schema version 3",
        ),
        ("manifest.json", b'"schema_version": 2', b'"schema_version": 1', "run rae-serve upgrade on the bundle"),
        ("manifest.json", b"{", b"", "BundleError: manifest.json cannot be read"),
        ("decoder.onnx", b"image", b"imagf", "BundleError: decoder.onnx is damaged"),
        ("prior.onnx", None, None, "BundleError: prior.onnx cannot be read: ENOENT"),
        ("manifest.json", None, None, "BundleError: manifest.json cannot be read: ENOENT"),
    ],
)
def test_a_damaged_bundle_is_named(javascript, tmp_path, file, old, new, problem):
    damaged = shutil.copytree(WAVES, tmp_path / "waves") / file
    if old is None:
        damaged.unlink()
    else:
        content = damaged.read_bytes()
        assert old in content
        damaged.write_bytes(content.replace(old, new, 1))
    code = "return problem(async () => (await open(given.folder)).sample({ seed: 7 }))"
    assert problem in javascript(code, folder=str(damaged.parent))


def test_wrong_arguments_are_named(javascript, photograph):
    problems = {
        "bundle.sample({ seed: -1 })": "RangeError: seed must be an integer from 0 to 9007199254740991, not -1",
        "bundle.sample({ seed: 2 ** 53 })": "seed must be an integer",
        "bundle.sample({ seed: 1, row: 2 ** 53 - 1, n: 2 })": "row + n − 1 must be an integer",
        "bundle.sample({ seed: 1, n: 0 })": "n must be an integer from 1",
        "bundle.sample({ seed: 1, temperature: 11 })": "temperature must be from 0 to 10, not 11",
        "bundle.decode([[1, 2]])": "RangeError: latents must have 8 numbers a row, not 2",
        "bundle.decode([Array(8).fill(NaN)])": "latents must be numbers within ±1000000, not NaN",
        "bundle.decode([])": "latents must be an array of at least one row",
        "bundle.encode([new Uint8Array(3)])": "images must be an array of Uint8Arrays of 960 bytes (16 × 20 × 3)",
        "bundle.between(one, two, 0)": "steps must be a positive integer, not 0",
        "bundle.between(one, two, 3, { path: 'arc' })": "path must be linear or spherical, not arc",
        "bundle.between(one, two, 3, { space: 'z' })": "space must be latent or noise, not z",
        "bundle.edit([one], 'Smile', [1])": 'the model has no attribute "Smile"; it has Warm, Cold, Broad',
        "bundle.edit([one], 'Warm', [101])": "strengths must be numbers within ±100",
        "bundle.prepare({ width: 2, height: 2, data: new Uint8Array(7) })": "cannot have 7 bytes",
        "pictures.readPng(new Uint8Array(30))": "PictureError: the file is no PNG",
        "pictures.readPng(bytes(given.cut))": "PictureError: the PNG file is damaged",
        "pictures.readPng(bytes(given.cut).slice(0, 20))": "PictureError: the PNG file is truncated",
    }
    code = """
        const bundle = await open(given.folder);
        const [one, two] = [1, 2].map((x) => Array(8).fill(x));
        return Promise.all([%s]);
        """
    tasks = ", ".join(f"problem(async () => {call})" for call in problems)
    cut = base64.b64encode(photograph[:500]).decode()
    found = javascript(code % tasks, folder=str(WAVES), cut=cut)
    for call, actual, wanted in zip(problems, found, problems.values(), strict=True):
        assert wanted in actual, call


def test_a_graph_is_fetched_once_and_its_progress_is_told(javascript):
    requests, told = javascript(
        """
        const [requests, told] = [[], []];
        const read = (name) => { requests.push(name); return readFile(`${given.folder}/${name}`); };
        const onProgress = (progress) => told.push(progress);
        const bundle = await rae.loadBundle(read, ort, { sessionOptions, onProgress });
        await Promise.all([bundle.sample({ seed: 1 }), bundle.sample({ seed: 2 })]);
        return [requests, [told, bundle.size("prior", "decoder")]];
        """,
        folder=str(WAVES),
    )
    assert sorted(requests) == ["decoder.onnx", "manifest.json", "prior.onnx"]
    sizes = {name: (WAVES / name).stat().st_size for name in requests[1:]}
    assert {one["file"]: one["total"] for one in told[0] if one["loaded"] == one["total"]} == sizes
    assert told[1] == sum(sizes.values())


def test_the_types_name_what_the_module_exports(javascript):
    types = {name: (EXAMPLES / "js" / f"{name}.d.ts").read_text() for name in ("rae-bundle", "pictures")}
    modules, methods = javascript(
        """
        const { constructor, ...methods } = Object.getOwnPropertyDescriptors(rae.Bundle.prototype);
        return [{ "rae-bundle": Object.keys(rae), pictures: Object.keys(pictures) }, Object.keys(methods)];
        """
    )
    for name, exports in modules.items():
        assert sorted(exports) == sorted(re.findall(r"^export (?:class|function) (\w+)", types[name], re.MULTILINE))
    declared = types["rae-bundle"].partition("export class Bundle {")[2].partition("\n}")[0]
    names = set(re.findall(r"^  (?:readonly )?(\w+)[(:]", declared, re.MULTILINE))
    assert names - {"manifest"} == set(methods)


def test_the_methods_are_those_of_the_engine(javascript):
    methods = javascript("return Object.getOwnPropertyNames(rae.Bundle.prototype)")
    assert {"sample", "latents", "decode", "encode", "reconstruct", "between", "interpolate", "moved", "edit"} <= (
        set(methods) & set(dir(Engine))
    )


def test_the_package_holds_the_module_and_its_types(node):
    command = [shutil.which("npm") or "npm", "pack", "--dry-run", "--json"]
    packed = subprocess.run(command, cwd=EXAMPLES / "js", capture_output=True, text=True, timeout=60, check=True)
    (package,) = json.loads(packed.stdout)
    assert {file["path"] for file in package["files"]} == {
        "README.md", "package.json", "pictures.d.ts", "pictures.js", "rae-bundle.d.ts", "rae-bundle.js",
    }  # fmt: skip
