"""What every prior promises, whatever its kind. A new prior joins by a line in PRIORS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from rae_serve import noise
from training.export.graphs import to_onnx
from training.optimizers import descend
from training.priors.base import Prior
from training.priors.flow import Flow
from training.priors.generator import Generator
from training.priors.iop import IOP
from training.priors.mixture import Mixture
from training.priors.second_stage import SecondStage
from training.priors.standard_normal import StandardNormal
from training.priors.wrappers import Whitened

DIM: Final = 4
GAME: Final = {"critic_steps": 5, "critic_lr": 1e-3, "penalty": 10.0}  # stable for so small a critic


def generator(*, residual: bool, average: float = 0.9) -> Generator:
    return Generator(
        DIM,
        noise_dim=6,
        hidden=32,
        layers=2,
        critic_hidden=32,
        critic_layers=2,
        residual=residual,
        average=average,
        **GAME,
    )


PRIORS: Final[dict[str, Callable[[], Prior]]] = {
    "standard-normal": lambda: StandardNormal(DIM),
    "generator": lambda: generator(residual=False),
    "generator-whitened": lambda: Whitened(generator(residual=True)),
    "generator-whitened-without-average": lambda: Whitened(generator(residual=True, average=0.0)),
    "mixture": lambda: Whitened(Mixture(DIM, components=5)),
    "mixture-of-one": lambda: Whitened(Mixture(DIM, components=1)),
    "mixture-auto": lambda: Whitened(Mixture(DIM)),
    "flow": lambda: Whitened(Flow(DIM, hidden=32)),
    "second-stage": lambda: Whitened(SecondStage(DIM, hidden=32)),
    "iop": lambda: Whitened(IOP(DIM, hidden=32, pool=20_000)),
}
# Priors that match any latents once they are started.
FITTED: Final = [name for name in PRIORS if name not in ("standard-normal", "generator", "second-stage")]
# Priors of two dimensions that have a density.
DENSITIES: Final[dict[str, Callable[[], Prior]]] = {
    "whitened": lambda: Whitened(StandardNormal(2)),
    "mixture": lambda: Whitened(Mixture(2, components=5)),
    "flow": lambda: Whitened(Flow(2, hidden=32)),
    "iop": lambda: Whitened(IOP(2, hidden=8, pool=50_000)),
}
# Nodes that give other results on another provider, or none at all.
FORBIDDEN: Final = {"Erf", "RandomNormal", "RandomNormalLike", "RandomUniform", "Multinomial", "Bernoulli"}


@pytest.fixture(params=PRIORS)
def prior(request: pytest.FixtureRequest) -> Prior:
    torch.manual_seed(0)
    return PRIORS[request.param]()


def skewed(count: int = 4000) -> Tensor:
    """Latents that are far from N(0, I): shifted, correlated, of unlike widths, and skewed."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.2, 0.1, 0.0, 0.0], [0.0, 0.3, 2.0, 0.0], [0.1, 0.0, 0.0, 0.02]])
    normal = torch.randn(count, DIM, generator=generator)
    normal[:, 0] = normal[:, 0].exp()
    return torch.tensor([3.0, -1.0, 10.0, 0.0]) + normal @ mix.T


def bent() -> Tensor:
    """Latents in the plane that lie along a parabola."""
    normal = torch.randn(4000, 2, generator=torch.Generator().manual_seed(2))
    return torch.stack([3.0 + normal[:, 0], 0.2 * normal[:, 1] + 0.3 * normal[:, 0].square()], dim=1)


def rows_of(prior: Prior, count: int, seed: int = 7) -> Tensor:
    return torch.from_numpy(noise.normals(seed, 0, count, prior.noise_dim))


def endless(latents: Tensor) -> Iterator[Tensor]:
    while True:
        yield latents[torch.randint(0, len(latents), (64,))]


def fit(prior: Prior, latents: Tensor, steps: int) -> None:
    """Fit a prior, and complete it after some steps."""
    prior.start(latents, latents[:50])
    optimizers = prior.train().optimizers()
    for step in range(steps):
        for optimizer, terms in prior.updates(endless(latents), step / steps):
            descend(optimizers[optimizer], terms)
    prior.finish()


def test_samples_are_a_function_of_the_noise(prior):
    prior.eval()
    rows = rows_of(prior, 9)
    assert prior(rows).shape == (9, DIM)
    assert torch.equal(prior(rows), prior(rows))
    assert prior.noise(3).shape == (3, prior.noise_dim)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("steps", [0, 20])
def test_mean_and_covariance_of_samples_match_the_latents(name, steps):
    torch.manual_seed(0)
    prior, latents = PRIORS[name](), skewed()
    fit(prior, latents, steps)
    samples = prior.eval()(rows_of(prior, 5000)).detach()
    deviation = latents.std(dim=0)
    torch.testing.assert_close(samples.mean(dim=0) / deviation, latents.mean(dim=0) / deviation, atol=0.2, rtol=0)
    scale = torch.outer(deviation, deviation)
    torch.testing.assert_close(torch.cov(samples.T) / scale, torch.cov(latents.T) / scale, atol=0.35, rtol=0)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_integrates_to_one_and_has_the_moments_of_the_samples(name):
    torch.manual_seed(0)
    prior, latents = DENSITIES[name](), bent()
    fit(prior, latents, steps=20)
    samples = prior.eval()(rows_of(prior, 20_000)).detach()
    span = 8.0 * samples.std(dim=0)
    axes = [
        torch.linspace(c - s, c + s, 400) for c, s in zip(samples.mean(dim=0).tolist(), span.tolist(), strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        density = prior.log_density(grid)
    assert density is not None
    weights = density.double().exp() * (2.0 * span / 399.0).prod()
    assert weights.sum().item() == pytest.approx(1.0, abs=0.02)
    mean = weights @ grid.double()
    torch.testing.assert_close(samples.mean(dim=0).double(), mean, atol=0.05 * span.max().item() / 8.0, rtol=0)
    centred = grid.double() - mean
    covariance = (centred.T * weights) @ centred
    deviation = covariance.diagonal().sqrt()
    difference = (torch.cov(samples.T).double() - covariance) / torch.outer(deviation, deviation)
    torch.testing.assert_close(difference, torch.zeros(2, 2).double(), atol=0.15, rtol=0)
    assert prior.log_density(samples).mean() > prior.log_density(samples + 0.5 * samples.std(dim=0)).mean()


def test_a_prior_that_waits_for_its_fit_says_so(prior):
    waits = any(isinstance(part, Mixture | IOP) for part in prior.modules())
    assert prior.fitted == (not waits)
    if waits:  # the state before the fit is N(0, I)
        samples = prior(rows_of(prior, 5000))
        torch.testing.assert_close(torch.cov(samples.T), torch.eye(DIM), atol=0.1, rtol=0)
    prior.start(skewed(), skewed()[:50])
    prior.finish()
    assert prior.fitted


def test_the_graph_computes_the_same_at_every_batch_size(prior):
    prior.start(skewed(), skewed()[:50])
    prior.finish()
    rows = rows_of(prior, 64)
    expected = prior.eval()(rows).detach().numpy()
    data = to_onnx("prior", NamedNoise(prior), {"noise": rows}, "latent", {})
    graph = onnx.load_from_string(data).graph
    assert not FORBIDDEN & {node.op_type for node in graph.node}
    assert len(graph.node) < 120  # a flow of 8 layers has 114
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (whole,) = session.run(None, {"noise": rows.numpy()})
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-5)
    for size in (1, 2, 7):
        parts = [session.run(None, {"noise": rows[i : i + size].numpy()})[0] for i in range(0, 64, size)]
        assert np.array_equal(np.concatenate(parts), whole)


class NamedNoise(torch.nn.Module):
    """A prior whose input is called noise."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, noise: Tensor) -> Tensor:
        return self.prior(noise)
