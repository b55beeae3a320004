"""The contract between training and serving: a folder of ONNX graphs and the manifest that describes them.

`docs/bundle.md` specifies version 1 for readers in other languages.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from rae_serve import files
from rae_serve.card import model_card
from rae_serve.errors import BundleError
from rae_serve.images import Preprocessing

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"  # for people: no part of the contract, and not hashed
GOLDEN: Final = "golden.npz"
GRAPHS: Final = ("prior", "decoder", "encoder")

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


def name_of(folder: Path) -> str:
    """The name of a bundle in a folder. A link has its own: what it points to may change."""
    return Path(os.path.abspath(folder)).name


class Bundle:
    """A bundle whose every file has been read and found to be what its manifest says.

    What was checked is what is used: files are kept in memory, so a change on disk after `load` has no effect.
    """

    def __init__(self, path: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
        self.path = path
        self.name = name_of(path)
        self.manifest = manifest
        self._contents = contents

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and check a bundle folder.

        Raises BundleError where there is none, a file is missing or damaged, or the version is another.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(f"there is no bundle at {folder}")
        manifest = _read_manifest(folder / MANIFEST)
        contents = {name: _read_checked(folder, name, file) for name, file in manifest.files.items()}
        for name in (*(f"{graph}.onnx" for graph in GRAPHS), GOLDEN):
            if name not in contents:
                raise BundleError(f"{folder / MANIFEST} lists no {name}")
        digest = model_digest({name: file.sha256 for name, file in manifest.files.items()})
        if manifest.digest != digest:
            raise BundleError(f"{folder / MANIFEST}: the model digest is not that of its graphs")
        return cls(folder, manifest, contents)

    def graph(self, name: str) -> bytes:
        """The ONNX file of `prior`, `decoder` or `encoder`."""
        return self._contents[f"{name}.onnx"]

    def golden(self) -> dict[str, npt.NDArray[Any]]:
        """The golden arrays: noise, latent and image from torch, and the latents it encodes `image` to."""
        with np.load(io.BytesIO(self._contents[GOLDEN]), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def describe(facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> Manifest:
    """The manifest of `contents` (name → bytes) with these facts: every field but `files` and `digest`."""
    listed = {name: File(bytes=len(data), sha256=_sha256(data)) for name, data in contents.items()}
    digest = model_digest({name: file.sha256 for name, file in listed.items()})
    return Manifest(**facts, files=listed, digest=digest)


def write(path: str | os.PathLike[str], facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, described as `describe` does, whole or not at all, and read it back.

    Raises RaeServeError where `path` is in use.
    """
    manifest = describe(facts, contents)
    with files.new_folder(Path(path)) as folder:
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_text(_to_json(manifest), encoding="utf-8")
        (folder / CARD).write_text(model_card(manifest, Path(path).name), encoding="utf-8")
    return Bundle.load(path)


def annotate(bundle: Bundle, **facts: Any) -> Bundle:
    """Replace facts of a bundle's manifest that its files do not decide: `quality`, `attributes`, `licence`.

    The graphs and the digest stay as they are. The manifest changes at once, for any reader.
    """
    manifest = Manifest.model_validate(bundle.manifest.model_dump() | facts)
    files.write(bundle.path / CARD, model_card(manifest, bundle.name).encode())
    files.write(bundle.path / MANIFEST, _to_json(manifest).encode())
    return Bundle.load(bundle.path)


def model_digest(sha256: Mapping[str, str]) -> str:
    """SHA-256 over the hexadecimal hashes of prior.onnx and decoder.onnx, in this order."""
    return _sha256((sha256["prior.onnx"] + sha256["decoder.onnx"]).encode())


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


def _to_json(manifest: Manifest) -> str:
    document = manifest.model_dump(mode="json")
    return json.dumps(document | {"checksum": _checksum(document)}, indent=1, ensure_ascii=False) + "\n"


def _read_manifest(path: Path) -> Manifest:
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


def _read_checked(folder: Path, name: str, file: File) -> bytes:
    if Path(name).name != name:
        raise BundleError(f"{folder / MANIFEST} names a file outside the bundle: {name!r}")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder / name} cannot be read: {error.strerror}") from None
    if _sha256(data) != file.sha256:
        raise BundleError(f"{folder / name} is damaged: its SHA-256 is not the manifest's")
    return data


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON: keys sorted, no spaces, UTF-8."""
    return _sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
