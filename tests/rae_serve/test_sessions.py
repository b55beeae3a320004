from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from rae_serve import sessions
from rae_serve.bundle import Bundle
from rae_serve.sessions import FixedBatch
from tests.serving import ROOT


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    """Large enough for ONNX Runtime to share a single row's work among threads."""
    return Bundle.load(ROOT / "exported" / "flexae-mnist-small")


def test_sizes_grow_to_the_largest():
    assert sessions.fixed_sizes(64) == (1, 4, 16, 64)
    assert sessions.fixed_sizes(50) == (1, 4, 16, 50)
    assert sessions.fixed_sizes(1) == (1,)


@pytest.mark.parametrize("graph", ["decoder", "encoder"])
def test_a_padded_batch_is_its_rows(bundle, engine, graph):
    """The buffers are CUDA's in service; the same code runs with the CPU's."""
    session = onnxruntime.InferenceSession(bundle.graph(graph), providers=["CPUExecutionProvider"])
    batch = FixedBatch(session, 4, "cpu", 0)
    codes = engine.latents(engine.noise(7, seed=1))
    rows, run = (codes, engine.decode) if graph == "decoder" else (engine.decode(codes), engine.encode)
    assert np.array_equal(batch(rows[:4]), run(rows[:4]))
    assert np.array_equal(batch(rows[4:]), run(rows[4:]))
    assert np.array_equal(batch(rows[:1]), run(rows[:1]))


@pytest.mark.parametrize("graph", ["prior", "decoder", "encoder"])
def test_threads_never_show_in_the_bits(shipped, graph):
    """At sizes where the work is shared out among threads, and at those where it is not."""
    one, several = (
        sessions.Graph(shipped.graph(graph), "cpu", device_id=0, threads=threads, sizes=()) for threads in (1, 4)
    )
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 16, 33, 64):
        if graph == "encoder":
            rows = rng.integers(0, 256, (n, *shipped.manifest.image.shape), dtype=np.uint8)
        else:
            dim = shipped.manifest.noise.dim if graph == "prior" else shipped.manifest.latent.dim
            rows = rng.standard_normal((n, dim), dtype=np.float32)
        assert np.array_equal(one(rows), several(rows))
        assert np.array_equal(one(rows), np.concatenate([several(row[None]) for row in rows]))


@pytest.mark.parametrize("graph", ["prior", "decoder", "encoder"])
@pytest.mark.parametrize(
    ("threads", "engines", "sessions_opened", "at_once"),
    [(1, 1, [1], 1), (1, 3, [1], 1), (4, 1, [2, 4], 2), (4, 2, [1, 4], 2), (4, 3, [1, 4], 1), (4, 9, [1, 4], 1)],
)
def test_a_lone_request_has_the_same_bits_as_several(
    bundle, monkeypatch, graph, threads, engines, sessions_opened, at_once
):
    opened: list[int] = []

    class Counted(sessions.Graph):
        def __init__(self, model, device, *, threads, **options):
            opened.append(threads)
            super().__init__(model, device, threads=threads, **options)

    monkeypatch.setattr(sessions, "Graph", Counted)
    alone, asked = True, []
    choice = sessions.Sessions(
        "cpu",
        device_id=0,
        threads=threads,
        engines=engines,
        max_batch=8,
        is_lone_request=lambda rows: asked.append(rows) or alone,
    )
    run = choice.open(bundle.graph(graph))
    shape, dtype = (bundle.manifest.image.shape, np.uint8) if graph == "encoder" else ((8,), np.float32)
    rows = np.random.default_rng(0).integers(0, 3, (5, *shape)).astype(dtype)
    expected, alone = run(rows), False
    assert np.array_equal(run(rows), expected)
    assert choice.batches_at_once == at_once
    assert (sorted(opened), asked) == (sessions_opened, [] if threads == 1 else [5, 5])


@pytest.mark.gpu
def test_every_size_is_padded_on_cuda(bundle):
    graph = sessions.Graph(bundle.graph("decoder"), "cuda", device_id=0, threads=0, sizes=(1, 4, 16))
    rows = np.random.default_rng(0).standard_normal((16, bundle.manifest.latent.dim), dtype=np.float32)
    for n in (1, 2, 5, 16):
        assert np.abs(graph(rows[:n]).astype(int) - graph(rows)[:n]).max() <= bundle.manifest.tolerance.grey_levels
