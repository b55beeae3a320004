from __future__ import annotations

import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.losses import sum_squared_error
from training.models.wae_mmd import WAEMMD
from training.optimizers import descend


def model(**settings: float) -> WAEMMD:
    torch.manual_seed(0)
    return WAEMMD(SHAPE, **SMALL["wae_mmd"] | settings).train()


def test_the_reconstruction_is_the_weighted_sum_over_pixels():
    weighted, x = model(reconstruction_weight=0.2).eval(), next(batches())
    ((_, terms),) = weighted.updates(batches(), 0.0)
    expected = 0.2 * sum_squared_error(weighted.decode(weighted.encode(x)), x)
    torch.testing.assert_close(terms["reconstruction"], expected)


def test_the_mmd_brings_the_latents_to_the_prior():
    learner, source = model(mmd_weight=100.0, lr=1e-2), batches()
    optimizers = learner.optimizers()
    for _ in range(150):
        for name, terms in learner.updates(source, 0.0):
            descend(optimizers[name], terms)
    latents = torch.cat([learner.codes(next(source)) for _ in range(64)])
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(4), atol=0.25, rtol=0)
    torch.testing.assert_close(latents.std(dim=0), torch.ones(4), atol=0.25, rtol=0)
