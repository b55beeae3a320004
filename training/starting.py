"""Start a training from the weights of a run or of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from rae_serve.bundle import Bundle
from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from rae_serve.manifest import MANIFEST
from training.autoencoder import Autoencoder
from training.export import rewriting
from training.networks import NORM_MOMENTUM
from training.runs import RECORD, Run, Start

_NETWORKS: Final = ("encoder", "decoder")
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


def take_weights(model: Autoencoder, path: Path, images: Tensor) -> tuple[Start, list[str]]:
    """Give a fresh model the weights of a run's latest checkpoint or of a bundle.

    Encoder and decoder must fit. Of a run, all else that fits is taken too, but no posthoc prior. Of a bundle, only
    these two are taken. Its batch norms are folded into other weights; those of the model get the statistics of the
    images, and a scale and an offset that undo the normalisation.

    Args:
        model: The model.
        path: The folder of the run or of the bundle.
        images: Some of the images to train on, [N, C, H, W] in [0, 1].

    Returns:
        What the weights are from, and the names of the model's parts that stay fresh.

    Raises:
        InvalidInput: `path` is neither a run nor a bundle, or its networks are not the model's.
        RaeServeError: The run or the bundle cannot be read.
    """
    name = path.resolve().name
    folded: set[str] = set()
    if (path / RECORD).is_file():
        trained, state = Run.open(path).load()
        start, tensors, dim = Start(name=name, digest=state.digest), trained.state_dict(), trained.sampler.latent_dim
    elif (path / MANIFEST).is_file():
        bundle = Bundle.load(path)
        start, tensors = Start(name=name, digest=bundle.manifest.digest), _network_weights(bundle)
        dim = bundle.manifest.latent.dim
        folded = {f"{norm}.{tensor}" for norm, part in _norms(model).items() for tensor in part.state_dict()}
    else:
        raise InvalidInput("--from", f"{printable(path)} is neither a run nor a bundle")
    if dim != model.sampler.latent_dim:
        problem = f"must be {dim}, as in {printable(path)}, which has no weights for other dimensions"
        raise InvalidInput("latent_dim", problem)
    own = model.state_dict()
    fitting = {key for key in own if key in tensors and tensors[key].shape == own[key].shape}
    taken = {key for key in fitting if not key.startswith("posthoc.")}
    for key in own:
        if key.startswith(_NETWORKS) and key not in taken | folded:
            other = list(tensors[key].shape) if key in tensors else "not there"
            problem = f"{printable(path)} has other networks: {key} is {other}, in the recipe {list(own[key].shape)}"
            raise InvalidInput("--from", problem)
    model.load_state_dict(own | {key: tensors[key] for key in taken})
    if folded:
        _undo_norms(model, images)
    return start, sorted({key.split(".")[0] for key in own.keys() - taken - folded} - {"posthoc"})


def _norms(model: Autoencoder) -> dict[str, nn.Module]:
    """Return the batch norms of encoder and decoder, by name."""
    found = dict(model.named_modules())
    return {name: part for name, part in found.items() if isinstance(part, _NORMS) and name.startswith(_NETWORKS)}


def _network_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Return the weights of a bundle's encoder and decoder, by their names in the model."""
    return {
        name.removeprefix("model."): torch.from_numpy(values)
        for network in _NETWORKS
        for name, values in rewriting.weights(bundle.graph(network)).items()
    }


@torch.no_grad()
def _undo_norms(model: Autoencoder, images: Tensor) -> None:
    """Make every batch norm of encoder and decoder return its input, as far as a batch is like all images.

    Args:
        model: The model.
        images: The images whose statistics count, [N, C, H, W].
    """

    def follow(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _NORMS)
        variance, mean = torch.var_mean(inputs[0].transpose(0, 1).flatten(1), dim=1, correction=0)
        norm.load_state_dict(
            {
                **norm.state_dict(),
                "running_mean": mean,
                "running_var": variance,
                "num_batches_tracked": torch.tensor(
                    round(1.0 / NORM_MOMENTUM)
                ),  # so many as not to be forgotten soon
                "weight": (variance + norm.eps).sqrt(),
                "bias": mean,
            }
        )

    hooks = [norm.register_forward_pre_hook(follow) for norm in _norms(model).values()]
    model.eval()
    model.decode(model.encode(images))
    for hook in hooks:
        hook.remove()
