from __future__ import annotations

import torch

from training.networks import mlp
from training.priors.wrappers import Averaged


def test_evaluation_uses_the_average_and_training_does_not():
    averaged = Averaged(mlp(6, 4, 8, 1), 0.5)
    weight = averaged.network[0].weight
    for value, steps in ((1.0, 100), (2.0, 1)):
        torch.nn.init.constant_(weight, value)
        for _ in range(steps):
            averaged.update()
    torch.testing.assert_close(averaged.average[0].weight, torch.full_like(weight, 1.5))
    x = torch.randn(4, 6)
    assert torch.equal(averaged.train()(x), averaged.network(x))
    assert torch.equal(averaged.eval()(x), averaged.average(x))


def test_the_first_steps_forget_the_start():
    averaged = Averaged(mlp(2, 2, 4, 1), 0.999)
    start = averaged.average[0].weight.clone()
    torch.nn.init.zeros_(averaged.network[0].weight)
    averaged.update()
    assert averaged.average[0].weight.abs().max() <= 0.1001 * start.abs().max()


def test_only_the_network_itself_is_trained():
    averaged = Averaged(mlp(2, 2, 4, 1), 0.9)
    trained = [parameter for parameter in averaged.parameters() if parameter.requires_grad]
    assert [id(p) for p in trained] == [id(p) for p in averaged.network.parameters()]


def test_a_restart_forgets_all_that_was_averaged():
    averaged = Averaged(mlp(2, 2, 4, 1), 0.9)
    averaged.update()
    torch.nn.init.constant_(averaged.network[0].weight, 3.0)
    averaged.restart()
    assert torch.equal(averaged.average[0].weight, averaged.network[0].weight)
    assert averaged.steps == 0
