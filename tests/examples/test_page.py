"""examples/web in a real browser, on a server of static files, against the HTTP API."""

from __future__ import annotations

import functools
import http.server
import io
import re
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from rae_serve import png
from rae_serve.bundle import Bundle
from rae_serve.client import Client
from rae_serve.engine import Engine
from rae_serve.preprocessing import read_picture
from tests.examples.conftest import BUNDLES
from tests.serving import ROOT
from tests.waiting import wait_until

DIGITS = ROOT / "tests" / "data" / "digits"  # has no attributes


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture(scope="module")
def static() -> Iterator[str]:
    """The address of a server of this repository's files."""
    handler = functools.partial(_Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, static, node):
    """A page on which no script may fail, and which talks to the server of files alone."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(40_000)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: r.url.startswith((static, "blob:", "data:")) or troubles.append(r.url))
    yield page
    context.close()
    assert troubles == []


def address(static: str, name: str) -> str:
    return f"{static}/examples/web/?bundle=/{(BUNDLES | {'digits': DIGITS})[name].relative_to(ROOT)}"


def opened(page, static: str, name: str):
    page.goto(address(static, name))
    page.get_by_role("button", name="Load the model").click()
    page.get_by_label("Step 9 of 9").wait_for()
    return page


def shown(page, name: str, channels: int) -> np.ndarray:
    """The pixels [H, W, C] of the canvas of this name."""
    return pixels(page.get_by_role("img", name=name, exact=True), channels)


def pixels(canvas, channels: int) -> np.ndarray:
    values = canvas.evaluate(
        "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(values[2:], np.uint8).reshape(*values[:2], 4)[..., :channels]


def near(actual: np.ndarray, wanted: np.ndarray, example) -> bool:
    return bool(np.abs(actual.astype(int) - wanted).max() <= example.manifest.tolerance.grey_levels)


def test_it_makes_the_images_of_the_api(page, static, example, client, photograph):
    channels = example.manifest.image.shape[2]
    opened(page, static, example.name)
    sixteen = client.sample(16, seed=7)
    for row in (1, 9, 15):
        assert near(shown(page, f"Seed 7, row {row}", channels), sixteen[row], example)
    walk = client.interpolate((7, 0), (7, 1), 9, space="noise", path="spherical")
    assert all(near(shown(page, f"Step {i + 1} of 9", channels), walk[i], example) for i in range(9))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.locator("#file").set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": photograph})
    page.get_by_role("heading", name="mine.png").wait_for()
    assert np.array_equal(shown(page, "The picture, prepared", channels), client.prepare([photograph])[0])
    (again,) = client.reconstruct([photograph])
    assert near(shown(page, "The picture, reconstructed", channels), again, example)
    assert settles(page, again, example)

    name = next(iter(example.manifest.directions()))
    page.get_by_label("Attribute").select_option(name)
    page.get_by_label("Strength").fill("1.5")
    (edited,) = client.edit(photograph, name, [1.5])
    assert settles(page, edited, example)


def settles(page, wanted: np.ndarray, example) -> bool:
    """Whether the chosen image is this one, at last."""
    canvas, channels = page.locator("#image"), wanted.shape[2]
    return wait_until(
        lambda: near(pixels(canvas, channels), wanted, example), 20, "the chosen image is this one", pause=0.1
    )


def test_other_seeds_walks_and_sliders(page, static, api):
    waves = Bundle.load(BUNDLES["waves"])
    opened(page, static, "waves")
    with Client(api, model="waves") as client:
        sample = page.locator("#sample")
        sample.get_by_label("Seed").fill("11")
        sample.get_by_label("Temperature").fill("0.5")
        sample.get_by_role("button").click()
        page.get_by_title("Seed 11, row 3").click()
        page.get_by_role("heading", name="Seed 11, row 3").wait_for()
        wanted = client.sample(1, seed=11, offset=3, temperature=0.5)[0]
        assert settles(page, wanted, waves)

        widest = int(np.argmax(waves.manifest.latent.std))
        highest = waves.manifest.latent.quantiles[-1][widest]
        slider = page.get_by_label(f"Dimension {widest}", exact=True)
        slider.fill(str(highest))
        engine = Engine(waves, device="cpu")
        (latent,) = engine.latents(engine.noise(1, seed=11, offset=3, temperature=0.5))
        latent[widest] = highest
        assert settles(page, client.decode([latent])[0], waves)

        walk = page.locator("#walk")
        walk.get_by_label("To seed").fill("2")
        walk.get_by_label("Steps").fill("4")
        walk.get_by_label("Between").select_option("latent")
        walk.get_by_label("Along").select_option("linear")
        walk.get_by_role("button").click()
        page.get_by_label("Step 4 of 4").wait_for()
        images = client.interpolate((7, 0), (2, 1), 4, space="latent", path="linear")
        assert all(near(shown(page, f"Step {i + 1} of 4", 3), images[i], waves) for i in range(4))


def test_a_picture_can_be_dropped_and_a_bundle_may_have_no_attributes(page, static):
    opened(page, static, "digits")
    assert page.get_by_label("Attribute").is_hidden()
    file = png.encode(np.full((9, 9), 77, np.uint8))
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            const event = new DragEvent("drop", { dataTransfer: data, cancelable: true });
            document.getElementById("drop").dispatchEvent(event);
        }""",
        list(file),
    )
    page.get_by_role("heading", name="dropped.png").wait_for()
    assert (shown(page, "The picture, prepared", 1) == 77).all()


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP"])
def test_a_browser_reads_other_exact_formats_alike(page, static, photograph, kind):
    file = io.BytesIO()
    with Image.open(io.BytesIO(photograph)) as picture:
        picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    opened(page, static, "waves")
    name = f"mine.{kind.lower()}"
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/*", "buffer": file.getvalue()})
    page.get_by_role("heading", name=name).wait_for()
    wanted = Bundle.load(BUNDLES["waves"]).manifest.image(read_picture(file.getvalue()))
    assert np.array_equal(shown(page, "The picture, prepared", 3), wanted)


def test_it_says_the_size_of_the_download_and_shows_progress(page, static):
    page.goto(address(static, "waves"))
    runtime = (ROOT / "examples/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm").stat().st_size
    files = {name: (BUNDLES["waves"] / f"{name}.onnx").stat().st_size for name in ("prior", "decoder", "encoder")}
    first = f"{(runtime + files['prior'] + files['decoder']) / 1e6:.1f} MB"
    page.get_by_role("button", name=f"Load the model ({first})").wait_for()
    page.get_by_text(f"{files['encoder'] / 1e6:.1f} MB more for pictures of your own").wait_for()
    held = []
    page.route("**/decoder.onnx", lambda route: held.append(route))
    with page.expect_request("**/decoder.onnx"):
        page.get_by_role("button", name="Load the model").click()
    page.get_by_text(f"of {first}").wait_for()
    progress = page.get_by_role("progressbar")
    page.wait_for_function("document.querySelector('progress').value > 0.5")
    assert progress.evaluate("bar => bar.value") < 1
    held[0].continue_()
    page.get_by_label("Step 9 of 9").wait_for()
    assert progress.is_hidden()


def test_it_shows_errors(page, static, tmp_path):
    page.goto(f"{static}/examples/web/?bundle=/nowhere")
    alert = page.get_by_role("alert")
    page.get_by_text("/nowhere/manifest.json cannot be read: HTTP status 404").wait_for()
    page.route("**/decoder.onnx", lambda route: route.fulfill(body=b"no graph"))
    page.goto(address(static, "waves"))
    page.get_by_role("button", name="Load the model").click()
    page.get_by_text("decoder.onnx is damaged").wait_for()
    page.unroute("**/decoder.onnx")
    page.get_by_role("button", name="Load the model").click()
    page.get_by_label("Step 9 of 9").wait_for()
    assert alert.is_hidden()
    text = {"name": "text.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    page.locator("#file").set_input_files(text)
    page.get_by_text("text.txt is no picture that this browser can read").wait_for()
    page.route("**/ort.wasm.min.mjs", lambda route: route.abort())
    page.goto(address(static, "waves"))
    page.get_by_text("The page's code cannot be loaded: run npm install").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_system_in_light_and_dark(browser, static, node, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(address(static, "waves"))
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    paper = [int(value) for value in re.findall(r"\d+", colour)]
    context.close()
    assert (max(paper) < 60) == (scheme == "dark")
