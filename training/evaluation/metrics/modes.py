"""Is any kind of image missing? A kind is a cluster of the features of real images.

Where one of ten kinds is missing, recall falls by a tenth, as it may for many other reasons. The share of the
missing kind itself falls to zero.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from training.evaluation.metrics.distances import Features, require_comparable

CLUSTERS: Final = 50
_EACH: Final = 50  # real images per cluster on average, so that chance does not empty a cluster
MIN_IMAGES: Final = 2 * _EACH  # real images, enough for two clusters
_SMALLEST: Final = 0.2  # of the average cluster; smaller clusters are ignored


def rarest_mode(features: Features, reference: Features, *, seed: int = 0) -> float:
    """Return the smallest ratio of the generated share to the real share over the clusters of the reference.

    The ratio is 1 if the model makes every kind as often as it occurs, and 0 if a kind is missing. There are at most
    50 clusters (k-means), with at least 50 real rows each on average.

    Args:
        features: Features of generated images, float [N, D].
        reference: Features of real images, float [M, D].
        seed: The seed of the clustering.

    Raises:
        ValueError: There are no features, fewer than MIN_IMAGES real rows, or the rows differ in length.
    """
    require_comparable(features, reference, rows=1)
    if len(reference) < MIN_IMAGES:
        raise ValueError(f"{len(reference)} real rows are too few to tell kinds apart; {MIN_IMAGES} are needed")
    clusters = min(CLUSTERS, len(reference) // _EACH)
    means = MiniBatchKMeans(clusters, n_init=10, random_state=seed).fit(reference.astype(np.float64))
    real = np.bincount(means.labels_, minlength=clusters) / len(reference)
    made = np.bincount(means.predict(features.astype(np.float64)), minlength=clusters) / len(features)
    large = real >= _SMALLEST / clusters
    return float((made[large] / real[large]).min())
