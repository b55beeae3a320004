"""The only training loop: for each (optimiser, terms) of a model's updates, a gradient and a step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from rae_serve import files
from rae_serve import images as pictures
from rae_serve.errors import InvalidInput, RunError
from training import checkpoint
from training.autoencoder import Autoencoder, Update
from training.data.batches import Batches
from training.data.dataset import Dataset
from training.inference import encode_all, reconstruct, sample
from training.journal import METRICS, SHOWN, quiet_threads
from training.machine import freed_memory_kept
from training.recipe import Recipe
from training.stages import STAGES, falling

BEST: Final = "best"
DIVERGED: Final = 1e8  # no term of any model comes near it while training goes well
_SAVING_SHARE: Final = 0.01  # of the time may go into checkpoints
_SAVING_SECONDS: Final = 5.0  # at least, between two of them


class Interrupted(Exception):
    """Training stopped because it was asked to, after saving a checkpoint."""


class Trainer:
    """One run: a model, its optimisers, its data and where it stands, in a folder.

    Everything random follows from the recipe's seed and is part of a checkpoint, so a run that was stopped at
    any moment and resumed equals, on one machine's CPU, the run that never stopped. With a time budget it goes on
    as well, but how many steps fit into it is the machine's affair.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, run: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.run = run
        self.device = device
        torch.manual_seed(recipe.seed)
        height, width, channels = dataset.preprocessing.shape
        # Channels last: an update on 64 × 64 images then takes three quarters of the time on a CPU.
        self.model = recipe.build((channels, height, width)).to(device, memory_format=torch.channels_last)
        if recipe.prior_steps and type(self.model).prior_updates is Autoencoder.prior_updates:
            raise InvalidInput("prior_steps", f"{recipe.model} has no further steps of its prior: leave it at 0")
        self.optimizers = self.model.optimizers()
        self._base_rates = {name: optimizer.defaults["lr"] for name, optimizer in self.optimizers.items()}
        self.stages = STAGES[: 2 if recipe.prior_steps else 1]
        self.stage = 0
        self.stage_step = 0
        self.stage_seconds = 0.0
        self.step = 0
        self.batches = self._stage_batches()
        self.metrics = run / METRICS
        # (step, mean squared error on the held-out images) of the autoencoder, now and at its best.
        self.latest_error: tuple[int, float] | None = None
        self.least_error: tuple[int, float] | None = None
        self._stopping = False

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run / "checkpoints"

    @property
    def best(self) -> Path:
        """The folder of the checkpoint with the least error on the held-out images."""
        return self.run / BEST

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return self.stage == len(self.stages)

    @property
    def progress(self) -> float:
        """How much of the current stage is done, by steps or by the time budget, whichever is further."""
        steps = self.recipe.steps if self.stage == 0 else self.recipe.prior_steps
        done = self.stage_step / steps
        if self.recipe.minutes:
            share = self.recipe.prior_share if self.stage == 1 else 1.0 - self.recipe.prior_share
            seconds = 60.0 * self.recipe.minutes * (share if len(self.stages) == 2 else 1.0)
            done = max(done, self.stage_seconds / seconds)
        return done

    def stop(self) -> None:
        """Ask the loop to save and end after the step that it is in."""
        self._stopping = True

    def resume(self) -> None:
        """Go back to the latest checkpoint; to the start, where a run was killed before its first.

        Raises RunError where the checkpoint is damaged.
        """
        if not checkpoint.exists(self.checkpoints):
            self.metrics.unlink(missing_ok=True)
            return
        state = checkpoint.latest(self.checkpoints)
        self.model.load_state_dict(state.section("model"))
        for name, optimizer in self.optimizers.items():
            checkpoint.unflatten(optimizer, state.section(f"optimizer/{name}"))
        self.step = state.step
        self.stage, self.stage_step, self.stage_seconds = (
            state.facts[key] for key in ("stage", "stage_step", "stage_seconds")
        )
        self.latest_error, self.least_error = (
            tuple(error) if error else None for error in (state.facts["latest_error"], state.facts["least_error"])
        )
        if not self.finished:
            self.batches = self._stage_batches()
            self.batches.drawn = state.facts["drawn"]
        random = state.section("random")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.device)
        with self.metrics.open("ab") as file:
            file.truncate(state.facts["metrics_bytes"])

    def fit(self, report: Callable[[Mapping[str, float]], None] = lambda _: None) -> None:
        """Train to the end, calling `report` with the terms of every step.

        Raises Interrupted after `stop`, and RunError where a term diverges or the disk refuses; either way the
        checkpoints so far stay.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        try:
            with (
                freed_memory_kept(),
                quiet_threads(),
                SummaryWriter(str(self.run / "tensorboard"), purge_step=self.step + 1) as board,
            ):
                self._loop(report, board)
        except OSError as error:
            raise RunError(f"{self.run} cannot be written ({error}); its checkpoints are untouched") from None

    def _loop(self, report: Callable[[Mapping[str, float]], None], board: SummaryWriter) -> None:
        began = time.monotonic()
        if self.step == 0:
            self.save()
        saved_at = time.monotonic()
        saving_seconds = saved_at - began
        while not self.finished:
            started = time.monotonic()
            terms = self._train_step()
            report(terms)
            self._record(terms, board)
            now = time.monotonic()
            self.stage_seconds += now - started
            if self.progress >= 1.0:
                self._next_stage()
            due = now - saved_at > max(_SAVING_SECONDS, saving_seconds / _SAVING_SHARE)
            if due or self.finished or self._stopping:
                self.save()
                saved_at = time.monotonic()
                saving_seconds = saved_at - now
            if self._stopping and not self.finished:
                raise Interrupted

    def _train_step(self) -> dict[str, float]:
        """One step of the current stage; its terms by optimiser/term."""
        self.model.train()
        fallen = falling(self.progress, self.recipe.decay) if self.stage == 0 else 1.0
        rates = {n: fallen * base * self.model.rate(n, self.progress) for n, base in self._base_rates.items()}
        set_rates(self.optimizers, rates)
        terms: dict[str, Tensor] = {}
        for name, update in self._updates():
            descend(self.optimizers[name], update)
            terms.update({f"{name}/{term}": value.detach() for term, value in update.items()})
        self.step += 1
        self.stage_step += 1
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        for name, value in values.items():
            if not abs(value) < DIVERGED:
                self._diverged(name, value)
        return values

    def _updates(self) -> Iterator[Update]:
        updates = self.model.updates if self.stage == 0 else self.model.prior_updates
        return updates(self.batches, min(self.progress, 1.0))

    def _next_stage(self) -> None:
        if self.stage == 0:
            self.model.eval()
            self.model.finish(self.batches)
        self.stage += 1
        self.stage_step, self.stage_seconds = 0, 0.0
        if not self.finished:
            self.batches = self._stage_batches()
            self.model.start_prior(torch.from_numpy(self.batches.rows).to(self.device))

    def _stage_batches(self) -> Batches:
        recipe, images, train = self.recipe, self.dataset.images, self.dataset.train
        if self.stage == 0:
            flip = recipe.horizontal_flip
            return Batches(images, train, recipe.batch_size, recipe.seed, self.device, flip=flip)
        codes = encode_all(self.model, images, train, self.device)
        if recipe.horizontal_flip:
            mirrored = encode_all(self.model, images[:, :, ::-1], train, self.device)
            codes = np.concatenate([codes, mirrored])
        return Batches(codes, np.arange(len(codes)), recipe.prior_batch_size, recipe.seed, self.device)

    def _diverged(self, term: str, value: float) -> None:
        last = checkpoint.latest(self.checkpoints)
        raise RunError(
            f"training diverged at step {self.step}: {term} is {value:g}; the last good checkpoint is of step "
            f"{last.step}, in {self.checkpoints}. A lower learning rate is what helps most often"
        )

    def save(self) -> None:
        """Write a checkpoint of this moment between two steps."""
        self._save(self.checkpoints, checkpoint.KEPT)

    def _save(self, folder: Path, kept: int) -> None:
        model = self.model.state_dict()
        for name, value in model.items():
            if not torch.isfinite(value).all():
                self._diverged(name, math.nan)
        tensors = {f"model/{name}": value for name, value in model.items()}
        for name, optimizer in self.optimizers.items():
            entries = checkpoint.flatten(optimizer)
            tensors |= {f"optimizer/{name}/{key}": value for key, value in entries.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {
            "stage": self.stage,
            "stage_step": self.stage_step,
            "stage_seconds": self.stage_seconds,
            "drawn": self.batches.drawn,
            "latest_error": self.latest_error,
            "least_error": self.least_error,
            "metrics_bytes": self.metrics.stat().st_size if self.metrics.exists() else 0,
        }
        checkpoint.save(folder, self.step, tensors, facts, kept)

    def _record(self, terms: Mapping[str, float], board: SummaryWriter) -> None:
        record: dict[str, Any] = {"step": self.step, "stage": self.stages[self.stage]}
        if self.step % self.recipe.log_every == 0:
            record |= {**terms, **self.model.diagnostics()}
        if self.step % self.recipe.sample_every == 0:
            record |= self._show(board)
        if len(record) == 2:
            return
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                board.add_scalar(name, value, self.step)
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _show(self, board: SummaryWriter) -> dict[str, float]:
        """Write grids of samples and reconstructions; the error on held-out images, where there are any."""
        held_out = self.dataset.validation
        originals = self.dataset.images[(held_out if len(held_out) else self.dataset.train)[:1000]]
        reconstructions = reconstruct(self.model, originals, self.device)
        pairs = np.stack([originals, reconstructions], axis=1)[: SHOWN // 2]
        grids = {
            "samples": pictures.grid(sample(self.model, SHOWN, self.device)),
            "reconstructions": pictures.grid(pairs.reshape(-1, *originals.shape[1:])),
        }
        for name, image in grids.items():
            path = self.run / name / f"step-{self.step:09d}.png"
            path.parent.mkdir(exist_ok=True)
            files.write(path, pictures.encode(image))
            board.add_image(name, image, self.step, dataformats="HWC")
        if not len(held_out):
            return {}
        error = float(np.square((originals.astype(np.float64) - reconstructions) / 255.0).mean())
        self._judge(error)
        return {"validation/mse": error}

    def _judge(self, error: float) -> None:
        """Keep a checkpoint of the autoencoder's best moment, by the held-out images alone."""
        self.latest_error = (self.step, error)
        if self.stage == 0 and (self.least_error is None or error < self.least_error[1]):
            self.least_error = self.latest_error
            self._save(self.best, kept=1)


def descend(optimizer: torch.optim.Optimizer, terms: Mapping[str, Tensor]) -> None:
    """One step of an optimiser down the sum of the terms, with gradients for its own parameters only."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Not autograd.grad: its gradients may lie in memory in another order than the parameters, as fused Adam forbids.
    torch.stack(list(terms.values())).sum().backward(inputs=parameters)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def set_rates(optimizers: Mapping[str, torch.optim.Optimizer], rates: Mapping[str, float]) -> None:
    """Give each optimiser its learning rate."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
