"""The models that a server offers: one Engine per bundle folder, reloaded when the folder changes on disk."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from filelock import FileLock

from rae_serve import parity
from rae_serve.bundle import GENERATOR, GRAPHS, Bundle, annotate, name_of
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, NotFound, RaeServeError
from rae_serve.files import named_errors, printable
from rae_serve.manifest import MANIFEST, Attribute
from rae_serve.server import metrics, placement
from rae_serve.server.settings import Settings

log = logging.getLogger(__name__)

FolderState = frozenset[tuple[str, int, int, int]]  # name, size, modification time and inode of every file
_ABSENT: Final[FolderState] = frozenset()
# While a program replaces a folder, the folder may be missing for a moment.
_POLLS_UNTIL_GONE: Final = 2
DEFAULT_FILE: Final = "default.txt"  # in a folder of bundles: the name of its default model
_FIRST_BY_NAME: Final = (
    f"neither RAE_SERVE_DEFAULT_MODEL nor {DEFAULT_FILE} names a model here; it was the first by name"
)
_LOCK: Final = ".attributes.lock"  # in a bundle's folder; hidden, and so no part of the bundle
# What cannot stand in an address: control characters, and bytes of a folder's name that are not UTF-8.
_NOT_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Default(NamedTuple):
    """The model for requests that name none, and why it is this one."""

    name: str
    reason: str


class Catalog:
    """The engines of all bundles that the settings name, by model name. A catalog is empty until `load`.

    After `watch`, a thread follows the folders: it loads a new or changed bundle, checks the bundle against its
    golden arrays and warms it up, and only then serves it. A bundle that fails is not served; if the server
    already has a model of that name, this model stays.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = 0
        self.engines: dict[str, Engine] = {}  # by sorted names; replaced, never changed: other threads read it
        self._default: Default | None = None
        self._states: dict[Path, FolderState] = {}  # as they were when the folder was last loaded
        self._absent_polls: dict[Path, int] = {}
        self._retired: list[tuple[float, Engine]] = []  # engines to close, and when
        self._failed_at_start: set[Path] = set()  # folders that failed in `load` and have not been repaired
        self._draining = False
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def check(self) -> list[Path]:
        """Check the settings against the folders on disk, without loading a bundle, and return the bundle folders.

        Raises:
            BundleError: There is no bundle, or two bundles have the same name.
            InvalidInput: The default model is not one of the bundles.
        """
        folders = _bundle_folders(self.settings.bundles)
        names = [name_of(folder) for folder in folders]
        for name in names:
            if names.count(name) > 1:
                raise BundleError(f"two bundles are named {name}; rename one of the folders")
        if not names:
            raise BundleError(f"there is no bundle in {self.settings.bundles}")
        if self.settings.default_model is not None and self.settings.default_model not in names:
            problem = f"must be one of {', '.join(names)}, not {self.settings.default_model!r}"
            raise InvalidInput("RAE_SERVE_DEFAULT_MODEL", problem)
        return folders

    def load(self, worker: int = 0) -> None:
        """Load, check and warm up every bundle.

        A damaged bundle is logged and left out. The catalog is then not ready until the bundle is repaired or
        removed.

        Args:
            worker: The number of this worker, from 0; it decides the worker's share of the machine.

        Raises:
            BundleError: As from `check`.
            InvalidInput: As from `check`.
        """
        self.worker = worker
        for folder in self.check():
            self._load_folder(folder)
            if name_of(folder) not in self.engines and _can_name_a_model(name_of(folder)):
                self._failed_at_start.add(folder)
        self._choose_default()
        self.update_metrics()

    def watch(self) -> None:
        """Start a thread that calls `refresh` every `reload_seconds`, until `close`."""
        self._watcher = threading.Thread(target=self._watch_loop, name="catalog", daemon=True)
        self._watcher.start()

    def drain(self) -> None:
        """Ask for no more requests: the catalog is no longer ready, but its engines go on."""
        self._draining = True

    def close(self) -> None:
        """Stop watching, and close every engine after its waiting rows are done."""
        self._stopped.set()
        if self._watcher:
            self._watcher.join()
        for engine in (*self.engines.values(), *(engine for _, engine in self._retired)):
            engine.close()
        self.engines, self._retired = {}, []

    def ready(self) -> bool:
        """Return whether every model is loaded and warm, and the server is not shutting down."""
        return bool(self.engines) and not self._failed_at_start and not self._draining

    def default(self) -> Default:
        """Return the default model. The model itself may be missing.

        Raises NotFound if there is no model at all.
        """
        if not self.engines or self._default is None:
            raise NotFound("the server has no model; its operator has to add a bundle")
        return self._default

    def engine(self, name: str | None = None, digest: str | None = None) -> Engine:
        """Return the engine of a model, or of the default model if `name` is None.

        Raises NotFound, with the names of the models that are there, or with the digest that the model has if this
        is not `digest`.
        """
        wanted = self.default().name if name is None else name
        engines = self.engines
        if wanted in engines:
            engine = engines[wanted]
            if digest not in (None, engine.manifest.digest):
                raise NotFound(f"model {wanted!r} has the digest {engine.manifest.digest}, not {digest}")
            return engine
        names = ", ".join(engines) or "none"
        if name is None:
            raise NotFound(f"the default model {wanted!r} is not loaded; name another model, one of: {names}")
        raise NotFound(f"there is no model {wanted!r}; the models are: {names}")

    def keep_attribute(self, engine: Engine, name: str, attribute: Attribute) -> None:
        """Write an attribute into the bundle of an engine; `refresh` then loads the bundle again.

        Raises:
            InvalidInput: The operator does not allow it, the name is taken, the bundle is another by now, or its
                folder cannot be written; the field is `keep`.
        """
        if not self.settings.keep_attributes:
            problem = "the operator does not allow it; RAE_SERVE_KEEP_ATTRIBUTES=true does"
            raise InvalidInput("keep", problem)
        path = engine.bundle.path
        try:
            # Other workers may write at the same time.
            with named_errors(path), FileLock(path / _LOCK, timeout=self.settings.max_seconds):
                bundle = Bundle.load(path)
                if bundle.manifest.digest != engine.manifest.digest:
                    raise InvalidInput("keep", "the bundle has just been replaced; try again")
                if name in bundle.manifest.directions():
                    raise InvalidInput("keep", f"the model has an attribute {name!r} already; choose another name")
                annotate(bundle, attributes={**bundle.manifest.attributes, name: attribute})
        except InvalidInput:
            raise
        except RaeServeError as error:
            log.warning("an attribute of %s was not kept: %s", engine.bundle.name, error)
            problem = "the server cannot write into the model's bundle; its log has the reason for its operator"
            raise InvalidInput("keep", problem) from None

    def update_metrics(self) -> None:
        """Set the gauges of this worker. No worker can set those of another one."""
        waiting = [engine.waiting for engine in self.engines.values()]
        metrics.MODELS.set(len(waiting))
        for graph in (GENERATOR, *GRAPHS):
            metrics.WAITING_ROWS.labels(graph).set(sum(rows[graph] for rows in waiting))

    def refresh(self) -> None:
        """Load the bundles that are new or changed on disk, and remove those that are gone."""
        folders = _bundle_folders(self.settings.bundles, missing_ok=True)
        for folder in folders:
            if _folder_state(folder) != self._states.get(folder, _ABSENT):
                self._load_folder(folder)
            self._absent_polls.pop(folder, None)
        for folder in set(self._states) - set(folders):
            self._absent_polls[folder] = self._absent_polls.get(folder, 0) + 1
            if self._absent_polls[folder] >= _POLLS_UNTIL_GONE:
                self._remove_folder(folder)
        self._choose_default()
        self._close_retired()
        self.update_metrics()

    def _watch_loop(self) -> None:
        while not self._stopped.wait(self.settings.reload_seconds):
            try:
                self.refresh()
            except Exception:
                log.exception("the bundle folders cannot be read; trying again in %g s", self.settings.reload_seconds)

    def _load_folder(self, folder: Path) -> None:
        """Serve the bundle of a folder, or refuse it until the folder changes again.

        If the folder changes while it is read, because a program replaces it, the next refresh tries again.
        """
        name = name_of(folder)
        state = _folder_state(folder)
        self._states.setdefault(folder, _ABSENT)
        loaded: Bundle | Exception
        try:
            loaded = Bundle.load(folder)
        except Exception as error:
            loaded = error
        if _folder_state(folder) != state or not folder.exists():
            return
        self._states[folder] = state  # set even if the bundle is refused: try again only after the next change
        others = [other for other in self._states if other != folder and name_of(other) == name]
        try:
            if not _can_name_a_model(name):
                raise BundleError(f"the name '{printable(name)}' cannot stand in an address; rename the folder")
            if others and name in self.engines:
                raise BundleError(f"{others[0]} is already served under the name {name}; rename one of the folders")
            if isinstance(loaded, Exception):
                raise loaded
            engine = self._verified_engine(loaded)
        except Exception as error:  # whatever is wrong with one bundle, the others are served
            metrics.RELOADS.labels("refused").inc()
            log.error("%s is refused: %s", printable(folder), error)
            return
        self._retire(name)
        self._failed_at_start.discard(folder)
        self.engines = dict(sorted({**self.engines, name: engine}.items()))
        metrics.RELOADS.labels("taken").inc()
        log.info("%s is served as %s, digest %s", printable(folder), name, engine.manifest.digest)

    def _remove_folder(self, folder: Path) -> None:
        del self._states[folder], self._absent_polls[folder]
        self._failed_at_start.discard(folder)
        name = name_of(folder)
        if name in self.engines and self.engines[name].bundle.path == folder:
            for other in self._states:  # a folder of the same name was refused; the next refresh tries it again
                if name_of(other) == name:
                    self._states[other] = _ABSENT
            self._retire(name)
            self.engines = {other: engine for other, engine in self.engines.items() if other != name}
            metrics.RELOADS.labels("removed").inc()
            log.info("%s is gone; the model %s is removed", printable(folder), name)

    def _choose_default(self) -> None:
        """Choose the default model: the named one, else the one that it is already, else the first by name.

        A folder of bundles that has no `default.txt` gets one with the choice, for other workers and later starts.
        """
        known = {name_of(folder) for folder in self._states}
        chosen = self._named_default(known)
        if chosen is None and self.engines:
            before = self._default.name if self._default else None
            name = before if before in known else next(iter(self.engines))
            if file := self._default_file():
                with suppress(OSError), file.open("x", encoding="utf-8") as text:  # it exists, or cannot be written
                    text.write(f"{name}\n")
            chosen = self._named_default(known) or Default(name, _FIRST_BY_NAME)
        if chosen and chosen != self._default:
            log.info("%s is the default model: %s", *chosen)
        self._default = chosen

    def _named_default(self, known: Collection[str]) -> Default | None:
        """Return the default model that the settings name, or that `default.txt` names if it is a known model."""
        if self.settings.default_model is not None:
            return Default(self.settings.default_model, "RAE_SERVE_DEFAULT_MODEL names it")
        file, name = self._default_file(), ""
        with suppress(OSError):
            name = file.read_text(encoding="utf-8-sig", errors="replace").strip() if file else ""
        return Default(name, f"{DEFAULT_FILE} names it") if name in known else None

    def _default_file(self) -> Path | None:
        """Return the path of `default.txt` in the first folder of bundles; None if the settings name only bundles."""
        parts = map(Path, self.settings.bundles.split(os.pathsep))
        return next((part / DEFAULT_FILE for part in parts if part.is_dir() and not _is_bundle(part)), None)

    def _retire(self, name: str) -> None:
        """Plan to close the engine of a model once every request that may hold the engine has ended."""
        if name in self.engines:
            self._retired.append((time.monotonic() + 2 * self.settings.max_seconds, self.engines[name]))

    def _close_retired(self) -> None:
        now = time.monotonic()
        for until, engine in self._retired:
            if until <= now:
                engine.close()
        self._retired = [entry for entry in self._retired if entry[0] > now]

    def _verified_engine(self, bundle: Bundle) -> Engine:
        """Return a warm engine of a bundle. Raises BundleError if it does not compute the golden arrays."""
        engine = Engine(
            bundle,
            device=self.settings.device,
            max_batch=self.settings.max_batch,
            observe=metrics.observe_batch,
            **placement.place(self.settings, self.worker)._asdict(),
        )
        try:
            parity.check(parity.measure(engine, bundle.golden()), bundle.manifest.tolerance)
            engine.sample(1, seed=0)
        except Exception:
            engine.close()
            raise
        return engine


def _can_name_a_model(name: str) -> bool:
    return bool(name) and not _NOT_IN_A_NAME.search(name)


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def _bundle_folders(bundles: str, *, missing_ok: bool = False) -> list[Path]:
    """Return the bundle folders that a setting names; each part of it is a bundle or a folder of bundles."""
    folders = []
    for part in map(Path, bundles.split(os.pathsep)):
        if _is_bundle(part):
            folders.append(part)
        elif part.is_dir():
            folders += sorted(found.parent for found in part.glob(f"[!.]*/{MANIFEST}"))
        elif not missing_ok:
            raise BundleError(f"there is no folder {part}; set RAE_SERVE_BUNDLES to where the bundles are")
    return folders


def _folder_state(folder: Path) -> FolderState:
    try:
        facts = [(path.name, path.stat()) for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:  # the folder is being removed
        return _ABSENT
    return frozenset((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in facts)
