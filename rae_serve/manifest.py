"""The manifest of a bundle, `manifest.json`: its model, its origin, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from rae_serve.errors import BundleError
from rae_serve.preprocessing import Preprocessing

SCHEMA_VERSION: Final = 2
MANIFEST: Final = "manifest.json"
# Rounding of float32 in four layers of 1,024 units stays below a tenth of this.
LATENT_TOLERANCE: Final = 1e-4
_NO_CHECKSUM: Final = "0" * 64  # stands for the checksum while the checksum is computed

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Precision = Literal["float32", "float16-weights"]
Grade = Literal["good", "doubtful", "bad"]


def _is_none(value: object) -> bool:
    return value is None


class Section(BaseModel):
    """Base class of the parts of a manifest: immutable, with unknown fields kept but without effect."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Model(Section):
    """The system that was trained, its recipe, and every parameter of the model's constructor."""

    kind: str = Field(description="Name of the system, such as flexae.")
    recipe: str
    parameters: dict[str, Any]


class Principal(Section):
    """The directions along which latents of images vary most, the strongest first: at most eight.

    They are unit vectors, at right angles to each other. The coordinate of a latent along a direction is the inner
    product of the direction and (latent − `latent.mean`).
    """

    directions: list[list[float]] = Field(description="One entry per latent dimension each.")
    shares: list[Annotated[float, Field(ge=0.0, le=1.0)]] = Field(
        description="The part of the latents' variance that lies along each direction."
    )
    prior_quantiles: list[list[float]] = Field(
        description="For each of the quantile levels, the quantile of the prior's coordinates along each direction."
    )


class Map(Section):
    """Latents of images and of the prior, projected on the first two principal directions.

    A point is a pair of coordinates. What a projection hides, such as distances along other directions, is not in it.
    """

    images: list[tuple[float, float]] = Field(description="Points of images, at most 2,000.")
    prior: list[tuple[float, float]] = Field(description="Points of the prior: rows 0, 1, … of seed 0.")
    names: list[str] = Field([], description="Names of the labels.")
    labels: list[list[NonNegativeInt]] = Field(
        [], description="For each image, the indices of its labels in `names`; empty if there are no labels."
    )

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels and len(self.labels) != len(self.images):
            raise ValueError(f"labels has {len(self.labels)} entries, not {len(self.images)}")
        if any(label >= len(self.names) for labels in self.labels for label in labels):
            raise ValueError(f"a label has no name: there are {len(self.names)} names")
        return self


class Latent(Section):
    """The latent space. Its statistics describe the encoded training images, one entry per dimension."""

    dim: PositiveInt = Field(description="Number of dimensions of the bundle's latents.")
    trained_dim: PositiveInt = Field(description="Number of dimensions during training, before pruning.")
    active: list[int] = Field(
        description="Indices of the trained dimensions that the bundle keeps, in their original order."
    )
    mask: list[float] | None = Field(
        None, description="MaskAAE's mask α, one entry per trained dimension; null for a model without a mask."
    )
    mean: list[float]
    std: list[float]
    quantile_levels: list[float] = Field(description="Levels between 0 and 1; 0.5 is the median.")
    quantiles: list[list[float]] = Field(description="For each quantile level, one value per dimension.")
    prior_quantiles: list[list[float]] | None = Field(
        None, exclude_if=_is_none, description="The same as `quantiles`, of the prior's latents."
    )
    principal: Principal | None = Field(
        None, exclude_if=_is_none, description="The principal directions of the latents of images."
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        for name, entries in (("active", self.active), ("mean", self.mean), ("std", self.std)):
            if len(entries) != self.dim:
                raise ValueError(f"{name} has {len(entries)} entries, not {self.dim}")
        for name, rows, width in self._tables():
            if [len(values) for values in rows] != [width] * len(self.quantile_levels):
                raise ValueError(f"{name} must hold {width} values for each level")
        if self.principal:
            found, shares = self.principal.directions, self.principal.shares
            if not found or len(shares) != len(found) or {len(direction) for direction in found} != {self.dim}:
                raise ValueError(f"principal must hold directions of {self.dim} entries, and a share for each")
        return self

    def _tables(self) -> Iterator[tuple[str, list[list[float]], int]]:
        """Yield each table of quantiles, with its name and the values that it must have for each level."""
        yield "quantiles", self.quantiles, self.dim
        if self.prior_quantiles is not None:
            yield "prior_quantiles", self.prior_quantiles, self.dim
        if self.principal is not None:
            yield "principal.prior_quantiles", self.principal.prior_quantiles, len(self.principal.directions)


class Noise(Section):
    """The noise that the prior takes. Temperature and interpolation change its `gaussian` columns only."""

    dim: PositiveInt
    algorithm: Literal["philox4x32-10/v1"]
    roles: list[Literal["gaussian", "choice"]] = Field(
        description="Role of each column; a `choice` column selects a component of the prior."
    )


class Attribute(Section):
    """A direction in latent space along which an attribute of the image changes. Strength 1 adds it once.

    Optional fields without a value are left out of the manifest.
    """

    direction: list[float] = Field(description="One entry per latent dimension.")
    source: str = Field(description="How the direction was found, and from which images.")
    opposite: str | None = Field(
        None,
        exclude_if=_is_none,
        description="Name of the other end, if images without the attribute are a class that has a name of its own.",
    )
    images: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        exclude_if=_is_none,
        description="How many images with the attribute, and how many without it, the direction was found from.",
    )
    auc: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None,
        exclude_if=_is_none,
        description="Probability that an image with the attribute lies farther along the direction than an image "
        "without it, for images that the direction was not found from. 0.5 is chance, 1 is perfect.",
    )


class Training(Section):
    """The training run that made the weights."""

    data: str = Field(description="Name of the data set or of the folder of images.")
    data_digest: Sha256
    images: PositiveInt = Field(description="Number of training images, without the held-out ones.")
    steps: int
    seed: int
    checkpoint_digest: Sha256
    started_from: Sha256 | None = Field(
        None,
        exclude_if=_is_none,
        description="Digest of the checkpoint or of the bundle whose weights the training started from.",
    )


class Figure(Section):
    """A measured figure and the protocol that measured it."""

    value: float
    protocol: str


class Finding(Section):
    """The answer of an evaluation to one question."""

    question: str = Field(description="The question. Yes is good.")
    grade: Grade
    found: str = Field(description="The figures behind the answer, as a sentence.")
    threshold: str = Field(description="Which figures are good and which are bad.")


class Picture(Section):
    """A picture of an evaluation."""

    title: str
    caption: str = Field(description="What to look for.")
    file: str = Field(description="The name of the PNG file, which `files` lists too.")


class Evaluation(Section):
    """What `rae-serve evaluate` found: whether the model is fit to ship."""

    grade: Grade = Field(description="The worst grade of the findings. bad: not fit to ship.")
    summary: str
    data: str = Field(description="The images that the model was compared with.")
    findings: list[Finding]
    pictures: list[Picture] = []


class Tolerance(Section):
    """The largest differences that are allowed, from the golden arrays and between execution providers."""

    latents: float = Field(description="|Δ| / (1 + |value|) of an entry of a latent.")
    grey_levels: int = Field(description="Difference of a pixel, in grey levels of 255.")


class Parity(Section):
    """The largest differences between the graphs and the torch modules that they were exported from.

    They are measured on the golden rows, over several batch sizes. They contain what a lower precision costs.
    """

    batch_sizes: list[PositiveInt]
    prior: float = Field(description="Largest |Δ| / (1 + |value|) of the prior's latents.")
    decoder_grey_levels: int = Field(description="Largest difference of a pixel, in grey levels of 255.")
    encoder: float = Field(description="Largest |Δ| / (1 + |value|) of the encoder's latents.")
    pruning_grey_levels: float | None = Field(
        None,
        description="What pruning costs, not an error of the export: mean |Δ| in grey levels between reconstructions "
        "with the pruned latent space and with MaskAAE's soft mask.",
    )


class File(Section):
    """The size and checksum of a file in the bundle."""

    bytes: int
    sha256: Sha256


class Manifest(Section):
    """The content of `manifest.json`, schema version 2.

    Within a version, fields are only added. A reader ignores fields that it does not know.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    created_by: str
    licence: str
    model: Model
    image: Preprocessing
    latent: Latent
    noise: Noise
    map: str | None = Field(
        None,
        exclude_if=_is_none,
        description="The name of the file with the map of latents, which `files` lists too.",
    )
    attributes: dict[str, Attribute] = {}
    training: Training
    quality: dict[str, Figure] = {}
    evaluation: Evaluation | None = Field(None, exclude_if=_is_none, description="What an evaluation found.")
    precision: dict[str, Precision] = Field(
        description="Precision of each graph, by its name without .onnx. float16-weights: the graph holds weights in "
        "float16 and computes in float32."
    )
    opset: int
    ir_version: int
    tolerance: Tolerance
    parity: Parity
    digest: Sha256 = Field(
        description="Identity of the model: SHA-256 over the hexadecimal hashes of prior.onnx and decoder.onnx."
    )
    files: dict[str, File]

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        named = [*([self.map] if self.map else []), *(picture.file for picture in self.pictures())]
        for name in named:
            if name not in self.files:
                raise ValueError(f"there is no file {name!r}")
        if self.map and self.latent.principal is None:
            raise ValueError("a map needs latent.principal")
        return self

    @model_validator(mode="after")
    def _check_directions(self) -> Self:
        for name, attribute in self.attributes.items():
            if len(attribute.direction) != self.latent.dim:
                entries = len(attribute.direction)
                raise ValueError(f"the direction of {name!r} has {entries} entries, not {self.latent.dim}")
        return self

    def pictures(self) -> list[Picture]:
        """Return the pictures of the evaluation, if there are any."""
        return self.evaluation.pictures if self.evaluation else []

    def directions(self) -> dict[str, list[float]]:
        """Return the direction to each end that has a name: the attributes and their opposites."""
        attributes = self.attributes.values()
        opposites = {one.opposite: [-x for x in one.direction] for one in attributes if one.opposite is not None}
        return opposites | {name: attribute.direction for name, attribute in self.attributes.items()}


def model_digest(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 over the hexadecimal hashes of prior.onnx and decoder.onnx, in this order."""
    return sha256((hashes["prior.onnx"] + hashes["decoder.onnx"]).encode())


def schema() -> dict[str, Any]:
    """Return the JSON schema of `manifest.json`."""
    document = Manifest.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = f"rae-serve bundle manifest, version {SCHEMA_VERSION}"
    document["properties"]["checksum"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of the bytes of manifest.json, in which the digits of this field are 64 zeros.",
    }
    document["required"].append("checksum")
    return document


def to_json(manifest: Manifest) -> str:
    """Return the text of `manifest.json`, with its checksum."""
    document = manifest.model_dump(mode="json")
    return _text(document | {"checksum": sha256(_text(document | {"checksum": _NO_CHECKSUM}).encode())})


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read and check a `manifest.json` of version 1 or 2.

    Raises:
        BundleError: The file is missing or damaged, or has another schema version.
    """
    try:
        data = path.read_bytes()
        document = json.loads(data.decode("utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent} is not a bundle: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise BundleError(f"{path} is not a bundle's manifest: it has no schema_version")
    version = document["schema_version"]
    if version not in (1, SCHEMA_VERSION):
        raise BundleError(
            f"{path} has schema version {version!r}; this release reads versions 1 and {SCHEMA_VERSION} only"
        )
    checksum = str(document.pop("checksum", None))
    if checksum != (_checksum(data, checksum) if version == SCHEMA_VERSION else _checksum_1(document)):
        raise BundleError(f"{path} is damaged: its checksum does not match; copy or export the bundle again")
    try:
        return Manifest.model_validate(document if version == SCHEMA_VERSION else _lifted(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}") from None


def _checksum(data: bytes, checksum: str) -> str:
    """Return the SHA-256 of the bytes of a manifest, in which zeros take the place of the checksum."""
    return sha256(data.replace(checksum.encode(errors="replace"), _NO_CHECKSUM.encode()))


def _lifted(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 1 as one of version 2. What is wrong with it is left to the validation."""
    replaced = {"schema_version", "precision", "tolerance_grey_levels"}
    return {
        **{name: value for name, value in document.items() if name not in replaced},
        "precision": {Path(name).stem: "float32" for name in document.get("files", {}) if name.endswith(".onnx")},
        "tolerance": {"latents": LATENT_TOLERANCE, "grey_levels": document.get("tolerance_grey_levels", 1)},
    }


def _checksum_1(document: Mapping[str, Any]) -> str:
    """Return the checksum of version 1: SHA-256 of canonical JSON with sorted keys, without spaces, in UTF-8."""
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
