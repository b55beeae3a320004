"""The models that a server offers, by name, and how they follow their folders on disk."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from rae_serve import parity, sessions
from rae_serve.bundle import Bundle, name_of
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, NotFound
from rae_serve.manifest import MANIFEST
from rae_serve.server import metrics
from rae_serve.server.settings import Settings

log = logging.getLogger(__name__)

State = frozenset[tuple[str, int, int, int]]  # of a folder's files: name, size, time and inode
_ABSENT: Final[State] = frozenset()
# A folder that is being replaced may be gone for a moment.
_POLLS_UNTIL_GONE: Final = 2


class Catalog:
    """An Engine for every bundle that the settings name. Empty until `load`.

    `watch` keeps it what the folders are: a bundle that is added or replaced is loaded, verified against its
    golden arrays and warmed up beside the others, and only then takes its place. One that fails never does.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = 0
        self._engines: dict[str, Engine] = {}
        self._seen: dict[Path, State] = {}
        self._absences: dict[Path, int] = {}
        self._retired: list[tuple[float, Engine]] = []
        self._failed: set[Path] = set()  # at the start, and not mended since
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def check(self) -> list[Path]:
        """The bundles' folders, without a look inside: what can be known to be wrong before a worker starts.

        Raises BundleError where there is none, or two have one name, and InvalidInput where the default model is
        none of them.
        """
        folders = _folders(self.settings.bundles)
        names = [name_of(folder) for folder in folders]
        for name in names:
            if names.count(name) > 1:
                raise BundleError(f"two bundles are named {name}; rename the folder of one")
        if not names:
            raise BundleError(f"there is no bundle in {self.settings.bundles}")
        if self.settings.default_model is not None and self.settings.default_model not in names:
            raise InvalidInput("RAE_SERVE_DEFAULT_MODEL", f"{self.settings.default_model!r} is none of {names}")
        return folders

    def load(self, worker: int = 0) -> None:
        """Load, verify and warm up every bundle, on the device of this worker, one of 0, 1, …

        One that is damaged is left out, by the log's word, and the catalog is not ready until it is mended or
        taken away. Raises what `check` raises.
        """
        self.worker = worker
        for folder in self.check():
            self._seen[folder] = _state(folder)
            self._take(folder)
            if name_of(folder) not in self._engines:
                self._failed.add(folder)
        self.count()

    def watch(self) -> None:
        """Look at the folders every `reload_seconds`, in a thread of its own, until `close`."""
        self._watcher = threading.Thread(target=self._follow, name="catalog", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching, and end every engine's threads after what waits is done."""
        self._stopped.set()
        if self._watcher:
            self._watcher.join()
        for engine in (*self._engines.values(), *(engine for _, engine in self._retired)):
            engine.close()
        self._engines, self._retired = {}, []

    def ready(self) -> bool:
        """Whether every model is loaded and warm, and the server is not about to end."""
        return bool(self._engines) and not self._failed and not self._stopped.is_set()

    def names(self) -> list[str]:
        """The models' names, in order."""
        return sorted(self._engines)

    def engines(self) -> dict[str, Engine]:
        """The models, by name and in its order."""
        return dict(sorted(self._engines.items()))

    def default(self) -> str:
        """The name of the model of requests that name none. Raises NotFound where there is no model."""
        names = self.names()
        if not names:
            raise NotFound("there is no model; the server's folders hold no bundle now")
        return self.settings.default_model or names[0]

    def engine(self, name: str | None = None) -> Engine:
        """The engine of a model. Raises NotFound, with the names that exist."""
        try:
            return self._engines[self.default() if name is None else name]
        except KeyError:
            raise NotFound(f"there is no model {name!r}; there are {', '.join(self.names())}") from None

    def waiting(self) -> dict[str, int]:
        """Rows that wait, by graph, of all models."""
        total = {"prior": 0, "decoder": 0, "encoder": 0}
        for engine in list(self._engines.values()):
            for graph, rows in engine.waiting.items():
                total[graph] += rows
        return total

    def count(self) -> None:
        """Tell the metrics what this worker serves and how much waits: no worker can for another."""
        metrics.MODELS.set(len(self._engines))
        for graph, rows in self.waiting().items():
            metrics.WAITING_ROWS.labels(graph).set(rows)

    def refresh(self) -> None:
        """Take over what has changed on disk since the last look."""
        folders = _folders(self.settings.bundles, missing_ok=True)
        for folder in folders:
            state = _state(folder)
            if state != self._seen.get(folder, _ABSENT):
                self._seen[folder] = state  # a bundle that fails is tried again when it changes
                self._take(folder)
            self._absences.pop(folder, None)
        for folder in set(self._seen) - set(folders):
            self._absences[folder] = self._absences.get(folder, 0) + 1
            if self._absences[folder] >= _POLLS_UNTIL_GONE:
                self._drop(folder)
        self._close_retired()
        self.count()

    def _follow(self) -> None:
        while not self._stopped.wait(self.settings.reload_seconds):
            try:
                self.refresh()
            except Exception:
                log.exception("the bundles' folders cannot be followed; trying again")

    def _take(self, folder: Path) -> None:
        name = name_of(folder)
        others = [other for other in self._seen if other != folder and name_of(other) == name]
        try:
            if others and name in self._engines:
                raise BundleError(f"{others[0]} is served by that name already; rename the folder of one")
            engine = self._verified(folder)
        except Exception as error:  # whatever is wrong with one bundle, the others go on
            metrics.RELOADS.labels("refused").inc()
            log.error("%s is not taken over: %s", folder, error)
            return
        self._retire(name)
        self._failed.discard(folder)
        self._engines = {**self._engines, name: engine}
        metrics.RELOADS.labels("taken").inc()
        log.info("%s is served as %s, digest %s", folder, name, engine.manifest.digest)

    def _drop(self, folder: Path) -> None:
        del self._seen[folder], self._absences[folder]
        self._failed.discard(folder)
        name = name_of(folder)
        if name in self._engines and self._engines[name].bundle.path == folder:
            for other in self._seen:  # one that was refused for its name is tried again
                if name_of(other) == name:
                    self._seen[other] = _ABSENT
            self._retire(name)
            self._engines = {other: engine for other, engine in self._engines.items() if other != name}
            metrics.RELOADS.labels("removed").inc()
            log.info("%s is gone; %s is served no more", folder, name)

    def _retire(self, name: str) -> None:
        """Let those who hold an engine finish with it, before its threads end."""
        if name in self._engines:
            self._retired.append((time.monotonic() + 2 * self.settings.max_seconds, self._engines[name]))

    def _close_retired(self) -> None:
        now = time.monotonic()
        for until, engine in self._retired:
            if until <= now:
                engine.close()
        self._retired = [entry for entry in self._retired if entry[0] > now]

    def _verified(self, folder: Path) -> Engine:
        """An engine, warm, whose graphs compute what its golden arrays say."""
        settings = self.settings
        bundle = Bundle.load(folder)
        engine = Engine(
            bundle,
            device=settings.device,
            device_id=self.worker % max(1, sessions.cuda_devices()),
            threads=settings.threads or max(1, (os.cpu_count() or 1) // settings.worker_count()),
            max_batch=settings.max_batch,
            max_waiting=settings.max_waiting,
            observe=metrics.observe_batch,
        )
        try:
            parity.check(parity.measure(engine, bundle.golden()), bundle.manifest.tolerance_grey_levels)
            engine.sample(1, seed=0)
        except Exception:
            engine.close()
            raise
        return engine


def _folders(bundles: str, *, missing_ok: bool = False) -> list[Path]:
    """Each part is a bundle, or a folder of them."""
    folders = []
    for part in map(Path, bundles.split(os.pathsep)):
        if (part / MANIFEST).exists():
            folders.append(part)
        elif part.is_dir():
            folders += sorted(found.parent for found in part.glob(f"[!.]*/{MANIFEST}"))
        elif not missing_ok:
            raise BundleError(f"there is no folder {part}; RAE_SERVE_BUNDLES names where bundles are")
    return folders


def _state(folder: Path) -> State:
    try:
        facts = [(path.name, path.stat()) for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:  # it is going just now
        return _ABSENT
    return frozenset((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in facts)
