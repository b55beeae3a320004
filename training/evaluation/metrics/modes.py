"""Is any kind of image missing? Kinds are clusters of the real images' features.

Recall falls by a tenth where one of ten kinds is missing, which looks like any other loss; here that kind's own
share falls to nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from training.evaluation.metrics.distances import Features

CLUSTERS: Final = 50
_EACH: Final = 50  # real images a cluster on average, lest chance empties one
FEWEST: Final = 2 * _EACH  # real images that tell two kinds
_SMALLEST: Final = 0.2  # of the average cluster; smaller ones say nothing


def rarest_mode(features: Features, reference: Features, *, seed: int = 0) -> float:
    """The smallest ratio of the generated share to the real share over the clusters of the reference.

    1 where every kind is made as often as it is real, 0 where one is missing. At most 50 clusters (k-means), with
    50 real rows each on average. Raises ValueError where there are no features, the reference has fewer than FEWEST
    rows, or D differs.
    """
    if not len(features) or features.shape[1:] != reference.shape[1:]:
        raise ValueError(f"features {features.shape} and {reference.shape} do not compare")
    if len(reference) < FEWEST:
        raise ValueError(f"{len(reference)} real rows do not tell kinds apart: {FEWEST} do")
    clusters = min(CLUSTERS, len(reference) // _EACH)
    means = MiniBatchKMeans(clusters, n_init=10, random_state=seed).fit(reference.astype(np.float64))
    real = np.bincount(means.labels_, minlength=clusters) / len(reference)
    made = np.bincount(means.predict(features.astype(np.float64)), minlength=clusters) / len(features)
    told = real >= _SMALLEST / clusters
    return float((made[told] / real[told]).min())
