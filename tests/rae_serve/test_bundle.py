from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from rae_serve import bundle as bundles
from rae_serve.bundle import Bundle
from rae_serve.errors import BundleError, RaeServeError
from rae_serve.manifest import Attribute, Figure, Manifest, model_digest, read_manifest, schema, to_json

DOCS = Path(__file__).parents[2] / "docs"
BUNDLES = [DOCS.parent / "tests" / "data" / "digits", *sorted((DOCS.parent / "exported").glob("*/"))]


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


@pytest.mark.parametrize(
    "name", ["prior.onnx", "decoder.onnx", "encoder.onnx", "golden.npz", "golden.json", "manifest.json"]
)
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_one_flipped_byte_is_refused_and_named(copy, name, where):
    data = bytearray((copy / name).read_bytes())
    position = int(len(data) * where)
    while chr(data[position]).isspace():
        position += 1
    data[position] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["prior.onnx", "golden.npz", "manifest.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.load(copy)


def test_no_bundle_and_another_version(copy, tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle.load(tmp_path / "nothing")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 3}))
    with pytest.raises(BundleError, match="schema version 3; this release reads versions 1 and 2 only"):
        Bundle.load(copy)
    for other in ({"name": "a web app"}, []):  # another program's manifest.json
        (copy / "manifest.json").write_text(json.dumps(other))
        with pytest.raises(BundleError, match=r"manifest\.json is not a bundle's manifest: it has no schema_version"):
            Bundle.load(copy)


def test_a_file_outside_the_bundle_is_never_read(bundle, tmp_path):
    contents = {"../prior.onnx": b"", "prior.onnx": b"", "decoder.onnx": b""}
    document = bundle.manifest.model_dump(exclude={"files", "digest"})
    (tmp_path / "b").mkdir()
    manifest = bundles.describe(document, contents)
    (tmp_path / "b" / "manifest.json").write_text(to_json(manifest))
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.load(tmp_path / "b")


def test_a_folder_in_use_is_left_alone(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    facts = bundle.manifest.model_dump(exclude={"files", "digest"})
    with pytest.raises(RaeServeError, match="in use"):
        bundles.write(tmp_path / "mine", facts, {"prior.onnx": b"", "decoder.onnx": b""})
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_the_digest_is_of_prior_and_decoder_alone(bundle):
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    assert model_digest(files | {"encoder.onnx": "0" * 64}) == bundle.manifest.digest
    assert model_digest(files | {"prior.onnx": "0" * 64}) != bundle.manifest.digest


def test_figures_are_added_without_touching_the_model(copy, bundle):
    figure = Figure(value=4.5, protocol="by hand")
    annotated = bundles.annotate(Bundle.load(copy), quality={"fd": figure})
    assert annotated.manifest.quality == {"fd": figure}
    assert annotated.manifest.digest == bundle.manifest.digest
    assert annotated.manifest.files == bundle.manifest.files
    assert "| fd | 4.5 | by hand |" in (copy / "README.md").read_text()


def test_the_documented_schema_is_the_manifest(bundle):
    assert json.loads((DOCS / "bundle.schema.json").read_text()) == schema()
    document = json.loads((bundle.path / "manifest.json").read_text())
    jsonschema.validate(document, schema())
    for wrong in ({"precision": {"prior": "int8"}}, {"schema_version": 1}, {"tolerance": {"latents": 1e-4}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | wrong, schema())


def test_unknown_fields_are_ignored_and_kept(copy, bundle):
    """A later release may add fields to any part of a manifest of this version."""
    document = bundle.manifest.model_dump(mode="json")
    document["surprise"] = [1]
    for part in ("image", "latent", "tolerance"):
        document[part]["surprise"] = "x"
    document["files"]["prior.onnx"]["surprise"] = None
    (copy / "manifest.json").write_text(to_json(Manifest.model_validate(document)))
    annotated = bundles.annotate(Bundle.load(copy), licence="MIT")
    kept = json.loads((copy / "manifest.json").read_text())
    jsonschema.validate(kept, schema())
    assert {**kept, "licence": document["licence"], "checksum": None} == {**document, "checksum": None}
    assert annotated.manifest.image(Image.new("L", (8, 8), 3)).max() == 3


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_manifest_is_written_as_it_was_read(folder):
    path = folder / "manifest.json"
    assert to_json(read_manifest(path)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_the_checksum_needs_no_more_than_the_bytes(folder):
    """As docs/bundle.md says it."""
    data = (folder / "manifest.json").read_bytes()
    checksum = json.loads(data)["checksum"]
    assert hashlib.sha256(data.replace(checksum.encode(), b"0" * 64)).hexdigest() == checksum


def test_a_checksum_leaves_other_zeros_alone(copy, bundle):
    training = bundle.manifest.training.model_copy(update={"data_digest": "0" * 64})
    assert bundles.annotate(Bundle.load(copy), training=training).manifest.training.data_digest == "0" * 64


@pytest.mark.parametrize("change", [("0.0", "0.00"), ('"dim"', ' "dim"'), ("\n", "\r\n")])
def test_other_bytes_of_the_same_facts_are_refused(copy, change):
    text = (copy / "manifest.json").read_text()
    assert change[0] in text
    (copy / "manifest.json").write_bytes(text.replace(*change).encode())
    with pytest.raises(BundleError, match="its checksum does not match"):
        Bundle.load(copy)


def test_an_attribute_has_only_the_fields_that_are_known(copy, bundle):
    plain = Attribute(direction=[1.0] * 8, source="by hand")
    pair = Attribute(direction=[0.5] * 8, source="by hand", opposite="old", images=(7, 9), auc=0.75)
    annotated = bundles.annotate(Bundle.load(copy), attributes={"bent": plain, "young": pair})
    assert annotated.manifest.attributes == {"bent": plain, "young": pair}
    document = json.loads((copy / "manifest.json").read_text())
    jsonschema.validate(document, schema())
    assert document["attributes"]["bent"].keys() == {"direction", "source"}
    assert document["attributes"]["young"]["images"] == [7, 9]
    assert annotated.manifest.directions() == {"old": [-0.5] * 8, "bent": [1.0] * 8, "young": [0.5] * 8}


def test_golden_arrays_are_of_the_manifest_shapes(bundle):
    golden = bundle.golden()
    latent, image = bundle.manifest.latent.dim, bundle.manifest.image.shape
    assert golden["noise"].shape[1] == bundle.manifest.noise.dim
    assert golden["latent"].shape[1] == golden["encoded"].shape[1] == latent
    assert golden["image"].shape[1:] == image
    assert golden["image"].dtype == np.uint8
