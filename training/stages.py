"""The stages of a run."""

from __future__ import annotations

from typing import Final

# The joint training, then further steps of the prior alone, on cached codes.
STAGES: Final = ("autoencoder", "prior")


def falling(progress: float, decay: float) -> float:
    """A factor for every rate at `progress` from 0 to 1: 1, then over the last `decay` of it falling linearly to 0.

    For every rate: an encoder push that stays while the autoencoder's rate falls ruins the autoencoder.
    """
    return min(1.0, (1.0 - progress) / decay) if decay else 1.0
