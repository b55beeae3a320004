from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import Tensor

from rae_serve.engine import Engine
from rae_serve.errors import BundleError, RunError
from training import checkpoint, commands
from training import recipe as recipes
from training.autoencoder import Exportable
from training.data.batches import to_pixels
from training.export.bundle import export
from training.inference import Inference
from training.models.aae import AAE
from training.models.maskaae import MaskAAE
from training.optimizers import TensorFlowRMSprop, descend
from training.priors.mixture import Mixture
from training.priors.wrappers import Whitened
from training.progress import ProgressLine
from training.runs import Run, load_data
from training.trainer import Trainer

SHAPE = (1, 4, 4)
SMALL = {"latent_dim": 6, "hidden": 16, "layers": 2, "critic_hidden": 16, "critic_layers": 2}


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.rand(32, *SHAPE, generator=generator)


def model(**keys: object) -> MaskAAE:
    torch.manual_seed(0)
    return MaskAAE(SHAPE, **SMALL | keys).train()


def test_order_is_the_published_one():
    assert [name for name, _ in model().updates(batches(), 0.0)] == [
        "autoencoder",
        *["critic"] * 5,
        "encoder",
        "mask",
    ]


def test_without_its_mask_it_is_the_aae():
    torch.manual_seed(0)
    twin = AAE(SHAPE, **SMALL).train()
    assert [name for name, _ in twin.updates(batches(), 0.5)] == ["autoencoder", *["critic"] * 5, "encoder"]
    masked = model(variance_penalty=0.0)
    with torch.no_grad():
        masked.depth.fill_(100.0)
    assert masked.mask.tolist() == [1.0] * 6
    for learner in (twin, masked):
        torch.manual_seed(1)
        optimizers = learner.optimizers()
        for name, terms in learner.updates(batches(), 0.5):
            if name != "mask":
                descend(optimizers[name], terms)
    weights = masked.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in twin.state_dict().items())


def test_the_mask_waits_for_the_warm_up():
    warming = model(warmup=0.3)
    assert "mask" not in [name for name, _ in warming.updates(batches(), 0.29)]
    assert "mask" in [name for name, _ in warming.updates(batches(), 0.3)]


def test_critic_scores_the_prior_above_codes():
    """The opposite of FlexAE's."""
    learner = model(critic_lr=1e-2)
    optimizers = learner.optimizers()
    source = batches()
    for _ in range(30):
        for name, terms in learner.updates(source, 0.0):
            if name == "critic":
                descend(optimizers[name], terms)
    codes, noise = learner.codes(next(source)), learner.prior.noise(256)
    assert learner.critic(learner.mask * noise).mean() > learner.critic(learner.mask * codes).mean()


def test_encoder_rises_on_the_critic():
    learner = model(encoder_lr=1e-2)
    optimizers = learner.optimizers()
    x = next(batches())
    before = learner.critic(learner.mask * learner.codes(x)).mean().item()
    for _ in range(10):
        for name, terms in learner.updates(batches(), 0.0):
            if name == "encoder":
                descend(optimizers[name], terms)
    assert learner.critic(learner.mask * learner.codes(x)).mean().item() > before


def test_the_mask_never_leaves_its_range():
    learner = model(mask_lr=3.0)
    optimizers = learner.optimizers()
    for step in range(20):
        for name, terms in learner.updates(batches(), step / 20):
            descend(optimizers[name], terms)
        assert (learner.depth >= 0).all()
        assert 0.0 <= learner.mask.min() <= learner.mask.max() <= 1.0
    assert (learner.depth == 0).any()  # it would have left it


def test_polarisation_doubles_to_its_cap():
    scheduled = model(period=0.01, polarisation_cap=100.0)
    assert scheduled.polarisation(0.0) == scheduled.polarisation(0.0399) == pytest.approx(2 / 6)
    assert scheduled.polarisation(0.0401) == pytest.approx(4 / 6)
    assert scheduled.polarisation(0.1201) == pytest.approx(16 / 6)
    assert scheduled.polarisation(0.9) == 100.0
    late = model(period=0.01, warmup=0.5)
    assert late.polarisation(0.51) == pytest.approx(2 / 6)
    assert late.polarisation(0.5201) == pytest.approx(4 / 6)


def mask_terms(scheduled: MaskAAE, progress: float) -> dict[str, float]:
    return next(
        {term: value.item() for term, value in terms.items()}
        for name, terms in scheduled.updates(batches(), progress)
        if name == "mask"
    )


def test_the_mask_minimises_what_the_schedule_says():
    scheduled = model(period=0.01, polarisation_cap=100.0)
    openness = (scheduled.mask * (1.0 - scheduled.mask)).sum().item()
    for progress, weight in ((0.0, 2 / 6), (0.05, 4 / 6), (0.9, 100.0)):
        assert mask_terms(scheduled, progress)["polarisation"] == pytest.approx(weight * openness)


def test_the_mask_pulls_the_critics_scores_apart_by_one():
    apart = model()
    for distance in (-1.0, 0.0, 1.0, 2.0):
        scores = iter((torch.full((32, 1), distance), torch.zeros(32, 1)))  # of codes, then of the prior
        apart.critic.forward = lambda _, scores=scores: next(scores)
        assert apart._mask_terms(next(batches()), 0.0)["adversarial"].item() == (1.0 - distance) ** 2


def test_a_period_of_a_few_steps_reaches_the_cap_and_stays():
    assert model(period=75 / 500_000).polarisation(1.0) == 2048.0


def test_training_slows_as_the_schedule_says(tmp_path):
    keys = ["steps=10", "hidden=16", "critic_hidden=16", "period=0.1", "warmup=0.0", "decay=0.0"]
    recipe = recipes.load("maskaae-digits", keys)
    trainer = Trainer(recipe, load_data(recipe, "digits"), tmp_path / "run", torch.device("cpu"))
    rates = []
    trainer.fit(lambda _: rates.append({n: o.param_groups[0]["lr"] for n, o in trainer.optimizers.items()}))
    full = trainer.model.learning_rates
    slow = full | {name: 0.2 * full[name] for name in ("autoencoder", "mask")}
    assert rates == [full] * 5 + [slow] * 5


def test_the_published_period_is_that_of_the_recipe():
    recipe = recipes.load("maskaae-mnist")
    published = min(10_000, int(112.5 * recipe.parameters["latent_dim"]))
    assert recipe.parameters["period"] * recipe.steps == pytest.approx(published)


def test_autoencoder_and_mask_slow_to_a_fifth():
    scheduled = model(period=0.01)
    for name in ("autoencoder", "mask"):
        assert scheduled.rate(name, 0.0499) == 1.0
        assert scheduled.rate(name, 0.0501) == 0.2
    assert scheduled.rate("critic", 0.9) == scheduled.rate("encoder", 0.9) == 1.0


def test_the_variance_penalty_falls_on_closed_dimensions():
    penalised = model()
    with torch.no_grad():
        penalised.depth.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0, 9.0]))
    codes = torch.zeros(8, 6)
    codes[::2, 0] = 2.0
    on_closed = penalised._spurious_variance(codes)
    assert on_closed.item() == pytest.approx(1.0 / 48)
    assert penalised._spurious_variance(codes.flip(1)).item() == pytest.approx(np.exp(-10) / 48, rel=1e-2)


def test_the_variance_penalty_bears_on_a_dimension_the_same_from_any_m():
    one, two = model(), model(latent_dim=12)
    for penalised in (one, two):
        torch.nn.init.zeros_(penalised.depth)
    codes = torch.zeros(8, 12)
    codes[::2, 0] = 2.0
    assert one._spurious_variance(codes[:, :6]) == two._spurious_variance(codes)


def test_rmsprop_is_tensorflows():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = TensorFlowRMSprop([weight], lr=0.1)
    square, value = 1.0, 1.0
    for gradient in (2.0, -0.5):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        value -= 0.1 * gradient / (square + 1e-10) ** 0.5
        assert weight.item() == pytest.approx(value, rel=1e-6)


def test_weight_decay_shrinks_matrices_alone():
    matrix, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    for parameter in (matrix, bias):
        parameter.grad = torch.zeros_like(parameter)
    TensorFlowRMSprop([matrix, bias], lr=0.1, weight_decay=0.5).step()
    assert matrix.tolist() == [[pytest.approx(0.95)] * 2] * 2
    assert bias.tolist() == [1.0, 1.0]


def test_weight_decay_is_the_autoencoders_alone():
    optimizers = model(weight_decay=0.1).optimizers()
    assert {name for name, optimizer in optimizers.items() if optimizer.weight_decay} == {"autoencoder"}


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_factor_that_the_whole_mask_shares_is_seen_in_the_images(network):
    """Else a mask could close for nothing, as it did with batch norm in the decoder."""
    learner = model(network=network, filters=2)
    codes = torch.randn(32, 6)
    with torch.no_grad():
        learner.depth.fill_(3.0)
        whole = learner.decode(codes)
        learner.depth.fill_(0.2)
        faint = learner.decode(codes)
    assert (whole - 0.5).abs().mean() > 2.0 * (faint - 0.5).abs().mean()


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_pruning_equals_the_hard_masked_model(network):
    whole = model(network=network, filters=2).eval()
    with torch.no_grad():
        whole.depth.copy_(torch.tensor([3.0, 0.02, 1.0, 0.0, 0.05, 4.0]))
    assert whole.active == [0, 2, 5]
    mean = torch.randn(6)
    pruning = whole.for_export(mean)
    x, latents = next(batches()), torch.randn(7, 3)
    assert pruning.active == [0, 2, 5]
    assert pruning.mask == pytest.approx(whole.mask.tolist())
    torch.testing.assert_close(pruning.model.encode(x), whole.encode(x)[:, [0, 2, 5]])
    hard_masked = mean.repeat(7, 1)
    hard_masked[:, [0, 2, 5]] = latents
    torch.testing.assert_close(pruning.model.decode(latents), whole.decode(hard_masked))
    assert torch.equal(pruning.model.prior(latents), latents)
    torch.testing.assert_close(pruning.model.critic(latents), whole.critic(whole.mask * hard_masked))


def test_a_pruned_model_is_an_aae_of_fewer_dimensions():
    whole = model()
    with torch.no_grad():
        whole.depth[2:] = 0.0
    pruning = whole.for_export(torch.zeros(6))
    name, parameters = pruning.system
    assert name == "aae"
    built = AAE(SHAPE, **parameters)
    built.load_state_dict(pruning.model.state_dict())
    x = next(batches())
    assert torch.equal(built.decode(built.encode(x)), pruning.model.decode(pruning.model.encode(x)))


def test_a_posthoc_prior_keeps_every_dimension():
    whole = model()
    whole.posthoc = Whitened(Mixture(6))
    with torch.no_grad():
        whole.depth[2:] = 0.0
    assert whole.for_export(torch.zeros(6)).model is whole


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_end_gives_active_dimensions_the_priors_variance_and_leaves_images_alone(network):
    learner = model(network=network, filters=2).eval()
    last = learner.encoder[-1]
    with torch.no_grad():
        learner.depth.copy_(torch.tensor([0.5, 0.02, 3.0, 0.5, 3.0, 3.0]))
        deviation = learner.encode(next(batches())).std(dim=0)
        last.weight *= torch.tensor([0.2, 0.2, 1.0, 0.05, 1.3, 1.0])[:, None] / deviation[:, None]
        last.bias[0] = 0.7
    x = next(batches())
    before, images = learner.encode(x), learner.decode(learner.encode(x))
    learner.finish(batches())
    after = learner.encode(x)
    torch.testing.assert_close(learner.decode(after), images)
    assert torch.equal(after[:, [1, 2, 4, 5]], before[:, [1, 2, 4, 5]])  # closed, as wide as the prior, or wider
    assert after[:, [0, 3]].std(dim=0).tolist() == [pytest.approx(1.0, abs=0.3)] * 2
    assert after[:, 0].mean().abs() < 0.3


def test_a_dimension_without_any_variance_is_no_division_by_zero():
    learner = model().eval()
    with torch.no_grad():
        learner.encoder[-1].weight[2] = 0.0
    x = next(batches())
    images = learner.decode(learner.encode(x))
    learner.finish(batches())
    torch.testing.assert_close(learner.decode(learner.encode(x)), images)


def test_the_end_is_in_the_last_checkpoint_and_in_no_other(masked_run):
    deviations = {}
    for path in checkpoint.paths(masked_run.path / "checkpoints"):
        trained = masked_run.model_at(checkpoint.read(path))
        codes = Inference(trained, torch.device("cpu")).encode(masked_run.reference()[:1000])
        deviations[path.stem] = codes.std(axis=0)[trained.active]
    first, last = deviations["step-000000000"], deviations["step-000000004"]
    assert first.max() < 0.5
    assert last.min() > 0.8


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory) -> Run:
    keys = ["steps=4", "hidden=16", "critic_hidden=16", "latent_dim=8", "log_every=2"]
    recipe = recipes.load("maskaae-digits", keys)
    dataset = load_data(recipe, "digits")
    path = tmp_path_factory.mktemp("run") / "masked"
    run = Run.create(path, recipe, dataset, "digits")
    trainer = Trainer(recipe, dataset, path, torch.device("cpu"))
    with torch.no_grad():
        trainer.model.depth[:3] = 0.0
        trainer.model.depth[3:] = 2.0
        trainer.model.decoder[0].weight *= 100.0  # so that four steps' images show their latents
    trainer.fit()
    return run


def test_the_mask_is_in_the_metrics(masked_run):
    import json

    lines = [json.loads(line) for line in (masked_run.path / "metrics.jsonl").read_text().splitlines()]
    assert [len(line["mask"]) for line in lines] == [8, 8]
    assert lines[-1]["active"] == sum(alpha >= 0.1 for alpha in lines[-1]["mask"])


def test_the_pruned_bundle_holds_active_dimensions_alone(masked_run, tmp_path):
    bundle = export(masked_run, tmp_path / "pruned")
    trained, _ = masked_run.load()
    active = trained.active
    latent = bundle.manifest.latent
    assert 0 < len(active) < 8
    assert (latent.dim, latent.trained_dim, latent.active) == (len(active), 8, active)
    assert latent.mask == pytest.approx(trained.mask.tolist())
    assert bundle.manifest.parity.pruning_grey_levels is not None
    for graph in ("prior", "decoder", "encoder"):
        opened = onnx.load_from_string(bundle.graph(graph))
        sizes = {dim for tensor in opened.graph.initializer for dim in tensor.dims}
        assert 8 not in sizes
    assert not onnx.load_from_string(bundle.graph("prior")).graph.initializer
    engine = Engine(bundle, device="cpu")
    images = masked_run.reference()[:20]
    codes = engine.encode(images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = trained.encode(x)
        np.testing.assert_allclose(codes, expected[:, active], rtol=1e-4, atol=1e-4)
    assert engine.sample(3, seed=1).shape == (3, 8, 8, 1)
    engine.close()


def test_a_wrongly_folded_mask_is_no_bundle(masked_run, tmp_path, monkeypatch):
    right = MaskAAE.for_export

    def without_the_mask(self: MaskAAE, mean: Tensor, *, prune: bool = True) -> Exportable:
        pruning = right(self, mean, prune=prune)
        weight = pruning.model.decoder[0].weight
        with torch.no_grad():
            weight /= self.mask[pruning.active]
        return pruning

    monkeypatch.setattr(MaskAAE, "for_export", without_the_mask)
    with pytest.raises(BundleError, match=r"decoder\.onnx differs from its golden images"):
        export(masked_run, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_an_unpruned_bundle_keeps_every_dimension(masked_run, tmp_path):
    bundle = export(masked_run, tmp_path / "whole", prune=False)
    assert bundle.manifest.latent.active == list(range(8))
    assert bundle.manifest.parity.pruning_grey_levels is None
    trained, _ = masked_run.load()
    latents = torch.randn(5, 8)
    with torch.no_grad():
        expected = to_pixels(trained.decode(latents)).numpy().astype(int)
    engine = Engine(bundle, device="cpu")
    assert np.abs(engine.decode(latents.numpy()) - expected).max() <= 1
    engine.close()


def test_a_mask_that_closes_on_what_is_needed_is_told_and_the_checkpoint_from_before_kept(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(MaskAAE, "_mask_terms", lambda self, x, progress: {"closing": self.mask.sum()})
    keys = ["steps=600", "sample_every=200", "layers=1", "critic_hidden=8", "critic_steps=1", "latent_dim=8"]
    keys += ["autoencoder_lr=3e-3", "warmup=0.67", "mask_lr=1.0"]
    commands.train("maskaae-digits", keys, None, tmp_path / "run", "cpu", resume=False)
    assert "error on held-out images rose" in capsys.readouterr().out
    run = Run.open(tmp_path / "run")
    (best, state), (last, _) = run.load(best=True), run.load()
    assert (state.step, len(best.active)) == (400, 8)
    assert last.active == []
    with pytest.raises(RunError, match=r"closed every dimension.*--best"):
        export(run, tmp_path / "bundle")
    assert export(run, tmp_path / "closed", prune=False).manifest.latent.mask == [0.0] * 8
    assert export(run, tmp_path / "bundle", best=True).manifest.latent.dim == 8


def test_the_progress_line_shows_how_many_dimensions_are_active(tmp_path):
    recipe = recipes.load("maskaae-digits", ["hidden=16", "critic_hidden=16", "latent_dim=8"])
    trainer = Trainer(recipe, load_data(recipe, "digits"), tmp_path, torch.device("cpu"))
    shown = io.StringIO()
    with ProgressLine(trainer, Console(file=shown, force_terminal=True, width=200)) as line:
        line.report({"autoencoder/reconstruction": 0.5})
    assert "active 8  a/reconstruction 0.5" in shown.getvalue()
