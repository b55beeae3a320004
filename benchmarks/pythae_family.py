"""Train pythae's auto-encoders on MNIST for some minutes each, and measure their digits as mnist_quality does ours.

    pip install --no-deps pythae==0.1.2 imageio tqdm cloudpickle
    python -m benchmarks.pythae_family --data ../shared/data --minutes 60 [--only VAE --only RAE_L2] [--loss bce]

Networks, images, latent dimensions and batch size are those of our recipes NAME-mnist-small, and the optimiser is
Adam with a constant learning rate of 1e-3. The discriminators keep pythae's 1e-4. All else is as pythae's authors
set it for MNIST (examples/scripts/configs/mnist in https://github.com/clementchadebec/benchmark_VAE). Their
variational models have the squared error as the loss; --loss bce takes the cross-entropy of our VAE recipes.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pythae import models, samplers, trainers
from pythae.data.datasets import BaseDataset
from torch import Tensor, nn

from benchmarks.mnist_quality import heading, measure, row
from benchmarks.pythae_budget import Budget, TimeIsUp
from benchmarks.pythae_networks import Decoder, Encoder, GaussianEncoder
from rae_serve.arrays import Pixels
from training import recipe as recipes
from training.data.batches import to_pixels, to_tensor
from training.networks import conv_decoder, conv_encoder
from training.runs import load_data

CPU = torch.device("cpu")
RATE = 1e-3
PIECE = 250  # images that are decoded at once
SHAPE = (1, 28, 28)


class System(NamedTuple):
    """One of pythae's models.

    Attributes:
        config: The class of its settings.
        settings: What differs from pythae's defaults.
        variational: Whether the encoder gives means and log-variances.
        trainer: The trainer that pythae's authors name for it.
        sampler: What samples latents.
        normalised: Whether the encoder has batch norm.
    """

    config: type[Any]
    settings: dict[str, Any]
    variational: bool = True
    trainer: str = "Base"
    sampler: Callable[[nn.Module], Any] = samplers.NormalSampler
    normalised: bool = True


def mixture(model: nn.Module) -> samplers.GaussianMixtureSampler:
    """Return the sampler of Ghosh et al., https://arxiv.org/abs/1903.12436: a mixture of 10 Gaussians."""
    return samplers.GaussianMixtureSampler(model, samplers.GaussianMixtureSamplerConfig(n_components=10))


SYSTEMS = {
    "AE": System(models.AEConfig, {}, variational=False, sampler=mixture),
    "RAE_L2": System(
        models.RAE_L2_Config, {"embedding_weight": 1e-2, "reg_weight": 1e-4}, False, "CoupledOptimizer", mixture
    ),
    "RAE_GP": System(models.RAE_GP_Config, {"embedding_weight": 1e-2, "reg_weight": 1e-4}, False, sampler=mixture),
    "WAE_MMD": System(models.WAE_MMD_Config, {"reg_weight": 1.0, "kernel_bandwidth": 2.0}, variational=False),
    "VAE": System(models.VAEConfig, {}),
    "BetaVAE": System(models.BetaVAEConfig, {"beta": 4.0}),
    "INFOVAE_MMD": System(models.INFOVAE_MMD_Config, {"alpha": -2.0, "lbd": 1000.0}),
    "FactorVAE": System(models.FactorVAEConfig, {"gamma": 10.0}, trainer="Adversarial"),
    "Adversarial_AE": System(models.Adversarial_AE_Config, {}, trainer="Adversarial"),
    "VAE_LinNF": System(models.VAE_LinNF_Config, {"flows": ["Planar"] * 3}),
    "VAE_IAF": System(models.VAE_IAF_Config, {"n_made_blocks": 3, "n_hidden_in_made": 2, "hidden_size": 32}),
    # As in our recipe, the encoder has no batch norm: pseudo-inputs would be normalised by their own batch.
    "VAMP": System(models.VAMPConfig, {}, sampler=samplers.VAMPSampler, normalised=False),
}


class Trained:
    """A trained model of pythae, with the interface of our engine.

    Args:
        model: The model.
        sampler: Samples its latents, and is fitted.
    """

    def __init__(self, model: nn.Module, sampler: Any) -> None:
        self.model = model
        self.sampler = sampler

    @torch.no_grad()
    def sample(self, count: int, *, seed: int) -> Pixels:
        torch.manual_seed(seed)
        np.random.seed(seed)  # the mixture of scikit-learn
        return to_pixels(self.sampler.sample(num_samples=count, batch_size=PIECE)).numpy()

    @torch.no_grad()
    def reconstruct(self, images: Pixels) -> Pixels:
        """Decode the images' latents; those of a variational model are its means, as with ours."""
        return np.concatenate([self._reconstruct(images[i : i + PIECE]) for i in range(0, len(images), PIECE)])

    def _reconstruct(self, images: Pixels) -> Pixels:
        latents = self.model.encoder(to_tensor(images, CPU)).embedding
        if isinstance(self.model, models.VAE_IAF):
            latents = self.model.iaf_flow.inverse(latents).out
        if isinstance(self.model, models.VAE_LinNF):
            for layer in self.model.net:
                latents = layer(latents).out
        return to_pixels(self.model.decoder(latents).reconstruction).numpy()


def train(name: str, x: Tensor, minutes: float, loss: str) -> tuple[Trained, int]:
    """Train one of pythae's models and fit its sampler. Return it and the number of its steps.

    Args:
        name: A key of SYSTEMS.
        x: The images to train on, float32 [N, 1, 28, 28].
        minutes: How long to train. The fit of the sampler comes after that.
        loss: "mse" or "bce", for the variational models.
    """
    system = SYSTEMS[name]
    keys = recipes.load("rae-mnist-small").parameters
    latent_dim, filters, hidden = keys["latent_dim"], keys["filters"], keys["hidden"]
    settings = system.settings | ({"reconstruction_loss": loss} if system.variational else {})
    torch.manual_seed(0)
    outputs = 2 * latent_dim if system.variational else latent_dim
    encoder = conv_encoder(SHAPE, outputs, filters, hidden, normalised=system.normalised)
    wrapped = (GaussianEncoder if system.variational else Encoder)(encoder)
    decoder = Decoder(conv_decoder(SHAPE, latent_dim, filters, hidden))
    config = system.config(input_dim=SHAPE, latent_dim=latent_dim, **settings)
    model = getattr(models, name)(config, wrapped, decoder)
    budget = Budget(minutes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = getattr(trainers, f"{system.trainer}Trainer")(
            model=model,
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=training_config(system, folder),
            callbacks=[budget],
        )
        with contextlib.suppress(TimeIsUp):
            trainer.train()
    model = trainer.model.eval()
    sampler = system.sampler(model)
    if isinstance(sampler, samplers.GaussianMixtureSampler):
        sampler.fit(x)
    return Trained(model, sampler), budget.steps


def training_config(system: System, folder: str) -> Any:
    """Return the settings of pythae's trainer, which writes into `folder`."""
    optimiser: dict[str, Any]
    match system.trainer:
        case "CoupledOptimizer":  # pythae's pipeline gives RAE-L2's penalty to the decoder's optimiser
            decay = {"weight_decay": system.settings["reg_weight"]}
            optimiser = {"encoder_learning_rate": RATE, "decoder_learning_rate": RATE}
            optimiser["decoder_optimizer_params"] = decay
        case "Adversarial":
            optimiser = {"autoencoder_learning_rate": RATE}
        case _:
            optimiser = {"learning_rate": RATE}
    return getattr(trainers, f"{system.trainer}TrainerConfig")(
        output_dir=folder,
        per_device_train_batch_size=recipes.load("rae-mnist-small").batch_size,
        num_epochs=1_000_000,
        no_cuda=True,
        **optimiser,
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--minutes", type=float, required=True, help="the time of each training")
    arguments.add_argument(
        "--only", action="append", choices=list(SYSTEMS), help="a system; repeatable; default: all"
    )
    arguments.add_argument("--loss", choices=["mse", "bce"], default="mse", help="of the variational models")
    given = arguments.parse_args()
    logging.disable(logging.INFO)
    recipe = recipes.load("rae-mnist-small")
    dataset = load_data(recipe, given.data)
    x = to_tensor(dataset.images[dataset.train], CPU)
    print(heading("system and steps"), flush=True)
    for name in given.only or SYSTEMS:
        try:
            trained, steps = train(name, x, given.minutes, given.loss)
            figures = measure(trained, given.data)
        except Exception as error:  # the other systems go on
            print(f"{name} failed: {error}", flush=True)
            continue
        print(row(f"{name}, {steps:,}", figures), flush=True)
