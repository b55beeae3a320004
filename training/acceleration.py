"""Faster arithmetic in a model's encoder and decoder, if the recipe asks for it."""

from __future__ import annotations

import os
import shutil
from typing import Final

import torch
from torch import Tensor, nn

from rae_serve.errors import InvalidInput
from training.autoencoder import Autoencoder
from training.recipe import Recipe

_COMPILERS: Final = ("g++", "clang++", "c++")
_BACKEND: Final = "inductor"  # torch.compile's default


def accelerate(model: Autoencoder, recipe: Recipe, device: torch.device) -> None:
    """Make encoder and decoder compute in bfloat16 while they train, or be compiled, as the recipe's keys say.

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
    for network in (model.encoder, model.decoder):
        if recipe.precision == "bfloat16":
            _compute_in_bfloat16(network)
        if recipe.compile:
            network.compile(backend=_BACKEND)


def _compute_in_bfloat16(network: nn.Module) -> None:
    """Make a network compute its layers in bfloat16 while it trains. Weights, inputs and outputs stay float32."""
    compute = network.forward

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=network.training):
            return compute(x).float()

    network.forward = forward
