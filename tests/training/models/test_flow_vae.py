from __future__ import annotations

import torch
from torch import Tensor, distributions, nn

from tests.training.variants import LATENT_DIM, SHAPE, SMALL, batches
from training.models.flow_vae import FlowVAE
from training.optimizers import descend


def model() -> FlowVAE:
    torch.manual_seed(0)
    built = FlowVAE(SHAPE, **SMALL["flow_vae"]).eval()
    for parameter in built.couplings.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


def test_the_divergence_and_its_gradient_are_those_of_the_flow_from_its_start():
    vae = model()
    rows = vae.rows(next(batches())).detach().requires_grad_()
    mean, log_variance, context = rows.split([LATENT_DIM, LATENT_DIM, SMALL["flow_vae"]["context_dim"]], dim=1)
    learned = [rows, *vae.couplings.parameters()]

    torch.manual_seed(1)
    found = vae.divergence(rows, vae.latents(rows))

    torch.manual_seed(1)
    gaussian = distributions.Independent(distributions.Normal(mean, (0.5 * log_variance).exp()), 1)
    start = gaussian.rsample()
    latents, log_det = vae.couplings(start, context)
    prior = distributions.Independent(distributions.Normal(torch.zeros(LATENT_DIM), 1.0), 1)
    expected = (gaussian.log_prob(start) - log_det - prior.log_prob(latents)).mean()

    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_an_image_is_encoded_to_the_flow_of_its_mean():
    vae, x = model(), next(batches())
    mean, _, context = vae.rows(x).split([LATENT_DIM, LATENT_DIM, SMALL["flow_vae"]["context_dim"]], dim=1)
    torch.testing.assert_close(vae.encode(x), vae.couplings(mean, context)[0])
    assert (vae.encode(x) - mean).abs().min() > 0


def test_the_flow_differs_from_image_to_image():
    vae = model()
    optimizers, source = vae.train().optimizers(), batches(size=64)
    for _ in range(20):
        for name, terms in vae.updates(source, 0.0):
            descend(optimizers[name], terms)
    mean, _, context = vae.eval().rows(next(batches())).split([LATENT_DIM, LATENT_DIM, 3], dim=1)

    def moved(contexts: Tensor) -> Tensor:
        return vae.couplings(mean, contexts)[0] - mean

    assert (moved(context) - moved(context.roll(1, 0))).abs().mean() > 1e-3
