"""Faster arithmetic in a model's networks while they train, if the recipe asks for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from rae_serve.errors import InvalidInput
from training.autoencoder import Autoencoder
from training.recipe import Recipe

_COMPILERS: Final = ("g++", "clang++", "c++")
_BACKEND: Final = "inductor"  # torch.compile's default


def accelerate(model: Autoencoder, recipe: Recipe, device: torch.device) -> None:
    """Make encoder and decoder compute in bfloat16 while they train, or be compiled, as the recipe's keys say.

    The model's other networks of images, and what a perceptual distance computes, are in bfloat16 with them.

    Raises:
        InvalidInput: The model cannot be compiled, or the machine has no compiler.
    """
    if recipe.compile and not model.compiles:
        reason = "which torch does not compile reliably"
        problem = f"must be false: a loss of {recipe.model} has derivatives of derivatives, {reason}"
        raise InvalidInput("compile", problem)
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else _COMPILERS
    if recipe.compile and device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise InvalidInput("compile", "needs a C++ compiler, such as g++, for the CPU, and there is none")
    if recipe.precision == "bfloat16" or (recipe.precision == "auto" and _has_bfloat16(device)):
        _compute_in_bfloat16(model, device.type)
    if recipe.compile:
        for network in (model.encoder, model.decoder):
            network.compile(backend=_BACKEND)


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 faster than those of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch lacks it
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


def _compute_in_bfloat16(model: Autoencoder, device_type: str) -> None:
    """Make layers compute in bfloat16 while the model trains. Weights, inputs and outputs stay float32."""

    def in_bfloat16(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def computed(*inputs: Tensor) -> Tensor:
            with torch.autocast(device_type, torch.bfloat16, enabled=model.training):
                return compute(*inputs).float()

        return computed

    for network in model.image_networks:
        network.forward = in_bfloat16(network.forward)
    if model.perceptual:
        model.perceptual = in_bfloat16(model.perceptual)
