"""`manifest.json`: what a bundle is, where it comes from, and what its files must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from rae_serve.errors import BundleError
from rae_serve.preprocessing import Preprocessing

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Facts(BaseModel):
    """A part of the manifest: immutable, and with no field that the schema does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Facts):
    """Which system it is, from which recipe, with every parameter of its constructor."""

    kind: str
    recipe: str
    parameters: dict[str, Any]


class Latent(Facts):
    """The latent space. Statistics are of the encoded training images, one entry a dimension."""

    dim: PositiveInt
    trained_dim: PositiveInt = Field(description="Dimensions in training, before any pruning.")
    active: list[int] = Field(description="Which of the trained dimensions are here, in their order.")
    mask: list[float] | None = Field(None, description="A masked model's α of every trained dimension.")
    mean: list[float]
    std: list[float]
    quantile_levels: list[float]
    quantiles: list[list[float]] = Field(description="One list of values a level.")

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        for name, entries in (("active", self.active), ("mean", self.mean), ("std", self.std)):
            if len(entries) != self.dim:
                raise ValueError(f"{name} has {len(entries)} entries, not {self.dim}")
        if [len(values) for values in self.quantiles] != [self.dim] * len(self.quantile_levels):
            raise ValueError(f"quantiles must be {self.dim} values for each level")
        return self


class Noise(Facts):
    """The prior's input. Temperature and interpolation act on gaussian columns only."""

    dim: PositiveInt
    algorithm: Literal["philox4x32-10/v1"]
    roles: list[Literal["gaussian", "choice"]]


class Attribute(Facts):
    """A direction in latent space along which an attribute of the image changes."""

    direction: list[float]
    source: str


class Training(Facts):
    """Where the weights come from."""

    data: str
    data_digest: Sha256
    images: PositiveInt
    steps: int
    seed: int
    checkpoint_digest: Sha256


class Figure(Facts):
    """One measured number, and how it was measured."""

    value: float
    protocol: str


class Parity(Facts):
    """The largest differences of the graphs from their torch originals, over the golden rows."""

    batch_sizes: list[PositiveInt]
    prior: float = Field(description="Largest |Δ| / (1 + |value|) of the latents.")
    decoder_grey_levels: int = Field(description="Largest difference of a pixel, of 255.")
    encoder: float = Field(description="As for the prior.")
    pruning_grey_levels: float | None = Field(
        None, description="Mean |Δ| of reconstructions, hard-masked against soft-masked: a cost, not parity."
    )


class File(Facts):
    """What a file of the bundle must be."""

    bytes: int
    sha256: Sha256


class Manifest(Facts):
    """`manifest.json`, version 1."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created_by: str
    licence: str
    model: Model
    image: Preprocessing
    latent: Latent
    noise: Noise
    attributes: dict[str, Attribute] = {}
    training: Training
    quality: dict[str, Figure] = {}
    precision: Literal["float32"] = "float32"
    opset: int
    ir_version: int
    tolerance_grey_levels: int = Field(1, description="How far pixels may lie apart between execution providers.")
    parity: Parity
    digest: Sha256 = Field(description="Of the model: SHA-256 over those of prior.onnx and decoder.onnx.")
    files: dict[str, File]

    @model_validator(mode="after")
    def _directions(self) -> Self:
        for name, attribute in self.attributes.items():
            if len(attribute.direction) != self.latent.dim:
                entries = len(attribute.direction)
                raise ValueError(f"the direction of {name!r} has {entries} entries, not {self.latent.dim}")
        return self


def model_digest(hashes: Mapping[str, str]) -> str:
    """SHA-256 over the hexadecimal hashes of prior.onnx and decoder.onnx, in this order."""
    return sha256((hashes["prior.onnx"] + hashes["decoder.onnx"]).encode())


def schema() -> dict[str, Any]:
    """The JSON schema of `manifest.json`."""
    document = Manifest.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "rae-serve bundle manifest, version 1"
    document["properties"]["checksum"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of the manifest without this field, as canonical JSON.",
    }
    document["required"].append("checksum")
    return document


def to_json(manifest: Manifest) -> str:
    document = manifest.model_dump(mode="json")
    return json.dumps(document | {"checksum": _checksum(document)}, indent=1, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent} is no bundle: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(f"{path}: schema version {version!r}, where this reader knows {SCHEMA_VERSION}")
    if document.pop("checksum", None) != _checksum(document):
        raise BundleError(f"{path} is damaged: its checksum does not match")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}") from None


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON: keys sorted, no spaces, UTF-8."""
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
