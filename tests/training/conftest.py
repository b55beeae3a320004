"""A small FlexAE, trained for a moment on real digits, and its export."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_limits

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from tests.data import make_bundle
from training import commands
from training.export.bundle import export
from training.runs import Run
from training.trainer import Trainer

MASKED = ("network=conv", "filters=4", "hidden=16", "critic_hidden=16", "latent_dim=8", "critic_steps=1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: the models and the sets of images are too small to share, and on busy cores threads wait."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_bundle.train(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="session")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the run, in place of the committed one."""
    return export(run, tmp_path_factory.mktemp("bundles") / "digits")


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    """The engine of the run's bundle: pytest makes a session's fixture once, for whichever bundle came first."""
    return Engine(bundle, device="cpu")


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A MaskAAE, half of whose dimensions are closed."""
    path = tmp_path_factory.mktemp("runs") / "masked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", _closing_half(Trainer.save))
        commands.train("maskaae-digits", ["steps=20", *MASKED], None, path, "cpu", resume=False)
    return Run.open(path)


def _closing_half(save):
    def close_and_save(self: Trainer) -> None:
        with torch.no_grad():
            self.model.depth[::2], self.model.depth[1::2] = 3.0, 0.01
        save(self)

    return close_and_save
