from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from rae_serve import attributes, projection
from rae_serve import bundle as bundles
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError
from rae_serve.labels import Labelled
from rae_serve.manifest import Latent, Map, schema

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
CLASSES = load_digits().target
RNG = np.random.default_rng(0)


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.load(shutil.copytree(bundle.path, tmp_path / "copy"))


def latent_of(codes: np.ndarray) -> Latent:
    """The latent space of codes [N, D], without principal directions."""
    dim = codes.shape[1]
    levels = [0.25, 0.5, 0.75]
    return Latent(
        dim=dim,
        trained_dim=dim,
        active=list(range(dim)),
        mask=None,
        mean=codes.mean(axis=0).tolist(),
        std=codes.std(axis=0).tolist(),
        quantile_levels=levels,
        quantiles=np.quantile(codes, levels, axis=0).tolist(),
    )


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_the_directions_and_points_are_those_of_scikit_learn(dim):
    codes = RNG.normal(size=(300, dim)) @ RNG.normal(size=(dim, dim)) + 3.0
    prior = RNG.normal(size=(100, dim))
    latent = projection.describe(latent_of(codes), codes, prior)
    found = latent.principal
    count = min(dim, projection.DIRECTIONS)
    pca = PCA(count).fit(codes)
    signs = np.sign((pca.components_ * found.directions).sum(axis=1))
    np.testing.assert_allclose(found.directions, signs[:, None] * pca.components_, atol=1e-5)
    np.testing.assert_allclose(found.shares, pca.explained_variance_ratio_, atol=1e-4)
    along = signs * pca.transform(prior)
    np.testing.assert_allclose(found.prior_quantiles[1], np.median(along, axis=0), atol=1e-4)
    np.testing.assert_allclose(latent.prior_quantiles[1], np.median(prior, axis=0), atol=1e-4)
    drawn = projection.draw(latent, codes, prior)
    assert (len(drawn.images), len(drawn.prior)) == (300, 100)
    np.testing.assert_allclose(np.array(drawn.prior)[:, : min(dim, 2)], along[:, :2], rtol=1e-2, atol=1e-4)


def test_latents_that_are_all_alike_have_directions_without_a_share():
    codes = np.full((5, 3), 0.5)
    latent = projection.describe(latent_of(codes), codes, codes)
    assert latent.principal.shares == [0.0, 0.0, 0.0]
    assert projection.draw(latent, codes, codes).images == [(0.0, 0.0)] * 5


def labelled(rows: slice) -> Labelled:
    return Labelled("digits", DIGITS[rows], [str(k) for k in range(10)], CLASSES[rows, None] == np.arange(10))


def annotated(bundle: Bundle, rows: slice) -> Bundle:
    engine = Engine(bundle, device="cpu")
    codes, has = attributes.encoded(engine, labelled(rows))
    changed = projection.annotate(engine, codes, [str(k) for k in range(10)], has)
    engine.close()
    return changed


def test_a_bundle_gets_a_map_of_labelled_images(copy):
    first = annotated(copy, slice(200))
    drawn = first.map()
    assert [labels[0] for labels in drawn.labels] == CLASSES[:200].tolist()
    jsonschema.validate(json.loads((first.path / "manifest.json").read_text()), schema())
    again = annotated(first, slice(200, 300))
    assert again.manifest.latent == first.manifest.latent  # directions do not follow each set of labels
    assert again.manifest.digest == copy.manifest.digest
    assert len(again.map().images) == 100
    assert [path.name for path in copy.path.glob("map-*")] == [again.manifest.map] != [first.manifest.map]


def test_labelled_images_stand_before_those_without_labels(copy, engine):
    codes = engine.encode(DIGITS[:50]).astype(np.float64)
    latent = projection.describe(copy.manifest.latent, codes, codes)
    before = projection.draw(latent, codes, codes)
    has = CLASSES[:20, None] == np.arange(10)
    drawn = projection.draw(latent, codes[:20], codes, names=[str(k) for k in range(10)], has=has, before=before)
    assert drawn.images == [*before.images[:20], *before.images]
    assert drawn.labels == [[k] for k in CLASSES[:20]] + [[]] * 50
    again = projection.draw(latent, codes[:20], codes, names=drawn.names, has=has, before=drawn)
    assert again == drawn


def test_a_map_that_does_not_fit_is_refused(copy):
    latent = annotated(copy, slice(50)).manifest.latent
    wrong = Map(images=[(0, 0)], prior=[]).model_dump() | {"names": ["one"], "labels": [[1]]}
    for text in (json.dumps(wrong), "{}"):
        with pytest.raises(BundleError, match=r"map\.json is no map"):
            bundles.annotate(copy, added={"map.json": text.encode()}, map="map.json", latent=latent)


@pytest.mark.parametrize(
    ("field", "value"), [("directions", [[1.0]]), ("shares", [1.0]), ("prior_quantiles", [[0.0] * 8])]
)
def test_principal_directions_of_another_shape_are_refused(copy, field, value):
    latent = annotated(copy, slice(50)).manifest.latent.model_dump()
    latent["principal"][field] = value
    with pytest.raises(ValueError, match="principal"):
        Latent.model_validate(latent)
