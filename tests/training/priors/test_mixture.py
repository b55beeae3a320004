from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rae_serve import noise
from rae_serve.errors import InvalidInput
from training.priors.mixture import Mixture

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
    bounds = fitted.bounds.double()
    assert torch.isfinite(bounds).all()
    assert (bounds.diff() > 0).all()
    cumulative = torch.distributions.Normal(0.0, 1.0).cdf(bounds)
    order = nearest_centre(fitted.means)
    expected = np.cumsum([WEIGHTS[k] for k in order])[:-1]
    np.testing.assert_allclose(cumulative.numpy(), expected, atol=1e-3)


def test_a_component_without_weight_is_never_chosen():
    from training.priors.mixture import _bounds

    bounds = _bounds(np.array([0.0, 0.5, 0.5, 0.0]))
    assert bounds.tolist() == [-7.0, 0.0, 7.0]
    largest = noise.inverse_normal(np.array([0, 2**32 - 1], dtype=np.uint64))
    assert np.abs(largest).max() < 7.0


def test_the_fit_follows_torchs_seed_and_the_scale_of_the_latents():
    latents = torch.randn(500, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([1e-3, 1.0, 1e3])

    def fit(scale: float) -> Mixture:
        torch.manual_seed(5)
        mixture = Mixture(3, components=4)
        mixture.start(latents * scale, latents[:50])
        return mixture

    first, again, scaled = fit(1.0), fit(1.0), fit(1024.0)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), again.buffers(), strict=True))
    torch.testing.assert_close(scaled.means, 1024.0 * first.means, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(scaled.bounds, first.bounds, rtol=0, atol=1e-4)


def test_an_unused_dimension_stays_unused():
    torch.manual_seed(0)
    latents = torch.cat([torch.randn(200, 2), torch.full((200, 1), 0.5)], dim=1)
    mixture = Mixture(3, components=2)
    mixture.start(latents, latents[:50])
    torch.testing.assert_close(mixture(torch.randn(50, 4))[:, 2], torch.full((50,), 0.5), atol=1e-4, rtol=0)


def test_more_components_than_latents_are_refused():
    with pytest.raises(InvalidInput, match="components: must be at most 5"):
        Mixture(2, components=6).start(torch.randn(5, 2), torch.randn(1, 2))
