"""A torch module to an ONNX graph."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

OPSET: Final = 18
IR_VERSION: Final = 9  # torch writes 10, which onnxruntime 1.17 refuses


def to_onnx(
    name: str, graph: nn.Module, example: Mapping[str, Tensor], output: str, facts: Mapping[str, Any]
) -> bytes:
    (input_name,) = example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        program = torch.onnx.export(
            graph.eval(),
            kwargs=dict(example),
            input_names=[input_name],
            output_names=[output],
            dynamic_shapes={input_name: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.graph.name = name
    model.doc_string = graph.__doc__ or ""
    # The exporter notes where in whose source each node comes from; that is nobody else's business.
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"rae_serve.{key}", json.dumps(value)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
