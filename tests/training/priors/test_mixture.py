from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from rae_serve import noise
from training.priors.components import Components, bounds
from training.priors.mixture import Mixture
from training.priors.wrappers import Whitened

WEIGHTS = (0.6, 0.3, 0.1)
CENTRES = ((-20.0, 0.0), (20.0, 0.0), (0.0, 30.0))


@pytest.fixture
def fitted() -> Mixture:
    """A mixture of three far clusters of unequal weights."""
    torch.manual_seed(0)
    clusters = [
        torch.tensor(centre) + torch.randn(round(3000 * weight), 2)
        for centre, weight in zip(CENTRES, WEIGHTS, strict=True)
    ]
    mixture = Mixture(2, components=3)
    mixture.start(torch.cat(clusters), torch.cat(clusters)[:50])
    return mixture


def nearest_centre(latents: Tensor) -> Tensor:
    return torch.cdist(latents, torch.tensor(CENTRES)).argmin(dim=1)


def test_components_are_chosen_as_often_as_their_weights_say(fitted):
    count = 100_000
    chosen = nearest_centre(fitted(torch.from_numpy(noise.normals(3, 0, count, 3))))
    for k, weight in enumerate(WEIGHTS):
        share = (chosen == k).double().mean().item()
        assert abs(share - weight) < 4.0 * math.sqrt(weight * (1.0 - weight) / count), k


def test_nothing_but_the_choice_column_changes_the_component(fitted):
    rows = torch.from_numpy(noise.normals(4, 0, 1000, 3))
    warm = rows.clone()
    warm[:, 1:] *= 0.25
    other = rows.clone()
    other[:, 1:] = torch.randn(1000, 2)
    assert torch.equal(nearest_centre(fitted(warm)), nearest_centre(fitted(rows)))
    assert torch.equal(nearest_centre(fitted(other)), nearest_centre(fitted(rows)))
    assert fitted.roles == ["choice", "gaussian", "gaussian"]


def test_bounds_are_finite_sorted_and_the_quantiles_of_the_weights(fitted):
    found = fitted.bounds.double()
    assert torch.isfinite(found).all()
    assert (found.diff() > 0).all()
    cumulative = torch.distributions.Normal(0.0, 1.0).cdf(found)
    order = nearest_centre(fitted.means)
    expected = np.cumsum([WEIGHTS[k] for k in order])[:-1]
    np.testing.assert_allclose(cumulative.numpy(), expected, atol=1e-3)


def test_a_component_without_weight_is_never_chosen():
    assert bounds(torch.tensor([0.0, 0.5, 0.5, 0.0])).tolist() == [-7.0, 0.0, 7.0]
    largest = noise.inverse_normal(np.array([0, 2**32 - 1], dtype=np.uint64))
    assert np.abs(largest).max() < 7.0


def test_the_fit_follows_torchs_seed_and_within_whitened_the_scale_of_the_latents():
    latents = torch.randn(500, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([1e-3, 1.0, 1e3])

    def fit(scale: float) -> Whitened:
        torch.manual_seed(5)
        prior = Whitened(Mixture(3, components=4))
        prior.start(latents * scale, latents[:50])
        return prior

    first, again, scaled = fit(1.0), fit(1.0), fit(1024.0)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), again.buffers(), strict=True))
    rows = torch.from_numpy(noise.normals(1, 0, 20, 4))
    torch.testing.assert_close(scaled(rows), 1024.0 * first(rows), rtol=1e-3, atol=1e-3)


def test_auto_finds_the_number_of_components_by_held_out_latents():
    generator = torch.Generator().manual_seed(3)
    centres = 10.0 * torch.randn(5, 2, generator=generator)
    draws = [centres[torch.arange(n) % 5] + torch.randn(n, 2, generator=generator) for n in (1000, 500)]
    torch.manual_seed(0)
    mixture, seen = Mixture(2), []
    mixture.start(*draws, report=seen.append)
    assert mixture.diagnostics() == {"components": 5}
    assert [figures["components"] for figures in seen] == [1, 2, 5, 10]
    assert seen[2]["held_out"] == max(figures["held_out"] for figures in seen)
    assert mixture.log_density(draws[1]).mean().item() == pytest.approx(seen[2]["held_out"], abs=1e-4)


def test_a_mixture_of_any_size_is_loaded():
    torch.manual_seed(0)
    fitted, other = Mixture(2, components=3), Mixture(2)
    fitted.start(torch.randn(100, 2), torch.randn(10, 2))
    other.load_state_dict(fitted.state_dict())
    rows = torch.from_numpy(noise.normals(1, 0, 20, 3))
    assert torch.equal(other(rows), fitted(rows))
    assert other.fitted


def test_the_log_density_is_that_of_scikit_learn_and_of_torch(fitted):
    points = 20.0 * torch.randn(200, 2)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(probs=fitted.weights),
        torch.distributions.MultivariateNormal(fitted.means, scale_tril=fitted.scales),
    )
    torch.testing.assert_close(fitted.log_density(points), reference.log_prob(points), rtol=1e-5, atol=1e-4)
    fit = GaussianMixture(3).fit(points.numpy())
    fit.weights_, fit.means_ = fitted.weights.numpy(), fitted.means.numpy()
    fit.precisions_cholesky_ = np.linalg.inv(fitted.scales.numpy()).transpose(0, 2, 1)
    np.testing.assert_allclose(fitted.log_density(points), fit.score_samples(points.numpy()), rtol=1e-5, atol=1e-4)


def test_diagonal_components_have_the_density_of_full_ones():
    torch.manual_seed(0)
    weights, means = torch.tensor([0.25, 0.75], dtype=torch.float64), torch.randn(2, 3)
    deviations, points = torch.rand(2, 3) + 0.1, torch.randn(50, 3)
    diagonal, full = Components(3, 2, diagonal=True), Components(3, 2, diagonal=False)
    diagonal.place(weights, means, deviations)
    full.place(weights, means, torch.diag_embed(deviations))
    rows = torch.from_numpy(noise.normals(1, 0, 20, 4))
    torch.testing.assert_close(diagonal(rows), full(rows))
    torch.testing.assert_close(diagonal.log_density(points), full.log_density(points))


def test_an_unused_dimension_stays_unused():
    torch.manual_seed(0)
    latents = torch.cat([torch.randn(200, 2), torch.full((200, 1), 0.5)], dim=1)
    mixture = Whitened(Mixture(3, components=2))
    mixture.start(latents, latents[:50])
    torch.testing.assert_close(mixture(torch.randn(50, 4))[:, 2], torch.full((50,), 0.5), atol=1e-4, rtol=0)
