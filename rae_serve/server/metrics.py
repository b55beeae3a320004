"""Metrics for Prometheus. No client can choose the value of a label, so the number of time series stays small."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

MEDIA_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST
_MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"  # `bentoml serve` sets it: every worker writes its counts there
_LATENCIES_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_registry: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "rae_serve_requests", "Requests; 499: the client left.", ["method", "route", "status"], registry=_registry
)
LATENCY: Final = Histogram(
    "rae_serve_latency_ms",
    "Milliseconds from the head of a request to the end of its response.",
    ["route"],
    buckets=_LATENCIES_MS,
    registry=_registry,
)
BATCH_ROWS: Final = Histogram(
    "rae_serve_batch_rows", "Rows in one batch of a graph.", ["graph"], buckets=_ROWS, registry=_registry
)
WAITING_ROWS: Final = Gauge(
    "rae_serve_waiting_rows", "Rows waiting for a batch.", ["graph"], registry=_registry, multiprocess_mode="livesum"
)
MODELS: Final = Gauge(
    "rae_serve_models", "The fewest models that a worker serves.", registry=_registry, multiprocess_mode="livemin"
)
RELOADS: Final = Counter(
    "rae_serve_reloads", "Bundles taken (loaded and served), refused, or removed.", ["outcome"], registry=_registry
)
DROPPED: Final = Counter("rae_serve_dropped", "Requests dropped, by reason.", ["reason"], registry=_registry)
# Prometheus sees no increase in a series that begins with its first event, so these series begin with 0.
for _outcome in ("taken", "refused", "removed"):
    RELOADS.labels(_outcome)
for _reason in ("overloaded", "expired", "abandoned", "too_large"):
    DROPPED.labels(_reason)


def observe_batch(graph: str, rows: int) -> None:
    """Count one batch of a graph."""
    BATCH_ROWS.labels(graph).observe(rows)


def exposition() -> bytes:
    """Return the metrics of all workers in the text format of Prometheus."""
    folder = os.environ.get(_MULTIPROCESS)
    if not folder:
        return prometheus_client.generate_latest(_registry)
    for file in Path(folder).glob("gauge_live*_*.db"):  # a killed worker leaves its gauges behind
        pid = int(file.stem.rsplit("_", 1)[1])
        if not _alive(pid):
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    all_workers = CollectorRegistry()
    multiprocess.MultiProcessCollector(all_workers, folder)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(all_workers)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
