"""Stop pythae's training after some minutes; pythae itself can only count epochs."""

from __future__ import annotations

import time
from typing import Any

from pythae.trainers.training_callbacks import TrainingCallback


class TimeIsUp(Exception):
    """The time for training is over."""


class Budget(TrainingCallback):
    """A callback that ends pythae's training by TimeIsUp.

    Args:
        minutes: How long to train from now on.
    """

    def __init__(self, minutes: float) -> None:
        self.ends = time.monotonic() + 60.0 * minutes
        self.steps = 0

    def on_train_step_end(self, training_config: object, **_: Any) -> None:
        self.steps += 1
        if time.monotonic() > self.ends:
            raise TimeIsUp
