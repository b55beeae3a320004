"""The training loop of all models: each update that a model yields is a gradient and a step of one optimiser."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from rae_serve.errors import InvalidInput, RunError
from training import checkpoint, journal
from training.acceleration import accelerate
from training.checkpoint import OptimizerPart, Part, RandomPart
from training.data.dataset import Dataset
from training.distributed import ALONE, World
from training.evaluation.metrics import pixels
from training.inference import Inference
from training.journal import Journal
from training.machine import freed_memory_kept
from training.optimizers import descend, set_rates
from training.pending import PendingTerms
from training.priors.base import Report, ignore
from training.recipe import Recipe
from training.stages import JointStage, Stage, stages

_SAVING_SHARE: Final = 0.01  # the most of the time that may go into checkpoints
_SAVING_SECONDS: Final = 5.0  # the least time between two checkpoints
_FIRST_GRID_SECONDS: Final = 60.0  # a run shows its first grid after this time, or earlier by `sample_every`
_SHOWN: Final = 64  # images in a grid
_HELD_OUT: Final = 1000  # the most images over which the held-out error is averaged

Error = tuple[int, float]  # a step, and the mean squared error of held-out images after it


class Interrupted(Exception):
    """Training stopped because it was asked to, after saving a checkpoint."""


@dataclass
class State:
    """Where a run stands, beside its tensors. A new run starts with these values, and a checkpoint holds all of them.

    Attributes:
        step: Steps of all stages.
        stage: Index of the current stage; the number of stages when the run is finished.
        begun: Whether the current stage has begun.
        stage_step: Steps of the current stage.
        stage_seconds: Time spent in steps of the current stage.
        seconds: Time spent in steps and fits of all stages.
        drawn: Batches drawn in the current stage.
        latest_error: The last error on held-out images, if there is one.
        least_error: The least such error of the joint training.
        journal_bytes: Length of the file of metrics.
    """

    step: int = 0
    stage: int = 0
    begun: bool = False
    stage_step: int = 0
    stage_seconds: float = 0.0
    seconds: float = 0.0
    drawn: int = 0
    latest_error: Error | None = None
    least_error: Error | None = None
    journal_bytes: int = 0


class Trainer:
    """Trains one run: its model, optimisers, stages and state.

    Everything random follows from the recipe's seed and is part of a checkpoint. So a run that is stopped at any
    moment and resumed equals, on one machine's CPU, a run that never stops. This does not hold with a time budget:
    how many steps fit into it differs from run to run.

    Several processes that train together each have a trainer. The first process alone writes the run's folder,
    evaluates, and begins and ends stages; its state is then that of the others.

    Args:
        recipe: What to train, on what, for how long.
        dataset: The images.
        run: The run's folder.
        device: Where to train.
        finished: Whether the auto-encoder is a finished one, which `adopt` takes over; only a prior is then fitted.
        world: The processes that train together.

    Raises:
        InvalidInput: The recipe asks for further steps of a prior that has none, or for none of one that needs them;
            or the processes cannot share its batches evenly.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        run: Path,
        device: torch.device,
        *,
        finished: bool = False,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.recipe = recipe
        self.dataset = dataset
        self.run = run
        torch.manual_seed(recipe.seed)
        height, width, channels = dataset.preprocessing.shape
        # Channels last: an update on 64 × 64 images then takes three quarters of the time on a CPU.
        self.model = recipe.build((channels, height, width)).to(device).to(memory_format=torch.channels_last)
        further = self.model.sampler.optimizers()
        if recipe.prior_steps and not further:
            raise InvalidInput("prior_steps", f"must be 0: the prior of {recipe.model} takes no further steps")
        if recipe.posthoc and further and not recipe.prior_steps:
            raise InvalidInput(
                "prior_steps", f"must be above 0: the prior {recipe.posthoc} is trained in these steps"
            )
        self.optimizers = {**self.model.optimizers(), **further}
        self._base_rates = {name: optimizer.defaults["lr"] for name, optimizer in self.optimizers.items()}
        accelerate(self.model, recipe, device)
        self.inference = Inference(self.model, device)
        self.stages = stages(recipe, self.model, dataset, device, world, finished=finished)
        self.journal = Journal(run)
        self.state = State()
        self._parts: dict[str, Part] = {
            "model": self.model,
            **{f"optimizer/{name}": OptimizerPart(optimizer) for name, optimizer in self.optimizers.items()},
            "random": RandomPart(device),
        }
        self._pending = PendingTerms()
        self._stopping = False

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run / checkpoint.CHECKPOINTS

    @property
    def best(self) -> Path:
        """The folder of the checkpoint with the least error on held-out images."""
        return self.run / checkpoint.BEST

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return self.state.stage == len(self.stages)

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.stages[self.state.stage]

    @property
    def progress(self) -> float:
        """How much of the current stage is done, by its steps or by its time, whichever is further."""
        stage, state = self.stage, self.state
        done = state.stage_step / stage.steps if stage.steps else 1.0
        return max(done, state.stage_seconds / stage.seconds) if stage.seconds else done

    def stop(self) -> None:
        """Make `fit`, on all processes, save a checkpoint and end after the current step."""
        self._stopping = True

    def resume(self) -> None:
        """Go back to the latest checkpoint, or to the start if the run was killed before its first checkpoint.

        Raises:
            RunError: The checkpoint is damaged.
        """
        if not self.world.first:
            return  # `fit` begins with the state of the first process
        if checkpoint.paths(self.checkpoints):
            self._go_to(checkpoint.latest(self.checkpoints))
        self.journal.go_back(self.state.journal_bytes)

    def adopt(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over a finished auto-encoder. Its weights stay as they are; the posthoc prior has fresh ones.

        Args:
            tensors: The state of a model of the same recipe, apart from the posthoc prior.
            step: Steps of the training that made it.
        """
        fresh = {name: value for name, value in self.model.state_dict().items() if name.startswith("posthoc.")}
        kept = {name: value for name, value in tensors.items() if not name.startswith("posthoc.")}
        self.model.load_state_dict(kept | fresh)
        self.state.step = step

    def fit(self, report: Report = ignore) -> None:
        """Train to the end.

        Args:
            report: Called after every step with the step's loss terms by optimizer/term, and during the fit of a
                prior with its figures.

        Raises:
            Interrupted: `stop` was called; a checkpoint is saved.
            RunError: A term diverges, the disk cannot be written, or another process has ended; the checkpoints so
                far stay.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        journal_opened = self.journal.opened(self.state.step + 1) if self.world.first else nullcontext()
        try:
            with freed_memory_kept(), journal_opened:
                self._loop(report)
        except OSError as error:
            raise RunError(f"{self.run} cannot be written ({error}); its checkpoints are untouched") from None

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        self._save(self.checkpoints, checkpoint.KEPT)

    def _go_to(self, saved: checkpoint.Checkpoint) -> None:
        self.state = State(**saved.facts)
        for name, part in self._parts.items():
            part.load_state_dict(saved.section(name))
        if not self.finished:
            self.stage.batches.drawn = self.state.drawn

    def _follow_first(self) -> None:
        """Give the state of the first process to the others."""
        if self.world.size > 1:
            first = self.world.first
            data = self.world.broadcast(
                checkpoint.encode(self.state.step, self._parts, self._facts()) if first else b""
            )
            if not first:
                self._go_to(checkpoint.decode(data))

    def _facts(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        self.state.drawn = 0 if self.finished else self.stage.batches.drawn
        self.state.journal_bytes = self.journal.bytes
        return asdict(self.state)

    def _loop(self, report: Report) -> None:
        self._follow_first()
        began = time.monotonic()
        if not checkpoint.paths(self.checkpoints):
            self.save()
        saved_at = time.monotonic()
        saving_seconds = saved_at - began
        while not self.finished:
            if not self.state.begun:
                self._begin_stage(report)
            if self.progress >= 1.0:
                self._check_terms(report, everything=True)
                self._end_stage()
                continue
            started = time.monotonic()
            self._train_step()
            recorded = self.state.step % self.recipe.log_every == 0 or self.state.step % self.recipe.sample_every == 0
            terms = self._check_terms(report, everything=recorded)
            if recorded:
                self._record(terms)
            now = time.monotonic()
            overdue = now - saved_at > max(_SAVING_SECONDS, saving_seconds / _SAVING_SHARE)
            # The clock of the first process counts for all. With clocks of their own, some would take more steps.
            clock = (now - started, overdue) if self.world.first else (0.0, False)
            seconds, due, stopping = self.world.greatest(*clock, self._stopping)
            before = self.state.stage_seconds
            self.state.stage_seconds += seconds
            self.state.seconds += seconds
            if (
                self.state.step < self.recipe.sample_every
                and before < _FIRST_GRID_SECONDS <= self.state.stage_seconds
            ):
                self._show()
            if (due or stopping) and self.progress < 1.0:
                self._check_terms(report, everything=True)
                self.save()
                saved_at = time.monotonic()
                saving_seconds = saved_at - now
                if stopping:
                    raise Interrupted

    def _train_step(self) -> None:
        """Take one step of the current stage."""
        self.model.train()
        progress, decay = self.progress, self.stage.decay(self.progress)
        rates = {name: decay * base * self.model.rate(name, progress) for name, base in self._base_rates.items()}
        set_rates(self.optimizers, rates)
        terms: dict[str, Tensor] = {}
        with self.world.shared_noise():
            for name, update in self.stage.updates(min(progress, 1.0)):
                descend(self.optimizers[name], update, self.world)
                terms.update({f"{name}/{term}": value.detach() for term, value in update.items()})
        losses = torch.stack(list(terms.values()))
        self.world.average([losses, *self.stage.statistics])
        self.state.step += 1
        self.state.stage_step += 1
        self._pending.add(self.state.step, list(terms), losses)

    def _check_terms(self, report: Report, *, everything: bool) -> dict[str, float]:
        """Check and report the terms of the steps whose terms are there, or of all steps; return the last step's."""
        terms: dict[str, float] = {}
        for step, terms in self._pending.take(everything=everything):
            for name, value in terms.items():
                if not abs(value) < self.model.largest_term:
                    self._diverged(step, name, value)
            report(terms)
        return terms

    def _begin_stage(self, report: Report) -> None:
        """Begin the current stage; if asked to stop meanwhile, raise Interrupted. On resuming, it begins anew."""

        def report_unless_stopping(figures: Mapping[str, float]) -> None:
            if self._stopping:
                raise Interrupted
            report({f"{self.stage.name}/{name}": value for name, value in figures.items()})

        started, interrupted = time.monotonic(), False
        if self.world.first:
            try:
                self.stage.begin(report_unless_stopping)
            except Interrupted:
                interrupted = True
        if any(self.world.greatest(interrupted)):
            raise Interrupted
        self.state.seconds += time.monotonic() - started
        self.state.begun = True
        self._follow_first()

    def _end_stage(self) -> None:
        """Complete the current stage and save a checkpoint, from which a run resumes that is stopped in the next."""
        if self.world.first:
            self.stage.end()
            self._write(self.model.sampler.diagnostics())
        self._show()  # the last grid of a run shows the model of its last checkpoint
        self.state.stage += 1
        self.state.begun, self.state.stage_step, self.state.stage_seconds = False, 0, 0.0
        self.save()
        self._follow_first()
        if any(self.world.greatest(self._stopping)) and not self.finished:
            raise Interrupted

    def _diverged(self, step: int, term: str, value: float) -> None:
        last = checkpoint.latest(self.checkpoints)
        raise RunError(
            f"training diverged at step {step}: {term} is {value:g}; the last good checkpoint is of step "
            f"{last.step}, in {self.checkpoints}. A lower learning rate is what helps most often"
        )

    def _save(self, folder: Path, kept: int) -> None:
        for name, value in self.model.state_dict().items():
            if not torch.isfinite(value).all():
                self._diverged(self.state.step, name, math.nan)
        if self.world.first:
            checkpoint.save(folder, self.state.step, self._parts, self._facts(), kept)

    def _record(self, terms: Mapping[str, float]) -> None:
        step, values = self.state.step, dict[str, Any]()
        if step % self.recipe.log_every == 0:
            values |= {**terms, **self.model.diagnostics()}
        if step % self.recipe.sample_every == 0:
            error = self._show()
            if error is not None:
                values["validation/mse"] = error
                self._update_best(error)
        self._write(values)

    def _write(self, values: Mapping[str, Any]) -> None:
        """Add a line of metrics, if there are any."""
        if values and self.world.first:
            self.journal.write(self.state.step, self.stage.name, values)

    def _show(self) -> float | None:
        """Write grids of samples and of reconstructions; return the error on held-out images, if there are any.

        Random state and metrics stay as they are, so that a grid may depend on the time that steps take.
        """
        (error,) = self.world.greatest(self._write_grids() if self.world.first else 0.0)
        return error if len(self.dataset.validation) else None

    def _write_grids(self) -> float:
        """Write the grids; return the error on the images from which they are made."""
        held_out = self.dataset.validation
        originals = self.dataset.images[(held_out if len(held_out) else self.dataset.train)[:_HELD_OUT]]
        reconstructions = self.inference.reconstruct(originals)
        paired = journal.pairs(originals, reconstructions)[:_SHOWN]
        self.journal.show(self.state.step, "samples", self.inference.sample(_SHOWN))
        self.journal.show(self.state.step, "reconstructions", paired)
        return float(pixels.mse(reconstructions, originals).mean())

    def _update_best(self, error: float) -> None:
        """Save the best checkpoint if this error on held-out images is the least so far in the joint stage."""
        state = self.state
        state.latest_error = (state.step, error)
        if isinstance(self.stage, JointStage) and (state.least_error is None or error < state.least_error[1]):
            state.least_error = state.latest_error
            self._save(self.best, kept=1)
