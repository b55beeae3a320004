from __future__ import annotations

from functools import partial

import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.losses import gaussian_kernel, mmd
from training.models.info_vae import InfoVAE
from training.models.vae import VAE
from training.optimizers import descend


def model(**settings: float) -> InfoVAE:
    torch.manual_seed(0)
    return InfoVAE(SHAPE, **SMALL["info_vae"] | settings).train()


def test_the_loss_is_the_vaes_plus_the_weighted_mmd():
    found, expected = [], []
    for learner, terms in ((model(mmd_weight=3.0), found), (VAE(SHAPE, **SMALL["vae"]), expected)):
        learner.load_state_dict(model().state_dict())
        torch.manual_seed(1)
        ((_, update),) = learner.eval().updates(batches(), 0.0)
        terms.append({name: value.item() for name, value in update.items()})
    torch.manual_seed(1)
    latents = learner.latents(learner.rows(next(batches())))
    distance = mmd(latents, torch.randn_like(latents), partial(gaussian_kernel, latent_dim=4), unbiased=False)
    assert found == [{**expected[0], "mmd": (3.0 * distance).item()}]


def test_the_mmd_brings_the_latents_to_the_prior():
    learner, source = model(beta=0.0, lr=1e-2), batches(size=64)
    optimizers = learner.optimizers()
    for _ in range(150):
        for name, terms in learner.updates(source, 0.0):
            descend(optimizers[name], terms)
    latents = torch.cat([learner.codes(next(source)) for _ in range(32)])
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(4), atol=0.25, rtol=0)
    torch.testing.assert_close(latents.std(dim=0), torch.ones(4), atol=0.25, rtol=0)
