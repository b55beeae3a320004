"""A recipe: what to train, on what, for how long. TOML files under `recipes/`, checked before anything runs.

A recipe is flat. Its keys are those of `Recipe` and those of its model's constructor, whose signature is the
schema; an unknown or ill-typed key is an InvalidInput that names it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
)

from rae_serve.arrays import MAX_INTEGER
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing
from training.autoencoder import Autoencoder
from training.networks import ImageShape

FOLDER: Final = Path(__file__).parent / "recipes"
MODELS: Final = Path(__file__).parent / "models"


class Recipe(BaseModel):
    """Everything that decides a run, but for the images themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    description: str = ""
    model: str
    data: str = Field("folder", description="The data set that --data is expected to hold.")
    licence: str = Field("unspecified", description="Of the trained weights; goes into the bundle.")
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
    horizontal_flip: bool = Field(
        False, description="Show images mirrored half of the time: for photographs, not for letters or digits."
    )
    prior_steps: NonNegativeInt = Field(0, description="Further steps of the prior alone, on cached codes.")
    prior_batch_size: Annotated[int, Field(ge=2)] = 256
    prior_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="Of `minutes`, what the further steps of the prior get where there are any."
    )
    decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0, description="The last part of the joint training, over which learning rates fall linearly to 0."
    )
    minutes: PositiveFloat | None = Field(
        None, description="A time budget: training ends with it, or with its steps, whichever is first."
    )
    log_every: PositiveInt = 50
    sample_every: PositiveInt = 1000
    parameters: dict[str, Any] = Field({}, description="Of the model's constructor, every one of them.")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The fields of Preprocessing that the recipe decides; the others follow from the data."""
        fields = {name: getattr(self, name) for name in Preprocessing.model_fields}
        return {name: value for name, value in fields.items() if value is not None}

    def build(self, image_shape: ImageShape) -> Autoencoder:
        """The model, with fresh weights, for images [C, H, W]."""
        return model_class(self.model)(image_shape, **self.parameters)


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(recipe: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by name, or from a .toml file, with `key=value` overrides (values as in TOML; a bare word is text).

    Raises InvalidInput, naming the key, for one that is unknown or whose value does not fit.
    """
    name, document = _read(recipe)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InvalidInput("--set", f"wants key=value, not {override!r}")
        document[key.strip()] = _toml_value(value.strip())
    return check({"name": name, **document})


def _read(recipe: str) -> tuple[str, dict[str, Any]]:
    """A recipe's name and its keys; one with `like` has also those of the recipe that it is like."""
    path = Path(recipe) if recipe.endswith(".toml") else FOLDER / f"{recipe}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput("recipe", f"there is no {recipe!r}{_did_you_mean(recipe, names())}") from None
    except (OSError, ValueError) as error:
        raise InvalidInput("recipe", f"{path} cannot be read ({error})") from None
    like = document.pop("like", None)
    if like is None:
        return path.stem, document
    if like not in names():
        raise InvalidInput("like", f"there is no {like!r}{_did_you_mean(str(like), names())}")
    return path.stem, _read(like)[1] | document


def check(document: dict[str, Any]) -> Recipe:
    """The recipe of a flat document, every parameter filled in."""
    schema = _parameters(str(document.get("model", "")))
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


@lru_cache
def model_class(model: str) -> type[Autoencoder]:
    """The one Autoencoder of `training/models/{model}.py`."""
    available = sorted(path.stem for path in MODELS.glob("[!_]*.py"))
    if model not in available:
        raise InvalidInput("model", f"there is no {model!r}{_did_you_mean(model, available)}")
    module = importlib.import_module(f"training.models.{model}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Autoencoder) and value.__module__ == module.__name__
    ]
    return found


def _parameters(model: str) -> type[BaseModel]:
    keys: dict[str, Any] = {}
    for part in reversed(model_class(model).__mro__):  # a model that builds on another takes its keys too
        if issubclass(part, Autoencoder):
            for name, parameter in inspect.signature(part.__init__, eval_str=True).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    keys[name] = (parameter.annotation, parameter.default)
    return create_model(model, __config__=ConfigDict(extra="forbid", strict=True), **keys)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
