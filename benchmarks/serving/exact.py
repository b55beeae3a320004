"""Check every pixel that a running service returns, against numpy and ONNX Runtime on the files of its bundle.

    python -m benchmarks.serving.exact ADDRESS BUNDLE [--requests 1000] [--connections 16]

The requests are random: every endpoint, size and lossless format, many at a time. A response with status 429 (busy)
is counted and not repeated, so that the check can run beside a load that is too high. The exit status is 1 if any
response differs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from rae_serve.arrays import Pixels
from rae_serve.noise import normals

LOSSLESS = ("png", "webp", "npy", "zip", "json")
BUSY = 429
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]  # pixels, uint8 [N, H, W, C], or latents, float32 [N, m]


class Reference:
    """Computes what a service must return, from the graphs of a bundle and the formulas of docs/http.md."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.sessions = {
            name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
            for name in ("prior", "decoder", "encoder")
        }
        image = self.manifest["image"]
        self.shape = (image["height"], image["width"], 1 if image["mode"] == "L" else 3)

    def run(self, graph: str, rows: Array) -> Array:
        """Run a graph ("prior", "decoder" or "encoder") on all rows at once."""
        session = self.sessions[graph]
        return session.run(None, {session.get_inputs()[0].name: rows})[0]

    def noise(self, seed: int, row: int, n: int = 1) -> Floats:
        """Return rows `row` to `row + n` of the noise of a seed, float32 [n, noise_dim]."""
        return normals(seed, row, n, self.manifest["noise"]["dim"])

    def interpolate(self, start: Floats, end: Floats, steps: int, path: str, centre: npt.ArrayLike) -> Floats:
        """Return points on the path from one row to another, float32 [steps, D].

        Args:
            start: The first point, float32 [D].
            end: The last point, float32 [D].
            steps: The number of points, both ends included.
            path: "linear" for a line, "spherical" for an arc.
            centre: The centre of the arc, [D].
        """
        centre = np.asarray(centre)
        a, b = start.astype(np.float64) - centre, end.astype(np.float64) - centre
        t = np.linspace(0, 1, steps)[:, None]
        if path == "linear":
            points = (1 - t) * a + t * b
        else:
            angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            points = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        rows: Floats = (points + centre).astype(np.float32)
        rows[0], rows[-1] = start, end
        return rows


class RandomRequests:
    """Draws random requests together with the results that they must have."""

    def __init__(self, reference: Reference, seed: int) -> None:
        self.reference, self.rng = reference, np.random.default_rng(seed)

    def draw(self) -> tuple[str, dict[str, Any], Array]:
        """Return an endpoint, the body of a request to it, and the result: pixels or latents."""
        rng, reference = self.rng, self.reference
        kind = rng.choice(["sample", "decode", "encode", "reconstruct", "interpolate", "edit"])
        n = int(rng.choice([1, 1, 2, 3, 7, 16, 33, 64, 100]))
        seed, row = int(rng.integers(2**53)), int(rng.integers(2**40))
        body: dict[str, Any] = {"format": str(rng.choice(LOSSLESS))}
        codes = reference.run("prior", reference.noise(seed, row, n))
        match kind:
            case "sample":
                body |= {"n": n, "seed": seed, "offset": row}
            case "decode":
                body["latents"] = codes.tolist()
            case "encode" | "reconstruct":
                pixels = rng.integers(0, 256, (n, *reference.shape), dtype=np.uint8)
                body["images"] = [_png(image) for image in pixels]
                codes = reference.run("encoder", pixels)
                if kind == "encode":
                    body["format"] = str(rng.choice(["npy", "json"]))
                    return kind, body, codes
            case "interpolate":
                path, space = str(rng.choice(["linear", "spherical"])), str(rng.choice(["latent", "noise"]))
                ends = {"start": {"seed": seed, "index": row}, "end": {"seed": seed, "index": row + 1}}
                body |= {"steps": n + 1, "path": path, "space": space, **ends}
                start, end = reference.noise(seed, row, 2)
                if space == "noise":
                    points = reference.interpolate(start, end, n + 1, path, np.zeros(len(start)))
                    codes = reference.run("prior", points)
                else:
                    start, end = reference.run("prior", np.stack([start, end]))
                    codes = reference.interpolate(start, end, n + 1, path, reference.manifest["latent"]["mean"])
            case "edit":
                attribute = str(rng.choice(list(reference.manifest["attributes"])))
                strengths = rng.uniform(-2, 2, n).round(3)
                body |= {"point": {"seed": seed, "index": row}, "attribute": attribute}
                body["strengths"] = strengths.tolist()
                direction = np.asarray(reference.manifest["attributes"][attribute]["direction"])
                codes = (codes[0] + np.multiply.outer(strengths, direction)).astype(np.float32)
        if kind in ("interpolate", "edit") and body["format"] == "zip":
            body["format"] = "png"
        return kind, body, reference.run("decoder", codes)


def read_response(kind: str, format_: str, content: bytes, like: Array) -> Array:
    """Return the pixels or latents of a response.

    Args:
        kind: The endpoint.
        format_: The format that the request asked for.
        content: The body of the response.
        like: The expected result, whose shape tells how to cut a grid into images.
    """
    if format_ == "npy":
        return np.load(io.BytesIO(content), allow_pickle=False)
    if format_ == "json":
        document = json.loads(content)
        if kind == "encode":
            return np.asarray(document["latents"], np.float32)
        return np.stack([_pixels(base64.b64decode(image), like) for image in document["images"]])
    if format_ == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return np.stack([_pixels(archive.read(name), like) for name in archive.namelist()])
    n, height, width, channels = like.shape
    columns = n if kind in ("interpolate", "edit") else int(np.ceil(np.sqrt(n)))
    grid = _pixels(content, like)
    cells = grid.reshape(grid.shape[0] // height, height, columns, width, channels).swapaxes(1, 2)
    return cells.reshape(-1, height, width, channels)[:n]


async def check(
    address: str, reference: Reference, requests: int, connections: int, seed: int
) -> collections.Counter[str]:
    """Send random requests, and count right and wrong responses by endpoint, and busy ones.

    Args:
        address: The address of the service.
        reference: The bundle that the service serves as its default model.
        requests: The number of requests in all.
        connections: The number of requests at a time.
        seed: The seed of the requests.
    """
    counts: collections.Counter[str] = collections.Counter()
    left = iter(range(requests))

    async def work(number: int) -> None:
        drawn = RandomRequests(reference, seed + number)
        for _ in left:
            kind, body, expected = drawn.draw()
            response = await client.post(f"/v1/{kind}", json=body)
            if response.status_code == BUSY:
                counts["busy"] += 1
                await asyncio.sleep(float(response.headers["retry-after"]) / 4)
                continue
            if response.status_code == 200:
                problem = _difference(read_response(kind, body["format"], response.content, expected), expected)
            else:
                problem = f"{response.status_code}, {response.text[:200]}"
            counts[f"{kind} {'WRONG' if problem else 'right'}"] += 1
            if problem:
                print(f"{kind} {json.dumps(body)[:300]}: {problem}", file=sys.stderr)

    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        await asyncio.gather(*(work(number) for number in range(connections)))
    return counts


def main() -> None:
    """Check, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the address of the service")
    parser.add_argument("bundle", type=Path, help="the folder of the bundle that is served as the default model")
    parser.add_argument("--requests", type=int, default=1000, help="the number of requests in all")
    parser.add_argument("--connections", type=int, default=16, help="the number of requests at a time")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the requests")
    given = parser.parse_args()
    reference = Reference(given.bundle)
    counts = asyncio.run(check(given.address, reference, given.requests, given.connections, given.seed))
    print(json.dumps(counts))
    sys.exit(any("WRONG" in name for name in counts))


def _difference(got: Array, expected: Array) -> str | None:
    """Describe how two arrays differ in type, shape or values. Return None if they are equal."""
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return f"is {got.dtype} {list(got.shape)}, not {expected.dtype} {list(expected.shape)}"
    if np.array_equal(got, expected):
        return None
    return f"differs by {np.abs(got.astype(float) - expected).max():g}"


def _pixels(data: bytes, like: Array) -> Pixels:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L" if like.shape[-1] == 1 else "RGB"))
    return pixels[..., None] if like.shape[-1] == 1 else pixels


def _png(image: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
