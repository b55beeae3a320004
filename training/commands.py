"""The commands `rae-serve train` and `rae-serve fit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Column, Table

from rae_serve.errors import InvalidInput, RunError
from rae_serve.files import printable
from training import progress
from training import recipe as recipes
from training.autoencoder import Autoencoder, Exportable
from training.data.batches import to_tensor
from training.data.dataset import Dataset
from training.distributed import World, joined
from training.evaluation.prior import compare
from training.recipe import Recipe, flat
from training.runs import SKIPPED, Origin, Run, Start, check_new, load_data, locked
from training.starting import take_weights
from training.trainer import Interrupted, Trainer

FITTING_STEPS: Final = 4000  # of a posthoc prior that is trained by steps, unless given
_STARTING_IMAGES: Final = 1000  # by which the batch norms are set of a model that starts from a bundle
_FREE: Final = ("name", "description", "licence", "seed", "minutes", "log_every", "sample_every")  # of a fit
WORSE: Final = 1.25  # from this multiple of the least held-out error on, the user is told


def train(
    recipe_name: str,
    overrides: Sequence[str],
    source: str | None,
    out: Path | None,
    device: str,
    *,
    resume: bool,
    start: Path | None = None,
    choose: Callable[[Dataset], Sequence[str]] = lambda dataset: (),
) -> None:
    """Train a model: start a run in a new folder, or continue the run of a folder.

    Under torchrun, each process calls this function, and they train together.

    Args:
        recipe_name: A recipe's name, or a .toml file.
        overrides: `key=value` changes of the recipe.
        source: Where the images are; the recipe's data set unless given.
        out: The run's folder; runs/RECIPE unless given.
        device: "auto", "cpu" or "cuda".
        resume: Whether to continue the run in that folder.
        start: The run or the bundle whose weights the training starts from; None starts from random ones.
        choose: Returns further changes of the recipe for the images.
    """
    with joined(device) as (world, chosen):
        recipe = recipes.load(recipe_name, overrides)
        path = out or Path("runs") / recipe.name

        def prepare(source: str) -> tuple[Recipe, Dataset]:
            with world.in_turn():
                dataset = load_data(recipe, source)
            return recipes.load(recipe_name, [*overrides, *choose(dataset)]), dataset

        if resume:
            run = Run.open(path)
            with _locked(path, world):
                recipe, dataset = prepare(source or run.image_source())
                run.require_same(recipe, dataset)
                trainer = Trainer(recipe, dataset, path, chosen, world=world)
                _require_same_start(run, _started(trainer, start))
                trainer.resume()
                _finish(trainer)
        else:
            check_new(path)
            source = source or recipe.data
            recipe, dataset = prepare(source)
            trainer = Trainer(recipe, dataset, path, chosen, world=world)
            started = _started(trainer, start)
            if world.first:
                Run.create(path, recipe, dataset, source, start=started)
            with _locked(path, world):
                _finish(trainer)


def fit(
    path: Path,
    prior: str,
    overrides: Sequence[str],
    source: str | None,
    out: Path | None,
    device: str,
    *,
    best: bool,
    resume: bool,
) -> None:
    """Fit another prior on the finished auto-encoder of a run: make a new run, or continue it.

    Under torchrun, each process calls this function, and they train the prior together.

    Args:
        path: The folder of the run whose auto-encoder is taken.
        prior: The name of the prior.
        overrides: `key=value` changes of the recipe, such as posthoc_components=100.
        source: Where the images are; as in that run unless given.
        out: The new run's folder; that of the other run and the prior's name unless given.
        device: "auto", "cpu" or "cuda".
        best: Whether to take the checkpoint with the least error on held-out images in place of the latest.
        resume: Whether to continue the run in the new folder.
    """
    with joined(device) as (world, chosen):
        run = Run.open(path)
        target = out or path.with_name(f"{path.resolve().name}-{prior}")
        if not resume:
            check_new(target)
        trained, state = run.load(best=best)
        if not best and run.origin is None and state.facts["stage"] == 0:
            raise RunError(f"{path} is not finished; go on with `rae-serve train … --resume`, or take --best")
        with world.in_turn():
            dataset = load_data(run.recipe, source or run.image_source())
        run.require_same(run.recipe, dataset)
        exportable = trained.for_export(run.mean_latent(trained))
        given = [f"posthoc={prior}", f"name={target.resolve().name}", *overrides]
        recipe = _fitting(run, exportable, given)
        origin = Origin(
            run=path.resolve().name,
            steps=state.step,
            checkpoint_digest=state.digest,
            trained_dim=run.origin.trained_dim if run.origin else run.recipe.parameters["latent_dim"],
            active=run.origin.active if run.origin else exportable.active,
            mask=run.origin.mask if run.origin else exportable.mask,
        )
        trainer = Trainer(recipe, dataset, target, chosen, finished=True, world=world)
        # Elsewhere the exported model can have other tensors than a fresh one, such as baked spectral norms.
        taken = exportable.model if exportable.system else trained
        trainer.adopt(taken.state_dict(), state.step)
        if resume:
            started = Run.open(target)
            started.require_same(recipe, dataset)
            if started.origin != origin:
                raise InvalidInput("--resume", f"{target} was started on another checkpoint than that of {path}")
        elif world.first:
            Run.create(target, recipe, dataset, source or run.source, origin=origin)
        with _locked(target, world):
            if resume:
                trainer.resume()
            _train(trainer)
        if world.first:
            _print_fit(trainer, run, exportable.model, state.step)


def _fitting(run: Run, exportable: Exportable, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of a run that fits a posthoc prior on the model of another run."""
    document = {key: value for key, value in flat(run.recipe).items() if not key.startswith("posthoc")}
    if exportable.system:
        model, parameters = exportable.system
        document = {key: value for key, value in document.items() if key not in run.recipe.parameters}
        document |= {"model": model, **parameters}
    # The budget was that of the model's own training.
    document |= {"minutes": None, "prior_steps": 0}
    height, width, channels = run.data.preprocessing.shape
    changed = recipes.change(document, overrides)
    for key, value in flat(changed).items():
        if value != document.get(key, value) and not key.startswith(("posthoc", "prior_")) and key not in _FREE:
            raise InvalidInput(key, f"belongs to the auto-encoder of {run.path}, which is finished")
    if changed.build((channels, height, width)).sampler.optimizers():
        document["prior_steps"] = FITTING_STEPS
    return recipes.change(document, overrides)


def _print_fit(trainer: Trainer, run: Run, trained: Autoencoder, step: int) -> None:
    """Print what the prior did to the likelihood of held-out latents and to the distance of generated images."""
    recipe, path = trainer.recipe, printable(trainer.run)
    before = f"the prior of {printable(run.path)}"
    samplers = {before: trained.to(trainer.inference.device), str(recipe.posthoc): trainer.model}
    compared = compare(samplers, trainer.dataset, trainer.inference.device)
    figures = ", ".join(f"{name} {value:,.4g}" for name, value in trainer.model.sampler.diagnostics().items())
    fitted = f"{recipe.posthoc} ({figures})" if figures else str(recipe.posthoc)
    print(f"{fitted} on the auto-encoder of {printable(run.path)}, step {step:,}")
    print(f"{compared.network}: Fréchet distance to {compared.reference}; lower is better")
    print("held-out ln p: log-density of held-out latents, nats per image; higher is better")
    table = Table(
        "", *(Column(name, justify="right") for name in (compared.network, "held-out ln p")), box=None, pad_edge=False
    )
    for name, row in compared.rows.items():
        table.add_row(name, f"{row.distance:.2f}", "none" if row.log_density is None else f"{row.log_density:.2f}")
    Console().print(table)
    print(f"next: rae-serve export {path} --out exported/{printable(trainer.run.resolve().name)}")


def _started(trainer: Trainer, start: Path | None) -> Start | None:
    """Give the model of a trainer the weights of a run or of a bundle, if there is one, and say what stays fresh."""
    if start is None:
        return None
    dataset = trainer.dataset
    images = dataset.images[dataset.train[:_STARTING_IMAGES]]
    started, fresh = take_weights(trainer.model, start, to_tensor(images, trainer.inference.device))
    if fresh and trainer.world.first:
        print(f"{', '.join(fresh)}: not from {printable(start)}, but drawn at random")
    return started


def _require_same_start(run: Run, given: Start | None) -> None:
    """Raise InvalidInput unless a run that is resumed was started from these weights.

    A run without a checkpoint begins anew, so that the weights must be given again.
    """
    if given == run.start or (given is None and run.has_checkpoint()):
        return
    was = f"from {run.start.name}" if run.start else "from random weights"
    raise InvalidInput("--from", f"{run.path} was started {was}, and cannot go on from others")


def _locked(path: Path, world: World) -> AbstractContextManager[None]:
    """Keep other trainings out of a run's folder; for the processes of one training, the first has the lock."""
    return locked(path) if world.first else nullcontext()


def _finish(trainer: Trainer) -> None:
    """Train to the end, and print the outcome."""
    _train(trainer)
    if trainer.world.first:
        _print_outcome(trainer)


def _train(trainer: Trainer) -> None:
    """Train to the end; exit with status 130 if interrupted."""
    path, dataset = trainer.run, trainer.dataset
    if dataset.skipped and trainer.world.first:
        listing = printable(path / SKIPPED)
        print(f"skipped {len(dataset.skipped)} files, listed in {listing}: {dataset.skipped[0]}", file=sys.stderr)
    try:
        progress.fit(trainer, Console(stderr=True))
    except Interrupted:
        if trainer.world.first:
            print(f"stopped at step {trainer.state.step:,} and saved; continue by the same command with --resume")
        raise SystemExit(130) from None


def _print_outcome(trainer: Trainer) -> None:
    run, name, state = printable(trainer.run), printable(trainer.run.resolve().name), trainer.state
    print(f"{run}: {state.step:,} steps; next: rae-serve export {run} --out exported/{name}")
    if len(trainer.stages) > 1:
        return  # the checkpoint of the least error comes from before the prior's own stage
    if state.least_error and state.latest_error and state.latest_error[1] > WORSE * state.least_error[1]:
        (step, least), (_, latest) = state.least_error, state.latest_error
        print(
            f"the error on held-out images rose from {least:.5f} at step {step:,} to {latest:.5f}; "
            f"rae-serve export --best takes the checkpoint from before"
        )
