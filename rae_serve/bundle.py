"""Bundles: a trained model as a folder of ONNX graphs with a manifest that describes them.

Training writes bundles; serving and embedding read them. `docs/bundle.md` specifies them for programs in other
languages.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from rae_serve import files
from rae_serve.card import model_card
from rae_serve.errors import BundleError, RaeServeError
from rae_serve.manifest import MANIFEST, File, Manifest, Map, model_digest, read_manifest, sha256, to_json

CARD: Final = "README.md"  # for people only: readers ignore it, and the manifest holds no hash of it
GOLDEN: Final = "golden.npz"
VECTORS: Final = "golden.json"
GENERATOR: Final = "generator"
GRAPHS: Final = ("prior", "decoder", "encoder")


def name_of(folder: Path) -> str:
    """Return the name of the bundle in a folder: the folder's own name.

    A symbolic link keeps the link's name, because its target may change.
    """
    return Path(os.path.abspath(folder)).name


class Bundle:
    """A bundle in memory, every file of which matches its checksum in the manifest.

    All files stay in memory after the check, so a later change on disk has no effect.
    """

    def __init__(self, path: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
        self.path = path
        self.name = files.printable(name_of(path))
        self.manifest = manifest
        self._contents = contents

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and check a bundle's folder.

        Raises:
            BundleError: There is no bundle, a file is missing or damaged, or the schema version is not supported.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(f"there is no bundle at {folder}; name the folder of a bundle")
        manifest = read_manifest(folder / MANIFEST)
        contents = {name: _read_checked(folder, name, file) for name, file in manifest.files.items()}
        for name in (*(f"{graph}.onnx" for graph in GRAPHS), GOLDEN):
            if name not in contents:
                raise BundleError(f"{folder / MANIFEST} lists no {name}")
        digest = model_digest({name: file.sha256 for name, file in manifest.files.items()})
        if manifest.digest != digest:
            raise BundleError(f"{folder / MANIFEST}: the model digest does not match the graphs")
        bundle = cls(folder, manifest, contents)
        bundle.map()
        return bundle

    @property
    def contents(self) -> Mapping[str, bytes]:
        """The bytes of every file that the manifest lists, by name."""
        return self._contents

    def graph(self, name: str) -> bytes:
        """Return the ONNX file of `prior`, `decoder` or `encoder`."""
        return self._contents[f"{name}.onnx"]

    def vectors(self) -> dict[str, Any] | None:
        """Return the golden vectors, or None if the bundle has none. `rae_serve/golden.py` makes and checks them.

        Raises:
            BundleError: The file is no JSON document.
        """
        if VECTORS not in self._contents:
            return None
        try:
            document: dict[str, Any] = json.loads(self._contents[VECTORS])
        except ValueError as error:
            raise BundleError(f"{self.path / VECTORS} cannot be read: {error}") from None
        return document

    def map(self) -> Map | None:
        """Return the map of latents, or None if the bundle has none.

        Raises:
            BundleError: The file is no map.
        """
        name = self.manifest.map
        try:
            return None if name is None else Map.model_validate_json(self._contents[name])
        except ValidationError as error:
            raise BundleError(f"{self.path / str(name)} is no map: {error.errors()[0]['msg']}") from None

    def golden(self) -> dict[str, npt.NDArray[Any]]:
        """Return the golden arrays, all computed by torch.

        `noise`, its latents `latent`, their images `image`, and `encoded`, the latents of `image`.
        """
        with np.load(io.BytesIO(self._contents[GOLDEN]), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def describe(facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of a bundle.

    Args:
        facts: Every field of the manifest except `files` and `digest`.
        contents: The bytes of every file, by name.
    """
    listed = _listed(contents)
    digest = model_digest({name: file.sha256 for name, file in listed.items()})
    return Manifest(**facts, files=listed, digest=digest)


def check_new(path: Path, *, overwrite: bool = False) -> None:
    """Check, before the work, that `write` can write a bundle's folder.

    Args:
        path: The folder; it must be empty or not exist.
        overwrite: Whether a bundle that is there will be replaced.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    if not overwrite and (path / MANIFEST).exists():
        raise RaeServeError(f"{path} holds a bundle; --overwrite replaces it")
    files.check_new_folder(path, mark=MANIFEST, used="swap")


def write(
    path: str | os.PathLike[str], facts: Mapping[str, Any], contents: Mapping[str, bytes], *, overwrite: bool = False
) -> Bundle:
    """Write a bundle's folder and load it. If anything fails, no folder is left behind.

    Args:
        path: The folder; it must be empty or not exist.
        facts: Every field of the manifest except `files` and `digest`.
        contents: The bytes of every file, by name.
        overwrite: Whether to replace a bundle that is there. Readers see the old bundle or the new one.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    manifest = describe(facts, contents)
    with files.new_folder(Path(path), mark=MANIFEST, used="swap" if overwrite else "refuse") as folder:
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        (folder / CARD).write_text(model_card(manifest, files.printable(name_of(Path(path)))), encoding="utf-8")
    return Bundle.load(path)


def annotate(
    bundle: Bundle, *, added: Mapping[str, bytes] | None = None, dropped: Collection[str] = (), **facts: Any
) -> Bundle:
    """Replace fields of a bundle's manifest that do not depend on its files, and add or drop files.

    The other files and the digest stay the same. Another process reads either the old manifest or the new.

    Args:
        bundle: The bundle.
        added: Files that the manifest does not list yet, by name.
        dropped: Names of files that the bundle no longer needs.
        facts: Fields of the manifest such as `quality`, `attributes` and `licence`.

    Raises:
        RaeServeError: The folder cannot be written. The bundle is then as it was before.
    """
    added = added or {}
    kept = {name: file for name, file in bundle.manifest.files.items() if name not in dropped}
    manifest = Manifest.model_validate(bundle.manifest.model_dump() | facts | {"files": kept | _listed(added)})
    before = {name for name in added if (bundle.path / name).exists()}
    try:
        for name, data in added.items():
            files.write(bundle.path / name, data)
        files.write(bundle.path / CARD, model_card(manifest, bundle.name).encode())
        files.write(bundle.path / MANIFEST, to_json(manifest).encode())
    except BaseException:
        for name in added.keys() - before:
            (bundle.path / name).unlink(missing_ok=True)
        raise
    for name in set(dropped) - added.keys():
        with suppress(OSError):  # what stays has no effect
            (bundle.path / name).unlink()
    return Bundle.load(bundle.path)


def name_by_content(stem: str, suffix: str, data: bytes) -> str:
    """Return the name of a file that `annotate` may replace: other bytes have another name.

    So readers of an old manifest never find the bytes of a new one under a name that they know.
    """
    return f"{stem}-{sha256(data)[:12]}{suffix}"


def _listed(contents: Mapping[str, bytes]) -> dict[str, File]:
    return {name: File(bytes=len(data), sha256=sha256(data)) for name, data in contents.items()}


def _read_checked(folder: Path, name: str, file: File) -> bytes:
    if Path(name).name != name:
        raise BundleError(f"{folder / MANIFEST} names a file outside the bundle: {name!r}")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder / name} cannot be read: {error.strerror}") from None
    if sha256(data) != file.sha256:
        raise BundleError(
            f"{folder / name} is damaged: its SHA-256 differs from the manifest's; copy or export the bundle again"
        )
    return data
