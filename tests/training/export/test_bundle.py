from __future__ import annotations

import json

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rae_serve import noise
from rae_serve.engine import Engine
from rae_serve.errors import BundleError
from rae_serve.manifest import Tolerance, schema
from training.data.batches import to_pixels
from training.export import bundle as exporter
from training.export import rewriting
from training.export.bundle import export


@pytest.mark.parametrize(
    ("graph", "inputs", "outputs"),
    [
        ("prior", ("noise", onnx.TensorProto.FLOAT, [8]), ("latent", onnx.TensorProto.FLOAT, [8])),
        ("decoder", ("latent", onnx.TensorProto.FLOAT, [8]), ("image", onnx.TensorProto.UINT8, [8, 8, 1])),
        ("encoder", ("image", onnx.TensorProto.UINT8, [8, 8, 1]), ("latent", onnx.TensorProto.FLOAT, [8])),
        ("generator", ("noise", onnx.TensorProto.FLOAT, [8]), ("image", onnx.TensorProto.UINT8, [8, 8, 1])),
    ],
)
def test_graphs_are_what_the_contract_says(bundle, graph, inputs, outputs):
    model = onnx.load_from_string(bundle.graph(graph))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    for value, (name, kind, shape) in ((model.graph.input, inputs), (model.graph.output, outputs)):
        (only,) = value
        dims = only.type.tensor_type.shape.dim
        assert (only.name, only.type.tensor_type.elem_type) == (name, kind)
        assert dims[0].dim_param
        assert [dim.dim_value for dim in dims[1:]] == shape
    assert model.ir_version == 9
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    # What WebGPU leaves to the CPU: rounding half to even, and any operator but a conversion on uint8.
    assert "Round" not in {node.op_type for node in model.graph.node}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    values |= {value.name: value.type.tensor_type.elem_type for value in inferred.input}
    of_bytes = [
        node.op_type
        for node in model.graph.node
        if onnx.TensorProto.UINT8 in {values.get(name) for name in (*node.input, *node.output)}
    ]
    assert of_bytes == ["Cast"] * (graph != "prior")
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def test_graphs_carry_the_facts_and_nothing_of_this_machine(bundle):
    manifest = bundle.manifest.model_dump(mode="json")
    for name in ("prior", "decoder", "encoder", "generator"):
        model = onnx.load_from_string(bundle.graph(name))
        facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        assert facts["rae_serve.licence"] == manifest["licence"]
        assert facts["rae_serve.image"] == manifest["image"]
        assert facts["rae_serve.training"] == manifest["training"]
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert b"site-packages" not in bundle.graph(name)


def test_images_are_those_of_torch_on_other_noise(run, bundle, engine):
    model, _ = run.load()
    rows = torch.from_numpy(noise.normals(99, 0, 50, 8))
    with torch.no_grad():
        expected = to_pixels(model.decode(model.prior(rows))).numpy()
    assert np.abs(engine.sample(50, seed=99).astype(int) - expected).max() <= 1
    images = run.reference()[:30]
    with torch.no_grad():
        codes = model.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(engine.encode(images), codes, rtol=1e-4, atol=1e-4)


def test_the_generator_is_prior_and_decoder(bundle):
    session = onnxruntime.InferenceSession(bundle.graph("generator"), providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"noise": noise.normals(4, 0, 6, 8)})
    assert np.array_equal(images, Engine(bundle, device="cpu").sample(6, seed=4))


@pytest.mark.parametrize(("given", "limit", "there"), [(None, 10, False), (True, 10, True), (False, 1e9, False)])
def test_a_large_generator_is_left_out_unless_it_is_asked_for(run, tmp_path, monkeypatch, given, limit, there):
    monkeypatch.setattr(exporter, "MAX_GENERATOR_BYTES", limit)
    exported = export(run, tmp_path / "out", generator=given)
    assert ("generator.onnx" in exported.contents) == there
    assert ("generator" in exported.manifest.precision) == there


def test_the_manifest_describes_the_codes(run, bundle):
    codes = Engine(bundle, device="cpu").encode(run.reference())
    latent = bundle.manifest.latent
    np.testing.assert_allclose(latent.mean, codes.mean(0), atol=1e-3)
    np.testing.assert_allclose(latent.std, codes.std(0), atol=1e-3)
    median = latent.quantiles[latent.quantile_levels.index(0.5)]
    np.testing.assert_allclose(median, np.median(codes, axis=0), atol=1e-3)


def test_the_bundle_has_the_directions_and_the_map_of_the_codes(run, bundle, engine):
    codes, latent, drawn = engine.encode(run.reference()), bundle.manifest.latent, bundle.map()
    directions = np.array(latent.principal.directions)
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-4)
    along = (codes - latent.mean) @ directions.T
    np.testing.assert_allclose(along.var(axis=0) / codes.var(axis=0).sum(), latent.principal.shares, atol=1e-3)
    np.testing.assert_allclose(drawn.images, along[:, :2], rtol=1e-2, atol=1e-3)
    prior = engine.latents(engine.noise(len(drawn.prior), seed=0))
    np.testing.assert_allclose(drawn.prior, (prior - latent.mean) @ directions[:2].T, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(np.median(prior, axis=0), latent.prior_quantiles[4], atol=1e-3)


def test_the_same_checkpoint_gives_the_same_files(run, bundle, tmp_path):
    again = export(run, tmp_path / "again")
    assert again.manifest == bundle.manifest


def test_a_mismatch_fails_the_export_and_leaves_nothing(run, tmp_path, monkeypatch):
    golden_arrays = exporter._golden_arrays

    def off_by_two(*given):
        arrays = golden_arrays(*given)
        return arrays | {"image": arrays["image"] ^ 2}

    monkeypatch.setattr(exporter, "_golden_arrays", off_by_two)
    monkeypatch.setitem(
        exporter.TOLERANCES, "float32", Tolerance(latents=10.0, grey_levels=1)
    )  # the encoder sees the other images too
    with pytest.raises(BundleError, match=r"decoder\.onnx differs from its golden images by [23] grey levels"):
        export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_in_float16_halve_the_bundle_and_change_images_by_a_level(run, bundle, tmp_path, engine):
    small = export(run, tmp_path / "small", precision="float16-weights")
    manifest = small.manifest
    assert set(manifest.precision.values()) == {"float16-weights"}
    assert manifest.precision.keys() == {"prior", "decoder", "encoder", "generator"}
    jsonschema.validate(json.loads((tmp_path / "small" / "manifest.json").read_text()), schema())
    assert 0 < manifest.parity.prior <= manifest.tolerance.latents == 0.01
    assert manifest.parity.decoder_grey_levels <= manifest.tolerance.grey_levels == 2
    images = Engine(small, device="cpu").sample(50, seed=9)
    assert np.abs(images.astype(int) - engine.sample(50, seed=9)).max() <= 2
    assert manifest.digest != bundle.manifest.digest


def constant_graph(operator: str, largest: float) -> bytes:
    """A graph whose only node takes a constant of 20 × 20 numbers."""
    weights = np.linspace(-largest, largest, 400, dtype=np.float32).reshape(20, 20)
    kind = onnx.TensorProto.BOOL if operator == "Less" else onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [20, 20])],
        [onnx.helper.make_tensor_value_info("y", kind, [20, 20])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("operator", "largest", "precision"),
    [("MatMul", 60_000, "float16-weights"), ("MatMul", 70_000, "float32"), ("Less", 7, "float32")],
)
def test_only_weights_of_layers_within_the_range_are_rounded(operator, largest, precision):
    """Bounds that select a component of a mixture must keep every bit."""
    graph = constant_graph(operator, largest)
    assert rewriting.precision(graph) == "float32"
    assert rewriting.precision(rewriting.with_float16_weights(graph)) == precision


def test_a_model_that_float16_changes_too_much_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setitem(exporter.TOLERANCES, "float16-weights", Tolerance(latents=1e-6, grey_levels=0))
    with pytest.raises(BundleError, match=r"differs from its golden .*; this model needs --precision float32"):
        export(run, tmp_path / "out", precision="float16-weights")
    assert list(tmp_path.iterdir()) == []
