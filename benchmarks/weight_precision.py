"""Measure what weights in float16 or in int8 change in the images of a bundle.

    pip install '.[train]'
    python -m benchmarks.weight_precision bundles/flexae bundles/maskaae

float16 is what `rae-serve export --precision float16` does. int8 has one scale for each output channel of a layer.
Both are converted back to float32 before use. The bundles must have float32 weights. Differences from them are in
grey levels: of 1,000 generated images, and of these images encoded and decoded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from rae_serve import bundle as bundles
from rae_serve.arrays import Pixels
from rae_serve.bundle import GRAPHS, Bundle
from rae_serve.engine import Engine
from training.export import rewriting

IMAGES = 1000
SEED = 5
OUTPUT_CHANNEL = {"Conv": 0, "Gemm": 0, "ConvTranspose": 1, "MatMul": 1}  # axis of the weights


def as_float16(graph: bytes) -> tuple[bytes, int]:
    """Return a graph with weights in float16, and its bytes."""
    small = rewriting.with_float16_weights(graph)
    return small, len(small)


def as_int8(graph: bytes) -> tuple[bytes, int]:
    """Return a graph with weights rounded to int8, and the bytes that it would have."""
    model, size = onnx.load_from_string(graph), len(graph)
    for tensor, operator in rewriting.weights_of_layers(model):
        weights = numpy_helper.to_array(tensor)
        axes = tuple(axis for axis in range(weights.ndim) if axis != OUTPUT_CHANNEL[operator])
        scale = np.abs(weights).max(axis=axes, keepdims=True) / 127
        scale[scale == 0] = 1
        rounded = (np.round(weights / scale) * scale).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        size -= 3 * weights.size - 4 * scale.size
    return model.SerializeToString(), size


def images(engine: Engine, given: Pixels | None = None) -> tuple[Pixels, Pixels]:
    """Return generated images, and the reconstructions of `given`, or of these images."""
    generated = engine.sample(IMAGES, seed=SEED)
    return generated, engine.reconstruct(generated if given is None else given)


def main() -> None:
    """Print a row for each bundle and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    rewrites: dict[str, Callable[[bytes], tuple[bytes, int]]] = {"float16": as_float16, "int8": as_int8}
    print("| bundle | weights | MB | images: largest, mean | reconstructions: largest |\n|---|---|---|---|---|")
    for path in parser.parse_args().bundles:
        bundle = Bundle.load(path)
        exact, exact_again = images(Engine(bundle, device="cpu"))
        megabytes = sum(len(bundle.graph(name)) for name in GRAPHS) / 1e6
        print(f"| {bundle.name} | float32 | {megabytes:.1f} | | |")
        for precision, rewrite in rewrites.items():
            rewritten = {name: rewrite(bundle.graph(name)) for name in GRAPHS}
            contents = {**bundle.contents, **{f"{name}.onnx": graph for name, (graph, _) in rewritten.items()}}
            facts = bundle.manifest.model_dump(exclude={"files", "digest"})
            engine = Engine(Bundle(path, bundles.describe(facts, contents), contents), device="cpu")
            made, again = images(engine, exact)
            levels = np.abs(made.astype(int) - exact)
            largest = np.abs(again.astype(int) - exact_again).max()
            megabytes = sum(size for _, size in rewritten.values()) / 1e6
            print(f"| | {precision} | {megabytes:.1f} | {levels.max()}, {levels.mean():.3f} | {largest} |")


if __name__ == "__main__":
    main()
