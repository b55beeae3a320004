from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rae_serve import noise
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError
from training.data.batches import to_pixels
from training.export import bundle as exporter
from training.export.bundle import export


@pytest.fixture(scope="module")
def fused(run, tmp_path_factory) -> Bundle:
    return export(run, tmp_path_factory.mktemp("fused") / "digits", fused=True)


@pytest.mark.parametrize(
    ("graph", "inputs", "outputs"),
    [
        ("prior", ("noise", onnx.TensorProto.FLOAT, [8]), ("latent", onnx.TensorProto.FLOAT, [8])),
        ("decoder", ("latent", onnx.TensorProto.FLOAT, [8]), ("image", onnx.TensorProto.UINT8, [8, 8, 1])),
        ("encoder", ("image", onnx.TensorProto.UINT8, [8, 8, 1]), ("latent", onnx.TensorProto.FLOAT, [8])),
        ("generator", ("noise", onnx.TensorProto.FLOAT, [8]), ("image", onnx.TensorProto.UINT8, [8, 8, 1])),
    ],
)
def test_graphs_are_what_the_contract_says(fused, graph, inputs, outputs):
    model = onnx.load_from_string(fused.graph(graph))
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
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def test_graphs_carry_the_facts_and_nothing_of_this_machine(fused):
    manifest = fused.manifest.model_dump(mode="json")
    for name in ("prior", "decoder", "encoder", "generator"):
        model = onnx.load_from_string(fused.graph(name))
        facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        assert facts["rae_serve.licence"] == manifest["licence"]
        assert facts["rae_serve.image"] == manifest["image"]
        assert facts["rae_serve.training"] == manifest["training"]
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert b"site-packages" not in fused.graph(name)


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


def test_the_fused_graph_is_prior_and_decoder(fused):
    session = onnxruntime.InferenceSession(fused.graph("generator"), providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"noise": noise.normals(4, 0, 6, 8)})
    assert np.array_equal(images, Engine(fused, device="cpu").sample(6, seed=4))


def test_the_manifest_describes_the_codes(run, bundle):
    codes = Engine(bundle, device="cpu").encode(run.reference())
    latent = bundle.manifest.latent
    np.testing.assert_allclose(latent.mean, codes.mean(0), atol=1e-3)
    np.testing.assert_allclose(latent.std, codes.std(0), atol=1e-3)
    median = latent.quantiles[latent.quantile_levels.index(0.5)]
    np.testing.assert_allclose(median, np.median(codes, axis=0), atol=1e-3)


def test_the_same_checkpoint_gives_the_same_files(run, bundle, tmp_path):
    again = export(run, tmp_path / "again")
    assert again.manifest == bundle.manifest


def test_a_mismatch_fails_the_export_and_leaves_nothing(run, tmp_path, monkeypatch):
    golden_arrays = exporter._golden_arrays

    def off_by_two(*given):
        arrays = golden_arrays(*given)
        return arrays | {"image": arrays["image"] ^ 2}

    monkeypatch.setattr(exporter, "_golden_arrays", off_by_two)
    monkeypatch.setattr(exporter, "LATENT_TOLERANCE", 10.0)  # the encoder sees the other images too
    with pytest.raises(BundleError, match=r"decoder\.onnx differs from its golden images by [23] grey levels"):
        export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
