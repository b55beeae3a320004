"""Loss terms that a device is still computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor

_MOST: Final = 8  # steps that the host may be ahead of the device


class _Step(NamedTuple):
    """The terms of a step, and the event after which their values are on the host; None if they are there."""

    step: int
    names: list[str]
    values: Tensor
    arrived: torch.cuda.Event | None


class PendingTerms:
    """The loss terms of the last steps, in their order.

    A host that reads the terms of every step waits for the device, which then waits for the host to start the next
    step. So on CUDA the terms are read some steps later. On the CPU they are there at once.
    """

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def add(self, step: int, names: list[str], values: Tensor) -> None:
        """Add the terms of a step.

        Args:
            step: The step.
            names: The names of the terms.
            values: Their values, [len(names)].
        """
        arrived = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._steps.append(_Step(step, names, values, arrived))

    def take(self, *, everything: bool) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield, and forget, the steps whose terms are there, with these terms by name.

        Args:
            everything: Whether to wait for all steps. If not, some of the last steps may be left.
        """
        while self._steps:
            step, names, values, arrived = self._steps[0]
            if arrived:
                if everything or len(self._steps) > _MOST:
                    arrived.synchronize()
                elif not arrived.query():
                    return
            self._steps.popleft()
            yield step, dict(zip(names, values.tolist(), strict=True))
