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
        InvalidInput: The model or the machine cannot be compiled for.
    """
    if recipe.compile and not model.compiles:
        problem = (
            f"must be false: a loss of {recipe.model} has derivatives of derivatives, which torch cannot compile"
        )
        raise InvalidInput("compile", problem)
    if recipe.compile and device.type == "cpu" and not shutil.which(os.environ.get("CXX") or _found_compiler()):
        raise InvalidInput("compile", "needs a C++ compiler, such as g++, for the CPU, and there is none")
    for network in (model.encoder, model.decoder):
        if recipe.precision == "bfloat16":
            _compute_in_bfloat16(network)
        if recipe.compile:
            network.compile(backend=_BACKEND)


def _found_compiler() -> str:
    return next(filter(shutil.which, _COMPILERS), _COMPILERS[0])


def _compute_in_bfloat16(network: nn.Module) -> None:
    """Make a network compute its layers in bfloat16 while it trains. Weights, inputs and outputs stay float32."""
    compute = network.forward

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=network.training):
            return compute(x).float()

    network.forward = forward
