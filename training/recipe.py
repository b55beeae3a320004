"""Recipes: what to train, on what, for how long. TOML files under `recipes/`, checked before anything runs.

A recipe is flat. Its keys are the fields of `Recipe`, the keyword arguments of its model's constructor, and, with
`posthoc_` before them, those of its posthoc prior. A key that is unknown, or whose value does not fit, is an
InvalidInput that names the key. Every key is explained where it is defined: in the docstring of `Recipe`, of its
model's class or of its prior's class. Only `Recipe.build` needs torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
)

from rae_serve.arrays import MAX_INTEGER
from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from rae_serve.preprocessing import Preprocessing
from training import keys

if TYPE_CHECKING:  # these need torch
    from torch import Tensor

    from training.autoencoder import Autoencoder
    from training.networks import ImageShape

FOLDER: Final = Path(__file__).parent / "recipes"
_POSTHOC: Final = "posthoc_"  # what the keys of the posthoc prior begin with


class Recipe(BaseModel):
    """Everything that decides a run, apart from the images themselves.

    Attributes:
        name: Name of the recipe, and of the run's folder unless --out is given.
        description: What the recipe is for, in one line.
        model: The system to train: a file of training/models/.
        data: The data set that --data is expected to hold.
        licence: Licence of the trained weights; the bundle states it.
        steps: Steps of the joint training; more take longer and usually give a better model.
        batch_size: Images in a batch.
        seed: Seed of everything random.
        validation: Fraction of the images, 5,000 at most, that is held out to measure the error on.
        height: Height of the model's images in pixels, a multiple of 4; it follows from the data unless given.
        width: Width of the model's images in pixels, a multiple of 4; it follows from the data unless given.
        mode: L for grey, RGB for colour; it follows from the data unless given.
        crop: Part of a picture that is used: none stretches all of it, center takes the largest centred box of the
            right shape, and a number takes a centred square with that side in pixels. It is center unless given.
        resize: Pillow's filter for resizing pictures; bicubic unless given.
        background: Grey level behind transparent parts of pictures; 255, white, unless given.
        horizontal_flip: Whether half of the images are shown mirrored: for photographs, not for letters or digits.
        perceptual: Weight of a perceptual distance between images and reconstructions, beside a squared error that is
            summed over pixels. Higher values make details sharper and their places less exact. 0 is as published.
        perceptual_network: The network of that distance: cifar10, which comes with this package, or vgg16 or alexnet
            of torchvision.
        perceptual_weights: A file with the state of torchvision's network; unless given, torchvision loads it from
            its cache or the internet.
        posthoc: A prior that is fitted to the latents when the auto-encoder is finished, and takes the place of the
            model's own prior: a file of training/priors/. Its own keys begin with posthoc_.
        prior_steps: Further steps of the prior alone, after the joint training, on latents computed once.
        prior_batch_size: Latents in a batch of those steps.
        prior_share: Fraction of `minutes` for the further steps of the prior, if there are any.
        decay: Last fraction of the joint training, over which all learning rates fall linearly to 0.
        precision: float32, or bfloat16 for the layers of encoder and decoder while they train: less exact, and faster
            on GPUs and CPUs that multiply such numbers in hardware. auto is bfloat16 on these, float32 on others.
        compile: Whether torch.compile compiles encoder and decoder, which takes about a minute, for faster steps.
        minutes: Time budget: training ends when it is spent or the steps are done, whichever is first.
        log_every: Steps between two lines of metrics.
        sample_every: Steps between two grids of images and measurements of the held-out error. There is also a grid
            after a minute, and one at the end of each stage.
        parameters: All keyword arguments of the model's constructor, and, with `posthoc_` before them, of the posthoc
            prior's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    description: str = ""
    model: str
    data: str = "folder"
    licence: str = "unspecified"
    steps: PositiveInt
    batch_size: Annotated[int, Field(ge=2)] = 128
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    mode: Literal["L", "RGB"] | None = None
    crop: Literal["none", "center"] | PositiveInt | None = None
    resize: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = None
    background: Annotated[int, Field(ge=0, le=255)] | None = None
    horizontal_flip: bool = False
    perceptual: NonNegativeFloat = 0.0
    perceptual_network: Literal["cifar10", "vgg16", "alexnet"] = "cifar10"
    perceptual_weights: str | None = None
    posthoc: str | None = None
    prior_steps: NonNegativeInt = 0
    prior_batch_size: Annotated[int, Field(ge=2)] = 256
    prior_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    compile: bool = False
    minutes: PositiveFloat | None = None
    log_every: PositiveInt = 50
    sample_every: PositiveInt = 1000
    parameters: dict[str, Any] = {}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The fields of Preprocessing that the recipe gives; the others follow from the data."""
        fields = {name: getattr(self, name) for name in Preprocessing.model_fields}
        return {name: value for name, value in fields.items() if value is not None}

    def build(self, image_shape: ImageShape) -> Autoencoder:
        """Return the model with fresh weights for images of shape [C, H, W].

        Raises:
            InvalidInput: The model has no prior of its own, and the recipe names none.
        """
        from training.priors.wrappers import Whitened

        module = importlib.import_module(f"training.models.{self.model}")
        own = {key: value for key, value in self.parameters.items() if not key.startswith(_POSTHOC)}
        model: Autoencoder = getattr(module, keys.model_class(self.model).name)(image_shape, **own)
        if self.perceptual:
            model.perceptual = self._perceptual_distance()
        if self.posthoc:
            module = importlib.import_module(f"training.priors.{keys.posthoc_module(self.posthoc)}")
            prior = getattr(module, keys.posthoc_class(self.posthoc).name)
            settings = {key: self.parameters[f"{_POSTHOC}{key}"] for key in keys.posthoc_class(self.posthoc).keys}
            model.posthoc = Whitened(prior(own["latent_dim"], **settings))
        elif model.prior is None:
            known = ", ".join(keys.posthoc_names())
            raise InvalidInput("posthoc", f"must be given: {self.model} has no prior of its own; there are {known}")
        return model

    def _perceptual_distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        from training.perceptual import PerceptualDistance

        weights = Path(self.perceptual_weights) if self.perceptual_weights else None
        distance, weight = PerceptualDistance(self.perceptual_network, weights), self.perceptual
        return lambda reconstruction, x: weight * distance(reconstruction, x)


class Key(NamedTuple):
    """A key of a recipe, its value there, and what it means."""

    name: str
    value: Any
    meaning: str


def names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(recipe: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe.

    Args:
        recipe: A recipe's name, or a .toml file.
        overrides: Changes as `key=value`, with values as in TOML; a bare word is a string.

    Raises:
        InvalidInput: A key is unknown, or its value does not fit; the error names the key.
    """
    name, document = _read(recipe)
    return change({"name": name, **document}, overrides)


def change(document: Mapping[str, Any], overrides: Iterable[str]) -> Recipe:
    """Return the recipe of a flat document after changes as `key=value`. Raise InvalidInput as `load` does."""
    changed = dict(document)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InvalidInput("--set", f"wants key=value, not {override!r}")
        changed[key.strip()] = _toml_value(value.strip())
    return check(changed)


def flat(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's keys and its model's parameters in one mapping, as in its file."""
    return recipe.model_dump(exclude={"parameters"}) | recipe.parameters


def explain(recipe: Recipe) -> list[Key]:
    """Return every key of a recipe with its value and its meaning."""
    meanings = keys.explained(inspect.getdoc(Recipe)) | keys.model_class(recipe.model).meanings
    if recipe.posthoc:
        meanings |= {f"{_POSTHOC}{key}": text for key, text in keys.posthoc_class(recipe.posthoc).meanings.items()}
    return [Key(name, value, meanings[name]) for name, value in flat(recipe).items()]


def check(document: dict[str, Any]) -> Recipe:
    """Return the recipe of a flat document, with every parameter filled in."""
    model = str(document.get("model", ""))
    if model not in keys.names():
        raise InvalidInput("model", f"there is no {model!r}{_did_you_mean(model, keys.names())}")
    fields, posthoc = keys.model_class(model).keys, document.get("posthoc")
    if posthoc is not None:
        if posthoc not in keys.posthoc_names():
            raise InvalidInput(
                "posthoc", f"there is no {posthoc!r}{_did_you_mean(str(posthoc), keys.posthoc_names())}"
            )
        fields = fields | {f"{_POSTHOC}{key}": field for key, field in keys.posthoc_class(posthoc).keys.items()}
    schema = create_model(model, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    known = [key for key in Recipe.model_fields if key != "parameters"]
    for key in document:
        if key not in known and key not in schema.model_fields:
            hint = _did_you_mean(key, [*known, *schema.model_fields])
            raise InvalidInput(key, f"is no key of a {document['model']} recipe{hint}")
    try:
        parameters = schema(**{key: document[key] for key in document if key not in known})
        return Recipe(**{key: document[key] for key in document if key in known}, parameters=parameters.model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        given = f", not {document[key]!r}" if key in document else ""
        raise InvalidInput(key, first["msg"][0].lower() + first["msg"][1:] + given) from None


def _read(recipe: str) -> tuple[str, dict[str, Any]]:
    """Return a recipe's name and its keys, with those of the recipe that it is `like`."""
    path = Path(recipe) if recipe.endswith(".toml") else FOLDER / f"{recipe}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput("recipe", f"there is no {recipe!r}{_did_you_mean(recipe, names())}") from None
    except (OSError, ValueError) as error:
        raise InvalidInput("recipe", f"{path} cannot be read ({error})") from None
    like = document.pop("like", None)
    if like is None:
        return printable(path.stem), document
    if like not in names():
        raise InvalidInput("like", f"there is no {like!r}{_did_you_mean(str(like), names())}")
    return printable(path.stem), _read(like)[1] | document


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
