"""Loss terms that arrive later than their step."""

from __future__ import annotations

import torch

from training import pending
from training.pending import PendingTerms


class Event:
    """A CUDA event, which has happened when the test says so, or when somebody waits for it."""

    def __init__(self) -> None:
        self.happened = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


def test_terms_on_the_cpu_are_there_at_once():
    terms = PendingTerms()
    terms.add(3, ["a", "b"], torch.tensor([1.5, 2.0]))
    terms.add(4, ["a"], torch.tensor([3.0]))
    assert list(terms.take(everything=False)) == [(3, {"a": 1.5, "b": 2.0}), (4, {"a": 3.0})]
    assert list(terms.take(everything=True)) == []


def test_terms_come_in_order_and_never_too_late():
    terms, events = PendingTerms(), []
    for step in range(12):
        events.append(Event())
        terms._steps.append(pending._Step(step, ["a"], torch.tensor([float(step)]), events[-1]))

    def taken(everything: bool = False) -> list[int]:
        return [step for step, _ in terms.take(everything=everything)]

    assert taken() == [0, 1, 2, 3]  # the host waits, so as not to be more than 8 steps ahead
    events[5].happened = True
    assert taken() == []  # step 4 comes first
    events[4].happened = True
    assert taken() == [4, 5]
    assert taken(everything=True) == [6, 7, 8, 9, 10, 11]
