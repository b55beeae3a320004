"""The models that a server offers, by name."""

from __future__ import annotations

import os
from pathlib import Path

from rae_serve.bundle import MANIFEST, Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, NotFound
from rae_serve.settings import Settings


class Catalog:
    """An Engine for every bundle that the settings name. Empty until `load`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engines: dict[str, Engine] = {}

    def load(self) -> None:
        """Load every bundle and run each graph once, so that the first request finds it warm.

        Raises BundleError where there is none, or one is damaged.
        """
        settings = self.settings
        for folder in _folders(settings.bundles):
            bundle = Bundle.load(folder)
            if bundle.name in self._engines:
                raise BundleError(f"two bundles are named {bundle.name}; rename the folder of one")
            engine = Engine(
                bundle,
                device=settings.device,
                threads=settings.threads,
                max_batch=settings.max_batch,
                max_waiting=settings.max_waiting,
            )
            engine.reconstruct(engine.sample(1, seed=0))
            self._engines[bundle.name] = engine
        if not self._engines:
            raise BundleError(f"there is no bundle in {settings.bundles}")
        if settings.default_model is not None and settings.default_model not in self._engines:
            raise InvalidInput("RAE_SERVE_DEFAULT_MODEL", f"{settings.default_model!r} is none of {self.names()}")

    def names(self) -> list[str]:
        """The models' names, in order."""
        return sorted(self._engines)

    def default(self) -> str:
        """The name of the model of requests that name none."""
        return self.settings.default_model or self.names()[0]

    def engine(self, name: str | None = None) -> Engine:
        """The engine of a model. Raises NotFound, with the names that exist."""
        try:
            return self._engines[self.default() if name is None else name]
        except KeyError:
            raise NotFound(f"there is no model {name!r}; there are {', '.join(self.names())}") from None


def _folders(bundles: str) -> list[Path]:
    """Each part is a bundle, or a folder of them."""
    folders = []
    for part in map(Path, bundles.split(os.pathsep)):
        if (part / MANIFEST).exists():
            folders.append(part)
        elif part.is_dir():
            folders += sorted(found.parent for found in part.glob(f"[!.]*/{MANIFEST}"))
        else:
            raise BundleError(f"there is no folder {part}; RAE_SERVE_BUNDLES names where bundles are")
    return folders
