"""The page at /ui in a real browser, against the service as users run it."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from rae_serve import images
from rae_serve.bundle import Bundle, annotate
from rae_serve.manifest import Attribute
from rae_serve.preprocessing import read_picture
from tests.serving import KEY, serving

UI = Path(__file__).parents[3] / "rae_serve" / "server" / "ui"


@pytest.fixture
def page(browser, server):
    """A page on which nothing may fail, and which talks to the service alone."""
    context = browser.new_context(
        viewport={"width": 1100, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    # The browser's own line on an answer of 4xx is no trouble of the page's.
    page.on("console", lambda m: m.type == "error" and "status of 4" not in m.text and troubles.append(m.text))
    page.on("request", lambda r: r.url.startswith((server, "blob:", "data:")) or troubles.append(r.url))
    yield page
    context.close()
    assert troubles == []


def clipboard(page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def run(curl: str, folder: Path) -> np.ndarray:
    """The picture that a copied command makes."""
    command = shlex.split(curl)
    subprocess.run([*command, "--silent", "--fail"], cwd=folder, check=True, timeout=30)
    with Image.open(folder / command[command.index("-o") + 1]) as picture:
        return np.asarray(picture)


def loaded(page, name: str) -> None:
    page.wait_for_function(
        "name => { const i = document.querySelector(`img[alt='${name}']`); return i && i.naturalWidth }", arg=name
    )


def shown(page, name: str) -> np.ndarray:
    """The pixels of the picture of this name, as they came."""
    loaded(page, name)
    fetched = """async name => {
        const answer = await fetch(document.querySelector(`img[alt='${name}']`).src);
        return [...new Uint8Array(await answer.arrayBuffer())];
    }"""
    data = page.evaluate(fetched, name)
    return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("L"))


def test_the_page_is_served_whole_and_the_root_leads_to_it(server):
    answer = httpx.get(server, follow_redirects=True)
    assert answer.status_code == 200
    assert "<title>rae-serve</title>" in answer.text
    for file in UI.iterdir():
        assert httpx.get(f"{server}/ui/{file.name}").content == file.read_bytes()
        assert "http://" not in file.read_text()
        assert "https://" not in file.read_text()
    missing = httpx.get(f"{server}/ui/nothing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_the_gallery_shows_seeds_and_its_pictures_have_addresses(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 47")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Show").click()
    assert np.array_equal(shown(page, "Seed 11, row 5"), engine.sample(1, seed=11, offset=5)[0, ..., 0])
    page.get_by_title("Seed 11, row 5").click()
    page.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), engine.sample(1, seed=11, offset=5)[0, ..., 0])
    page.get_by_role("button", name="Copy permalink").click()
    permalink = clipboard(page)
    page.goto("about:blank")
    page.goto(permalink)
    page.get_by_role("dialog", name="Seed 11, row 5").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_the_gallery_goes_by_keyboard(page, server):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 0")
    page.get_by_title("Seed 7, row 0").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Seed 7, row 1").wait_for()


def test_the_explorer_has_a_live_slider_for_each_dimension(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#explore?point=3:2")
    before = shown(page, "The latent, decoded")
    (code,) = engine.latents(engine.noise(1, seed=3, offset=2))
    sliders = page.get_by_role("slider")
    assert sliders.count() == engine.manifest.latent.dim
    assert np.array_equal(before, engine.decode(code.round(4)[None])[0, ..., 0])
    source = page.get_by_alt_text("The latent, decoded").get_attribute("src")
    sliders.first.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight" if code[0] < 0 else "ArrowLeft")
    page.wait_for_function("src => document.querySelector('figure img').src !== src", arg=source)
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), shown(page, "The latent, decoded"))


def test_an_interpolation_is_a_strip_and_an_animation(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#interpolate?start=1:0&end=2:3")
    strip = shown(page, "From start to end")
    ends = np.concatenate([engine.noise(1, seed=1), engine.noise(1, seed=2, offset=3)])
    expected = engine.interpolate(*ends, 10, space="noise", path="spherical")
    assert np.array_equal(strip, images.grid(expected, columns=10)[..., 0])
    loaded(page, "From start to end, and again")
    for number, name in enumerate(("animation.webp", "strip.png")):
        page.get_by_role("button", name="Copy curl").nth(number).click()
        run(clipboard(page), tmp_path)
        assert (tmp_path / name).stat().st_size > 0
    with Image.open(tmp_path / "animation.webp") as animation:
        assert animation.n_frames > 1


def test_a_picture_of_ones_own_is_reconstructed(page, server, engine, bundle, tmp_path):
    picture = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(picture)
    page.goto(f"{server}/ui/#edit")
    loaded(page, "Edited")
    page.get_by_label("A picture file").set_input_files(picture)
    expected = engine.reconstruct(bundle.manifest.image(read_picture(picture.read_bytes()))[None])[0, ..., 0]
    assert np.array_equal(shown(page, "Reconstructed"), expected)
    figure = page.locator("figure", has=page.get_by_alt_text("Reconstructed"))
    figure.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), expected)


@pytest.fixture
def server_of_attributes(bundle, tmp_path):
    """The address of a service of a bundle with attributes, one of which has a name at either end."""
    copy = Bundle.load(shutil.copytree(bundle.path, tmp_path / "digits"))
    young = Attribute(direction=[0.5] * 8, source="by hand", opposite="Old", images=(7, 9), auc=0.75)
    annotate(copy, attributes={"Smile": Attribute(direction=[1.0] * 8, source="by hand"), "Young": young})
    with serving(copy.path, tmp_path / "serve.log") as (address, _):
        yield address


def test_a_slider_of_an_attribute_has_the_names_of_its_ends(browser, server_of_attributes, engine):
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{server_of_attributes}/ui/#edit?point=3:2")
    loaded(page, "Edited")
    assert page.locator(".sliders label").all_inner_texts() == ["Smile\n0.00", "Old\n0.00\nYoung"]
    old, young = (page.locator(".pair").get_by_text(name).bounding_box() for name in ("Old", "Young"))
    assert old["x"] < young["x"]
    assert old["y"] == young["y"]
    source = page.get_by_alt_text("Edited").get_attribute("src")
    page.get_by_role("slider", name="Old to Young").focus()
    for _ in range(10):  # to -1, the name of the left end
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("src => document.querySelector('img[alt=Edited]').src !== src", arg=source)
    page.wait_for_load_state("networkidle")
    (code,) = engine.latents(engine.noise(1, seed=3, offset=2))
    expected = engine.decode((code - 0.5).round(4)[None])[0, ..., 0].astype(int)
    assert np.abs(shown(page, "Edited") - expected).max() <= 1  # the page adds in float64
    page.close()


def test_the_page_asks_for_a_key_once(browser, locked_server, engine, tmp_path, monkeypatch):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{locked_server}/ui/#gallery?seed=11")
    for key, question in (("wrong", "asks for a key"), (KEY, "does not know this key")):
        page.get_by_role("dialog", name="Key").get_by_text(question).wait_for()
        page.get_by_label("Key").last.fill(key)
        page.keyboard.press("Enter")
    assert np.array_equal(shown(page, "Seed 11, row 5"), engine.sample(1, seed=11, offset=5)[0, ..., 0])
    page.get_by_title("Seed 11, row 5").click()
    page.get_by_role("button", name="Copy curl").click()
    assert KEY not in clipboard(page)
    monkeypatch.setenv("RAE_SERVE_KEY", KEY)
    command = ["bash", "-c", f"{clipboard(page)} --silent --fail"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "image.png")), shown(page, "Seed 11, row 5"))
    page.goto(f"{locked_server}/ui/#explore")  # and is not asked again
    loaded(page, "The latent, decoded")
    context.close()


@pytest.mark.parametrize("view", ["gallery", "explore", "interpolate", "edit"])
def test_nothing_is_wider_than_a_phone(page, server, view):
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(f"{server}/ui/#{view}")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_goes_wrong_is_said(page, server):
    page.goto(f"{server}/ui/#edit")
    loaded(page, "Edited")
    page.get_by_label("A picture file").set_input_files(
        {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("status").get_by_text("not a readable picture").wait_for()
