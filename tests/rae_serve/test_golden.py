"""Golden vectors: what they hold is what another program computes, and what differs is found."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from rae_serve import golden
from rae_serve.bundle import Bundle, describe
from rae_serve.engine import Engine
from rae_serve.errors import BundleError


@pytest.fixture(scope="module")
def vectors(engine) -> dict:
    return json.loads(golden.vectors(engine))


def test_the_bundles_vectors_are_those_of_this_release(bundle, vectors):
    assert vectors["npz"] == bundle.vectors()["npz"]
    for part in ("name", "file", "sha256"):
        assert [one[part] for one in vectors["pictures"]] == [one[part] for one in bundle.vectors()["pictures"]]


def test_samples_are_those_of_the_engine(engine, vectors):
    for sample in vectors["samples"]:
        image = engine.sample(1, seed=sample["seed"], offset=sample["row"])[0]
        assert base64.b64decode(sample["pixels"]) == image.tobytes()
        assert hashlib.sha256(image.tobytes()).hexdigest() == sample["sha256"]
        assert (
            np.float32(sample["noise"]).tolist()
            == engine.noise(1, seed=sample["seed"], offset=sample["row"])[0].tolist()
        )
    assert {(sample["seed"], sample["row"]) for sample in vectors["samples"]} >= {(7, 0), (2**53 - 1, 2**53 - 1)}


def test_pictures_are_of_ten_kinds_and_any_reader_opens_them(vectors):
    modes = [Image.open(io.BytesIO(base64.b64decode(picture["file"]))).mode for picture in vectors["pictures"]]
    assert len(modes) == 10
    assert set(modes) == {"1", "L", "P", "RGB", "RGBA"}


def test_the_file_is_small_whatever_the_size_of_the_images(engine, monkeypatch):
    assert len(golden.vectors(engine)) < 100_000
    monkeypatch.setattr(golden, "_MAX_PIXEL_BYTES", 10)
    document = json.loads(golden.vectors(engine))
    assert not any("pixels" in one for one in (*document["samples"], *document["pictures"]))
    golden.check(engine, document)


def test_walks_are_formulas_of_the_first_two_samples(vectors):
    """As docs/bundle.md says, here in plain Python."""
    import math

    def arc(a, b, t):
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        angle = math.acos(sum(x * y for x, y in zip(a, b, strict=True)) / norms)
        return [
            (math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle)
            for x, y in zip(a, b, strict=True)
        ]

    a, b = (sample["noise"] for sample in vectors["samples"][:2])
    (walk,) = [one for one in vectors["interpolations"] if (one["space"], one["path"]) == ("noise", "spherical")]
    np.testing.assert_allclose(walk["points"], [arc(a, b, i / 4) for i in range(5)], rtol=1e-6, atol=1e-6)
    a, b = (sample["latent"] for sample in vectors["samples"][:2])
    (walk,) = [one for one in vectors["interpolations"] if (one["space"], one["path"]) == ("latent", "linear")]
    line = [[x + i / 4 * (y - x) for x, y in zip(a, b, strict=True)] for i in range(5)]
    np.testing.assert_allclose(walk["points"], line, rtol=1e-6, atol=1e-6)
    edit = vectors["edit"]
    moved = [[x + s * d for x, d in zip(a, edit["direction"], strict=True)] for s in edit["strengths"]]
    np.testing.assert_allclose(edit["points"], moved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("npz", "seed"), 1, "the noise of golden.npz differs"),
        (("samples", 0, "noise", 3), 0.25, "the noise of seed 7, row 0 differs"),
        (("samples", 1, "latent", 0), 1.0, "the latent of seed 7, row 1 differs by"),
        (("samples", 2, "pixels"), base64.b64encode(bytes(64)).decode(), "the image of seed 0, row 0 differs"),
        (("interpolations", 1, "points", 2, 0), 1.0, "the spherical interpolation in latent space differs"),
        (("interpolations", 2, "points", 2, 0), 9.0, "the linear interpolation in noise space differs"),
        (("edit", "points", 0, 0), float("nan"), "the edit differs by nan"),
        (("pictures", 4, "sha256"), "0" * 64, "the picture 'colour, 3 × 2 pixels' is prepared differently"),
        (("pictures", 5, "latent", 0), 1.0, "the latent of the picture 'grey, 100 × 9 pixels' differs"),
        (("samples", 0), {}, "does not fit"),
        (("pictures",), None, "does not fit"),
    ],
)
def test_what_differs_is_named(engine, vectors, place, value, problem):
    document = copy.deepcopy(vectors)
    part = document
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    with pytest.raises(BundleError, match=problem):
        golden.check(engine, document)


def test_a_generator_that_makes_other_images_is_found(bundle, vectors):
    contents = {**bundle.contents, "generator.onnx": _brighter(bundle.graph("generator"))}
    facts = bundle.manifest.model_dump(exclude={"files", "digest"})
    other = Bundle(bundle.path, describe(facts, contents), contents)
    with pytest.raises(BundleError, match=r"the image by generator\.onnx of seed 7, row 0 differs by \d+ grey"):
        golden.check(Engine(other, device="cpu"), vectors)


def _brighter(graph: bytes) -> bytes:
    """Change the constant 255 of a graph, by which it scales pixels, to 999."""
    assert np.float32(255).tobytes() in graph
    return graph.replace(np.float32(255).tobytes(), np.float32(999).tobytes())


def test_another_hash_of_an_image_is_counted_and_no_error(engine, vectors):
    """Another build of ONNX Runtime may round a pixel differently."""
    document = copy.deepcopy(vectors)
    document["samples"][0]["sha256"] = "0" * 64
    assert golden.check(engine, document).startswith("3 of 4 images to the bit")
