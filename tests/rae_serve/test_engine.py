from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from rae_serve import interpolation, noise, parity, sessions
from rae_serve.batching import MicroBatcher
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, Overloaded, RaeServeError
from rae_serve.manifest import Parity
from rae_serve.sessions import Graph
from tests.waiting import wait_until


def test_row_i_of_a_seed_is_one_image(engine):
    images = engine.sample(40, seed=7)
    assert np.array_equal(engine.sample(16, seed=7), images[:16])
    assert np.array_equal(engine.sample(1, seed=7, offset=4)[0], images[4])
    assert len(np.unique(images.reshape(40, -1), axis=0)) == 40


def test_pixels_are_the_same_whatever_runs_beside_them(bundle):
    engine = Engine(bundle, device="cpu", max_batch=7)
    alone = [engine.sample(1, seed=3, offset=i)[0] for i in range(60)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: engine.sample(1 + i % 5, seed=3, offset=i)[0], range(60)))
    assert np.array_equal(alone, together)
    engine.close()


@pytest.fixture
def graph_runs(monkeypatch):
    """The threads and rows of every run of a graph, except for warm-up; and an event that lets the runs go on."""
    runs: list[tuple[int, int]] = []
    go = threading.Event()
    go.set()

    class Recorder(Graph):
        def __init__(self, model, device, *, threads, **options):
            self.threads = 0  # while it warms up
            super().__init__(model, device, threads=threads, **options)
            self.threads = threads

        def __call__(self, rows):
            if self.threads:
                runs.append((self.threads, len(rows)))
                assert go.wait(10)
            return super().__call__(rows)

    monkeypatch.setattr("rae_serve.sessions.Graph", Recorder)
    return runs, go


def test_a_request_alone_has_all_threads_and_several_share_them(bundle, graph_runs):
    ran, go = graph_runs
    go.clear()
    engine = Engine(bundle, device="cpu", threads=4)
    first = engine.submit_decode(np.zeros((3, 8)))
    wait_until(lambda: ran, 10, "the first request runs")
    second = engine.submit_encode(np.zeros((2, 8, 8, 1), np.uint8))
    wait_until(lambda: len(ran) == 2, 10, "the second request runs")
    go.set()
    first.result(10)
    second.result(10)
    assert ran == [(4, 3), (2, 2)]
    wait_until(lambda: not engine._in_flight.requests, 10, "no request is under way")
    ran.clear()
    engine.sample(3, seed=1)
    assert ran == [(4, 3), (4, 3)]
    wait_until(lambda: not engine._in_flight.requests, 10, "no request is under way")
    ran.clear()
    engine.decode(np.zeros((40, 8)))  # its own batches run side by side
    assert {threads for threads, _ in ran} == {2}
    engine.close()


def test_sampling_is_the_graphs_on_specified_noise(bundle, engine):
    def run(name, rows):
        session = onnxruntime.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: rows})[0]

    rows = noise.normals(11, 0, 9, bundle.manifest.noise.dim)
    assert np.array_equal(run("decoder", run("prior", rows)), engine.sample(9, seed=11))


def test_rows_of_several_seeds_are_the_images_of_each(engine):
    seeds, rows = np.array([3, 2**53 - 1, 3]), np.array([5, 0, 2**53 - 1], np.uint64)
    alone = [engine.sample(1, seed=int(s), offset=int(r), temperature=0.5) for s, r in zip(seeds, rows, strict=True)]
    assert np.array_equal(engine.submit_rows(seeds, rows, temperature=0.5).result(), np.concatenate(alone))


def test_temperature_scales_gaussian_columns(engine):
    assert np.array_equal(engine.noise(3, seed=1, temperature=0.5), engine.noise(3, seed=1) * np.float32(0.5))
    assert not engine.noise(3, seed=1, temperature=0.0).any()


def test_verbs_agree_with_each_other(engine):
    images = engine.sample(5, seed=2)
    codes = engine.encode(images)
    assert codes.shape == (5, engine.manifest.latent.dim)
    assert codes.dtype == np.float32
    assert np.array_equal(engine.decode(codes), engine.reconstruct(images))


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("n", lambda e: e.sample(0, seed=1)),
        ("n", lambda e: e.sample(-1, seed=1)),
        ("n", lambda e: e.sample("4", seed=1)),
        ("seed", lambda e: e.sample(1, seed=2**53)),
        ("offset", lambda e: e.sample(1, seed=1, offset=-1)),
        ("temperature", lambda e: e.sample(1, seed=1, temperature=float("nan"))),
        ("temperature", lambda e: e.sample(1, seed=1, temperature=-0.1)),
        ("temperature", lambda e: e.sample(1, seed=1, temperature="hot")),
        ("temperature", lambda e: e.sample(1, seed=1, temperature=[1.0])),
        ("temperature", lambda e: e.sample(1, seed=1, temperature="20")),
        ("seed", lambda e: e.submit_rows([1, 2**53], [0, 0])),
        ("seed", lambda e: e.submit_rows([1.5], [0])),
        ("seed", lambda e: e.submit_rows([True], [0])),
        ("seed", lambda e: e.submit_rows([[1]], [0])),
        ("seed", lambda e: e.submit_rows([], [])),
        ("row", lambda e: e.submit_rows([1], [-1])),
        ("row", lambda e: e.submit_rows([1, 2], [0])),
        ("row", lambda e: e.submit_rows([1], np.array([2**63], np.uint64))),
        ("temperature", lambda e: e.submit_rows([1], [0], temperature=11)),
        ("start", lambda e: e.between([1, [2]], [0.0] * 8, 2)),
        ("end", lambda e: e.between([0.0] * 8, [0.0] * 7, 2)),
        ("latents", lambda e: e.decode([[1.0]])),
        ("latents", lambda e: e.decode([["a"] * 8])),
        ("latents", lambda e: e.decode(np.full((1, 8), np.nan))),
        ("latents", lambda e: e.decode(np.full((1, 8), 1e30))),
        ("latents", lambda e: e.decode(np.zeros((0, 8)))),
        ("noise", lambda e: e.latents(np.full((1, 8), np.inf))),
        ("images", lambda e: e.encode(np.zeros((1, 8, 8), np.uint8))),
        ("images", lambda e: e.encode(np.zeros((1, 8, 8, 1), np.float32))),
    ],
)
def test_bad_input_is_named(engine, field, call):
    with pytest.raises(InvalidInput) as raised:
        call(engine)
    assert raised.value.field == field


def test_golden_parity_holds_and_a_difference_is_seen(bundle, engine):
    golden, tolerance = bundle.golden(), bundle.manifest.tolerance
    parity.check(parity.measure(engine, golden), tolerance)
    golden["latent"] = golden["latent"] * 1.01
    measured = parity.measure(engine, golden)
    assert measured.decoder_grey_levels >= 1
    with pytest.raises(BundleError, match=r"prior\.onnx differs"):
        parity.check(measured, tolerance)
    with pytest.raises(BundleError, match="grey levels"):
        parity.check(Parity(batch_sizes=[1], prior=0.0, decoder_grey_levels=2, encoder=0.0), tolerance)
    with pytest.raises(BundleError, match=r"prior\.onnx differs"):
        parity.check(Parity(batch_sizes=[1], prior=float("nan"), decoder_grey_levels=0, encoder=0.0), tolerance)


def test_cuda_that_is_not_there_is_an_error_never_the_cpu(bundle):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        import ctypes

        try:
            ctypes.CDLL("libcuda.so.1")
            pytest.skip("this machine has a CUDA driver")
        except OSError:
            pass
    with pytest.raises(RaeServeError, match="CUDA was asked for"):
        Engine(bundle, device="cuda")


def test_auto_takes_the_cpu_where_cuda_is_there_by_its_driver_alone(bundle, engine, monkeypatch, caplog):
    if sessions.cuda_memories():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.setattr(sessions, "cuda_memories", lambda: [8 * 1024**3])
    monkeypatch.setattr(sessions, "_has_cuda_provider", lambda: True)
    auto = Engine(bundle, device="auto")
    assert auto.device == "cpu"
    assert "the CPU is used" in caplog.text
    assert np.array_equal(auto.sample(2, seed=1), engine.sample(2, seed=1))


def test_arrays_that_are_not_of_the_graphs_are_told(bundle, engine):
    golden = dict(bundle.golden())
    spoiled = golden | {"image": golden["image"].copy(), "latent": golden["latent"].copy()}
    spoiled["latent"][3] = np.nan
    assert np.isnan(parity.measure(engine, golden | {"encoded": spoiled["latent"]}).encoder)
    for wrong in ({"noise": golden["noise"]}, golden | {"noise": golden["noise"][:0]}):
        with pytest.raises(BundleError, match="golden arrays do not fit"):
            parity.measure(engine, wrong)


@pytest.mark.gpu
def test_cuda_stays_within_the_tolerance(bundle, engine):
    on_gpu = Engine(bundle, device="cuda").sample(64, seed=5).astype(int)
    assert np.abs(on_gpu - engine.sample(64, seed=5)).max() <= bundle.manifest.tolerance.grey_levels


def test_what_serves_never_imports_torch(bundle: Bundle):
    code = (
        "import sys; sys.modules.update(torch=None, training=None)\n"
        "import rae_serve.service, rae_serve.cli.main, rae_serve\n"
        f"print(rae_serve.Engine(rae_serve.Bundle.load({str(bundle.path)!r})).sample(n=4, seed=7).shape)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "(4, 8, 8, 1)"


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_noise_is_interpolated_before_the_prior_and_latents_after_it(engine, path):
    noises = engine.noise(2, seed=5)
    codes = engine.latents(noises)
    in_latent = engine.between(*codes, 7, path=path)
    in_noise = engine.between(*noises, 7, space="noise", path=path)
    for latents in (in_latent, in_noise):
        np.testing.assert_allclose(latents[[0, -1]], codes, rtol=1e-5, atol=1e-6)
    expected = interpolation.between(*codes, 7, path, engine.manifest.latent.mean)
    assert np.array_equal(in_latent, expected)
    roles = engine.manifest.noise.roles
    assert np.array_equal(in_noise, engine.latents(interpolation.between_noises(*noises, 7, path, roles)))
    shown = engine.interpolate(*noises, 7, space="noise", path=path)
    assert np.array_equal(shown, engine.decode(in_noise))


def test_interpolations_that_cannot_be(engine):
    codes = np.zeros((2, 8), np.float32)
    for field, arguments in (
        ("steps", (*codes, 0)),
        ("start", (codes[0][:3], codes[1], 2)),
        ("end", (codes[0], [[1]], 2)),
    ):
        with pytest.raises(InvalidInput) as raised:
            engine.interpolate(*arguments)
        assert raised.value.field == field


@pytest.mark.parametrize("verb", ["sample", "latents", "decode", "encode"])
def test_a_request_is_in_flight_before_its_batch_runs(bundle, graph_runs, monkeypatch, verb):
    """The worst interleaving: every batch finishes before `submit` returns."""
    submit = MicroBatcher.submit

    def slow(self, *arguments, **options):
        future = submit(self, *arguments, **options)
        future.exception(10)
        return future

    monkeypatch.setattr(MicroBatcher, "submit", slow)
    engine = Engine(bundle, device="cpu", threads=4)
    request = {
        "sample": lambda: engine.sample(3, seed=1),
        "latents": lambda: engine.latents(np.zeros((3, 8))),
        "decode": lambda: engine.decode(np.zeros((3, 8))),
        "encode": lambda: engine.encode(np.zeros((3, 8, 8, 1), np.uint8)),
    }[verb]
    request()
    assert set(graph_runs[0]) == {(4, 3)}
    assert (engine._in_flight.requests, engine._in_flight.rows) == (0, 0)
    engine.close()


def test_a_refused_request_is_not_in_flight(bundle, monkeypatch):
    engine = Engine(bundle, device="cpu", max_waiting=10)
    for batcher in (engine._generator, engine._prior, engine._decoder, engine._encoder):
        monkeypatch.setattr(batcher, "_waiting", 9)
    for request in (
        lambda: engine.submit_sample(2, seed=1),
        lambda: engine.submit_latents(np.zeros((2, 8))),
        lambda: engine.submit_decode(np.zeros((2, 8))),
        lambda: engine.submit_encode(np.zeros((2, 8, 8, 1), np.uint8)),
    ):
        with pytest.raises(Overloaded):
            request()
    assert (engine._in_flight.requests, engine._in_flight.rows) == (0, 0)
    monkeypatch.undo()
    engine.close()


def test_no_request_stays_in_flight_after_many_threads(bundle):
    engine = Engine(bundle, device="cpu", threads=2, max_batch=8)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: engine.sample(1 + i % 20, seed=1, offset=i), range(200)))
    engine.close()  # ends the threads that settle the futures
    assert (engine._in_flight.requests, engine._in_flight.rows) == (0, 0)
