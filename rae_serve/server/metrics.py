"""What is counted, for Prometheus. Every label has few values, none of them chosen by a client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"  # bentoml serve sets it: all workers count into files there
_LATENCIES_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_registry: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "rae_serve_requests", "Requests answered.", ["method", "route", "status"], registry=_registry
)
LATENCY: Final = Histogram(
    "rae_serve_latency_ms",
    "From the request's head to the end of its answer.",
    ["route"],
    buckets=_LATENCIES_MS,
    registry=_registry,
)
BATCH_ROWS: Final = Histogram(
    "rae_serve_batch_rows", "Rows of one run of a graph.", ["graph"], buckets=_ROWS, registry=_registry
)
WAITING_ROWS: Final = Gauge(
    "rae_serve_waiting_rows",
    "Rows that wait for a graph.",
    ["graph"],
    registry=_registry,
    multiprocess_mode="livesum",
)
MODELS: Final = Gauge(
    "rae_serve_models", "Models that a worker serves.", registry=_registry, multiprocess_mode="livemin"
)
RELOADS: Final = Counter(
    "rae_serve_reloads", "Bundles taken over, refused, or removed.", ["outcome"], registry=_registry
)
DROPPED: Final = Counter(
    "rae_serve_dropped",
    "Requests not computed: overloaded, expired, abandoned, or too_large.",
    ["reason"],
    registry=_registry,
)


def observe_batch(graph: str, rows: int) -> None:
    """Count one run of a graph."""
    BATCH_ROWS.labels(graph).observe(rows)


def exposition() -> bytes:
    """The metrics of all workers, as Prometheus reads them."""
    folder = os.environ.get(_MULTIPROCESS)
    if not folder:
        return generate_latest(_registry)
    for file in Path(folder).glob("gauge_live*_*.db"):  # a worker that was killed did not take its own away
        pid = int(file.stem.rsplit("_", 1)[1])
        if not _alive(pid):
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]
    return generate_latest(together)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
