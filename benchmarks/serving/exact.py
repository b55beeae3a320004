"""Is every pixel right: `python -m benchmarks.serving.exact ADDRESS BUNDLE [--requests 1000] [--connections 16]`.

Random requests of every endpoint, size and format to a running service, many at a time; every answer is
compared with the same pixels, made by numpy and ONNX Runtime from the bundle's files alone. Refusals for want of
room (429) are counted and not asked again, so it may run beside a load that is too high. Ends with status 1 where
anything differs.
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
import onnxruntime
from PIL import Image

from rae_serve.noise import normals

LOSSLESS = ("png", "webp", "npy", "zip", "json")
BUSY = 429


class ByHand:
    """The graphs of a bundle, and the formulas of docs/http.md."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.sessions = {
            name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
            for name in ("prior", "decoder", "encoder")
        }
        image = self.manifest["image"]
        self.shape = (image["height"], image["width"], 1 if image["mode"] == "L" else 3)

    def run(self, graph: str, rows: np.ndarray) -> np.ndarray:
        """One graph, all rows at once."""
        session = self.sessions[graph]
        return session.run(None, {session.get_inputs()[0].name: rows})[0]

    def noise(self, seed: int, row: int, n: int = 1) -> np.ndarray:
        """float32 [n, noise_dim]."""
        return normals(seed, row, n, self.manifest["noise"]["dim"])

    def way(self, start: np.ndarray, end: np.ndarray, steps: int, path: str, centre: np.ndarray) -> np.ndarray:
        """float32 [steps, D] from one row to another, along a line or an arc about `centre`."""
        a, b = start.astype(np.float64) - centre, end.astype(np.float64) - centre
        t = np.linspace(0, 1, steps)[:, None]
        if path == "linear":
            points = (1 - t) * a + t * b
        else:
            angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            points = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        points = (points + centre).astype(np.float32)
        points[0], points[-1] = start, end
        return points


class Asker:
    """Draws requests, and knows what must come."""

    def __init__(self, hand: ByHand, seed: int) -> None:
        self.hand, self.rng = hand, np.random.default_rng(seed)

    def draw(self) -> tuple[str, dict[str, Any], np.ndarray]:
        """A path, a body, and pixels uint8 [N, H, W, C], or latents float32 [N, D]."""
        rng, hand = self.rng, self.hand
        kind = rng.choice(["sample", "decode", "encode", "reconstruct", "interpolate", "edit"])
        n = int(rng.choice([1, 1, 2, 3, 7, 16, 33, 64, 100]))
        seed, row = int(rng.integers(2**53)), int(rng.integers(2**40))
        body: dict[str, Any] = {"format": str(rng.choice(LOSSLESS))}
        codes = hand.run("prior", hand.noise(seed, row, n))
        match kind:
            case "sample":
                body |= {"n": n, "seed": seed, "offset": row}
            case "decode":
                body["latents"] = codes.tolist()
            case "encode" | "reconstruct":
                pixels = rng.integers(0, 256, (n, *hand.shape), dtype=np.uint8)
                body["images"] = [_png(image) for image in pixels]
                codes = hand.run("encoder", pixels)
                if kind == "encode":
                    body["format"] = str(rng.choice(["npy", "json"]))
                    return kind, body, codes
            case "interpolate":
                path, space = str(rng.choice(["linear", "spherical"])), str(rng.choice(["latent", "noise"]))
                ends = {"start": {"seed": seed, "index": row}, "end": {"seed": seed, "index": row + 1}}
                body |= {"steps": n + 1, "path": path, "space": space, **ends}
                start, end = hand.noise(seed, row, 2)
                if space == "noise":
                    codes = hand.run("prior", hand.way(start, end, n + 1, path, np.zeros(len(start))))
                else:
                    start, end = hand.run("prior", np.stack([start, end]))
                    codes = hand.way(start, end, n + 1, path, np.asarray(hand.manifest["latent"]["mean"]))
            case "edit":
                attribute = str(rng.choice(list(hand.manifest["attributes"])))
                strengths = rng.uniform(-2, 2, n).round(3)
                body |= {"point": {"seed": seed, "index": row}, "attribute": attribute}
                body["strengths"] = strengths.tolist()
                direction = np.asarray(hand.manifest["attributes"][attribute]["direction"])
                codes = (codes[0] + np.multiply.outer(strengths, direction)).astype(np.float32)
        if kind in ("interpolate", "edit") and body["format"] == "zip":
            body["format"] = "png"
        return kind, body, hand.run("decoder", codes)


def seen(kind: str, format_: str, content: bytes, like: np.ndarray) -> np.ndarray:
    """What an answer holds, in the shape of what it should hold."""
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


async def ask(address: str, hand: ByHand, requests: int, connections: int, seed: int) -> collections.Counter[str]:
    """Ask, and count: right and wrong answers by endpoint, and refusals."""
    counts: collections.Counter[str] = collections.Counter()
    left = iter(range(requests))

    async def work(number: int) -> None:
        asker = Asker(hand, seed + number)
        for _ in left:
            kind, body, expected = asker.draw()
            answer = await client.post(f"/v1/{kind}", json=body)
            if answer.status_code == BUSY:
                counts["busy"] += 1
                await asyncio.sleep(float(answer.headers["retry-after"]) / 4)
                continue
            got = seen(kind, body["format"], answer.content, expected) if answer.status_code == 200 else None
            right = got is not None and got.dtype == expected.dtype and np.array_equal(got, expected)
            counts[f"{kind} {'right' if right else 'WRONG'}"] += 1
            if not right:
                shown = f"{answer.status_code}, {answer.text[:200]}" if got is None else _difference(got, expected)
                print(f"{kind} {json.dumps(body)[:300]}: {shown}", file=sys.stderr)

    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        await asyncio.gather(*(work(number) for number in range(connections)))
    return counts


def main() -> None:
    """Ask, compare, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("bundle", type=Path, help="the one that is served as the default model")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts = asyncio.run(ask(given.address, ByHand(given.bundle), given.requests, given.connections, given.seed))
    print(json.dumps(counts))
    sys.exit(any("WRONG" in name for name in counts))


def _difference(got: np.ndarray, expected: np.ndarray) -> str:
    if got.shape != expected.shape:
        return f"{got.shape} for {expected.shape}"
    return f"differs by {np.abs(got.astype(float) - expected).max():g}"


def _pixels(data: bytes, like: np.ndarray) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L" if like.shape[-1] == 1 else "RGB"))
    return pixels[..., None] if like.shape[-1] == 1 else pixels


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
