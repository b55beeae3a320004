"""Rewrite ONNX graphs: hold their weights in float16, or join two graphs in one; and read their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from rae_serve.manifest import Precision

# The operators whose inputs are weights of layers. Other constants, such as the bounds by which a mixture selects its
# components, may stand for choices, which rounding would change.
_LAYERS: Final = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_FLOAT16: Final = "_float16"  # added to the name of a tensor whose weights are held in float16
_MIN_WEIGHTS: Final = 256  # of a tensor; below, the node that casts it takes as much room as is saved


def with_float16_weights(graph: bytes) -> bytes:
    """Return an ONNX file whose layers hold their weights in float16, and cast them to float32 before use.

    Weights beyond the range of float16 stay as they are. Every ONNX runtime can load such a graph, and one that
    evaluates constants once computes as fast as before.
    """
    model = onnx.load_from_string(graph)
    casts = []
    for tensor, _ in weights_of_layers(model):
        weights = numpy_helper.to_array(tensor)
        if np.abs(weights).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}{_FLOAT16}"
        tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def weights_of_layers(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, str]]:
    """Yield each large float32 tensor of weights in a graph, and the operator that takes it."""
    takers = {name: node.op_type for node in model.graph.node if node.op_type in _LAYERS for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in takers and tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _MIN_WEIGHTS:
            yield tensor, takers[tensor.name]


def weights(graph: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Return the constants of an ONNX file that are floating-point numbers, by name, all of them in float32."""
    tensors = onnx.load_from_string(graph).graph.initializer
    return {
        tensor.name.removesuffix(_FLOAT16): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in tensors
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }


def precision(graph: bytes) -> Precision:
    """Return how an ONNX file holds its weights."""
    kinds = {tensor.data_type for tensor in onnx.load_from_string(graph).graph.initializer}
    return "float16-weights" if TensorProto.FLOAT16 in kinds else "float32"


def joined(prior: bytes, decoder: bytes) -> bytes:
    """Return the ONNX file of noise → image, which runs the prior and then the decoder."""
    first, second = (
        compose.add_prefix(onnx.load_from_string(graph), f"{name}/", rename_inputs=False, rename_outputs=False)
        for name, graph in (("prior", prior), ("decoder", decoder))
    )
    model = compose.merge_models(first, second, io_map=[("latent", "latent")], name="generator")
    del model.opset_import[:]  # both graphs have the same, which are then listed twice
    model.opset_import.extend(first.opset_import)
    model.producer_name, model.producer_version = first.producer_name, first.producer_version
    model.graph.doc_string = ""
    model.doc_string = "noise float32 [B, noise_dim] → image uint8 [B, H, W, C]: prior and decoder in one."
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
