"""The graphs of a bundle as torch modules, pixels in and out, and their export to ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from training.autoencoder import Autoencoder
from training.data.batches import to_pixels

OPSET: Final = 18
IR_VERSION: Final = 9  # torch writes 10, which onnxruntime 1.17 refuses


class PriorGraph(nn.Module):
    """noise float32 [B, noise_dim] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.prior = model.sampler

    def forward(self, noise: Tensor) -> Tensor:
        return self.prior(noise)


class DecoderGraph(nn.Module):
    """latent float32 [B, latent_dim] → image uint8 [B, H, W, C]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return to_pixels(self.model.decode(latent))


class EncoderGraph(nn.Module):
    """image uint8 [B, H, W, C] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image.float().permute(0, 3, 1, 2) / 255.0)


def to_onnx(
    name: str, graph: nn.Module, example: Mapping[str, Tensor], output: str, facts: Mapping[str, Any]
) -> bytes:
    """Return the ONNX file of a graph with one input and one output, for any batch size.

    Args:
        name: The graph's name.
        graph: A module whose `forward` takes the input by name.
        example: The input's name, and rows of it.
        output: The output's name.
        facts: Entries of the file's metadata, by name, in JSON's types.
    """
    (input_name,) = example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the exporter, about its own internals
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
    # The exporter notes which source line made each node, with paths of this machine.
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"rae_serve.{key}", json.dumps(value)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
