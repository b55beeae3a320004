"""The page at /ui in a real browser, against the service as users run it."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import parse_qs

import httpx2 as httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Error, Route, expect
from sklearn.datasets import load_digits

from rae_serve import images, projection
from rae_serve.bundle import Bundle, annotate
from rae_serve.engine import Engine
from rae_serve.manifest import Attribute, Evaluation, Finding, Picture
from rae_serve.preprocessing import read_picture
from tests.serving import KEY, ROOT, serving
from tests.waiting import wait_until

UI = Path(__file__).parents[3] / "rae_serve" / "server" / "ui"


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    """A folder of bundles: digits, with attributes; mapped, with a map; strokes, of another shape, without a map."""
    folder = tmp_path_factory.mktemp("bundles")
    digits = Bundle.load(shutil.copytree(bundle.path, folder / "digits"))
    young = Attribute(direction=[0.5] * 8, source="by hand", opposite="Old", images=(7, 9), auc=0.75)
    annotate(digits, attributes={"Smile": Attribute(direction=[1.0] * 8, source="by hand"), "Young": young})
    engine = Engine(Bundle.load(shutil.copytree(bundle.path, folder / "mapped")), device="cpu")
    labelled = load_digits()
    codes = engine.encode(np.rint(labelled.images * (255 / 16)).astype(np.uint8)[..., None]).astype(float)
    names = [str(k) for k in range(10)]
    projection.annotate(engine, codes, names, labelled.target[:, None] == np.arange(10))
    engine.close()
    strokes = Bundle.load(shutil.copytree(ROOT / "exported" / "flexae-mnist-small", folder / "strokes"))
    latent = strokes.manifest.latent.model_copy(update={"principal": None, "prior_quantiles": None})
    annotate(strokes, dropped=[str(strokes.manifest.map)], map=None, latent=latent)
    return folder


@pytest.fixture(scope="module")
def mapped(folder) -> Bundle:
    """The bundle with principal directions and a map."""
    return Bundle.load(folder / "mapped")


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """The address of a service of the bundles, which sees at once what changes in their folder."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(folder, log, reload_seconds=0.1) as (address, _):
        yield address


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
    # The browser's own line on a response with an error is no trouble of the page's.
    page.on(
        "console", lambda m: m.type == "error" and "Failed to load resource" not in m.text and troubles.append(m.text)
    )
    page.on("request", lambda r: r.url.startswith((server, "blob:", "data:")) or troubles.append(r.url))
    yield page
    context.close()
    assert troubles == []


class Held:
    """The requests of a page to an address, which get no response until they are let go."""

    def __init__(self, page, pattern: str | re.Pattern[str]) -> None:
        self._page = page
        self._routes: list[Route] = []
        self._open = False
        page.route(pattern, self._take)

    def wait(self) -> None:
        wait_until(lambda: self._page.wait_for_timeout(10) or self._routes, 20, "the page has asked")

    def let_go(self) -> None:
        """Let the held requests go on, and those that come later too."""
        self._open = True
        for route in self._routes:
            try:
                route.continue_()
            except Error:  # the page has given the request up
                continue

    def _take(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self._routes.append(route)


def fails_once(page, pattern: str, status: int = 500, **headers: str) -> None:
    """Let the first request of a page to an address fail."""
    failed: list[Route] = []

    def answer(route: Route) -> None:
        if failed:
            route.continue_()
            return
        failed.append(route)
        body = json.dumps({"detail": "the graph is tired"})
        route.fulfill(status=status, headers=headers, content_type="application/problem+json", body=body)

    page.route(pattern, answer)


def state(page) -> dict[str, str]:
    """The state in the address of a page, with the view's name."""
    view, query = page.evaluate("location.hash").removeprefix("#").split("?")
    return {"view": view} | {key: " ".join(values) for key, values in parse_qs(query).items()}


def until_state(page, **wanted: str) -> None:
    """Wait until the address has these values."""
    wait_until(lambda: wanted.items() <= state(page).items(), 20, f"the state has {wanted}")


def ask_again(page) -> None:
    """Let the page ask for the models, as it does when its window is looked at again."""
    page.evaluate("dispatchEvent(new Event('focus'))")


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


def figure(page, name: str):
    return page.locator("figure", has=page.get_by_alt_text(name, exact=True))


def code_of(engine, seed: int, row: int, temperature: float = 1.0) -> np.ndarray:
    return engine.latents(engine.noise(1, seed=seed, offset=row, temperature=temperature))[0]


def decoded(engine, latent: np.ndarray) -> np.ndarray:
    return engine.decode([latent])[0, ..., 0].astype(int)


def until_shown(page, name: str, expected: np.ndarray) -> None:
    """Wait until the picture of this name has these pixels, but for roundings of the latent."""

    def is_shown() -> bool:
        pixels = shown(page, name).astype(int)
        return pixels.shape == expected.shape and bool(np.abs(pixels - expected).max() <= 1)

    wait_until(is_shown, 20, f"{name} shows the expected picture")


def test_the_page_is_served_whole_and_the_root_leads_to_it(server):
    answer = httpx.get(server, follow_redirects=True)
    assert answer.status_code == 200
    assert "<title>rae-serve</title>" in answer.text
    for file in UI.iterdir():
        assert httpx.get(f"{server}/ui/{file.name}").content == file.read_bytes()
        assert not re.search(b"https?://", file.read_bytes())
    missing = httpx.get(f"{server}/ui/nothing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_the_description_of_the_api_needs_no_other_server(page, server):
    page.goto(f"{server}/docs")
    page.get_by_text("/v1/interpolate").first.wait_for()
    assert page.title() == "rae-serve: HTTP API"


# Gallery


def test_the_gallery_shows_seeds_and_its_pictures_have_addresses(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 47")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Show").click()
    expected = engine.sample(1, seed=11, offset=5)[0, ..., 0]
    assert np.array_equal(shown(page, "Seed 11, row 5"), expected)
    page.get_by_title("Seed 11, row 5", exact=True).click()
    dialog = page.get_by_role("dialog", name="Seed 11, row 5")
    dialog.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), expected)


def test_the_gallery_and_its_dialog_go_by_keyboard(page, server):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 0")
    page.get_by_title("Seed 7, row 0", exact=True).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("dialog", name="Seed 7, row 1").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("dialog", name="Seed 7, row 2").wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_title("Seed 7, row 1", exact=True)).to_be_focused()


def test_back_closes_the_dialog_and_a_link_keeps_page_and_row(page, server):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 0")
    page.get_by_role("button", name="More").click()
    loaded(page, "Seed 7, row 52")
    page.get_by_title("Seed 7, row 52").click()
    dialog = page.get_by_role("dialog", name="Seed 7, row 52")
    dialog.get_by_role("button", name="Copy link").click()
    link = clipboard(page)
    page.go_back()
    dialog.wait_for(state="hidden")
    assert state(page)["from"] == "48"
    page.get_by_title("Seed 7, row 52").click()
    dialog.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.go_back()  # once: a closed dialog leaves nothing behind in the history
    wait_until(lambda: "from" not in state(page), 20, "the first page is back")

    page.goto("about:blank")
    page.goto(link)
    dialog.wait_for()
    loaded(page, "Seed 7, row 95")
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")
    page.reload()
    loaded(page, "Seed 7, row 95")
    assert not dialog.is_visible()


def test_the_temperature_of_the_gallery_goes_with_its_pictures(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#gallery?seed=3")
    loaded(page, "Seed 3, row 0")
    page.get_by_role("slider", name="Temperature").press("ArrowLeft")
    until_state(page, temperature="0.95")
    expected = engine.sample(1, seed=3, offset=2, temperature=0.95)[0, ..., 0]
    until_shown(page, "Seed 3, row 2", expected)
    page.get_by_title("Seed 3, row 2", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), expected)
    dialog.get_by_role("button", name="Explore").click()
    until_shown(page, "The latent, decoded", expected)


def test_two_models_stand_side_by_side_on_one_seed(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits&seed=3")
    page.get_by_label("Beside").select_option("strokes")
    for name in ("digits", "strokes"):
        tiles = page.get_by_role("region", name=name).get_by_role("button")
        tiles.get_by_alt_text("Seed 3, row 23").wait_for()
        expect(tiles).to_have_count(24)
    page.get_by_role("region", name="strokes").get_by_title("Seed 3, row 4", exact=True).click()
    for name in ("digits", "strokes"):
        page.get_by_role("dialog").get_by_alt_text(f"Seed 3, row 4, {name}").wait_for()
    page.reload()
    page.get_by_role("dialog").get_by_alt_text("Seed 3, row 4, strokes").wait_for()


@pytest.mark.parametrize("width", [360, 390, 700, 800, 1000, 1280, 1920])
def test_no_row_of_the_gallery_is_ragged_and_drawings_stay_sharp(page, server, width):
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 47")
    tiles = page.locator(".tiles button")
    boxes = [tiles.nth(i).bounding_box() for i in (0, 47)]
    assert boxes[1]["x"] + boxes[1]["width"] == pytest.approx(
        max(tile["x"] + tile["width"] for tile in (tiles.nth(i).bounding_box() for i in range(16)))
    )
    assert boxes[0]["width"] % 8 == 0  # a picture has 8 pixels a side
    assert page.evaluate("getComputedStyle(document.querySelector('.tiles img')).imageRendering") == "pixelated"


def test_photographs_are_smooth_unless_the_user_wants_their_pixels(page, server):
    def of_colours(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        document["manifest"]["image"]["mode"] = "RGB"
        route.fulfill(response=response, json=document)

    def rendering() -> str:
        return page.evaluate("getComputedStyle(document.querySelector('.tiles img')).imageRendering")

    page.route("**/v1/models/digits", of_colours)
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 0")
    assert rendering() == "auto"
    page.get_by_label("Pixels").select_option("sharp")
    assert rendering() == "pixelated"
    assert state(page)["pixels"] == "sharp"


# Explore


def test_the_explorer_has_live_sliders_that_can_be_taken_back(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#explore?model=digits&seed=3&row=2")
    code = code_of(engine, 3, 2)
    assert np.array_equal(shown(page, "The latent, decoded"), engine.decode(code[None])[0, ..., 0])
    assert page.get_by_role("slider").count() == engine.manifest.latent.dim
    slider = page.get_by_role("slider", name="Dimension 3")
    source = page.get_by_alt_text("The latent, decoded").get_attribute("src")
    for _ in range(8):
        slider.press("ArrowRight" if code[3] < 0 else "ArrowLeft")
    page.wait_for_function("src => document.querySelector('figure img').src !== src", arg=source)
    wait_until(lambda: "move" in state(page), 20, "the move is in the address")
    moved = code.copy()
    moved[3] += float(state(page)["move"].removeprefix("3:"))
    expected = engine.decode(moved[None])[0, ..., 0].astype(int)
    until_shown(page, "The latent, decoded", expected)
    page.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), shown(page, "The latent, decoded"))
    page.reload()
    until_shown(page, "The latent, decoded", expected)
    page.get_by_role("button", name="Reset Dimension 3").click()
    until_shown(page, "The latent, decoded", engine.decode(code[None])[0, ..., 0])
    wait_until(lambda: "move" not in state(page), 20, "the move is gone from the address")


def test_back_takes_back_the_last_slider(page, server):
    page.goto(f"{server}/ui/#explore?model=digits")
    loaded(page, "The latent, decoded")
    for dimension in (1, 2):
        page.get_by_role("slider", name=f"Dimension {dimension}").press("ArrowRight")
        wait_until(lambda of=f"{dimension}:": of in state(page).get("move", ""), 20, "the move is in the address")
    page.go_back()
    assert state(page)["move"].startswith("1:")
    assert "2:" not in state(page)["move"]


def test_the_explorer_folds_away_all_but_the_widest_dimensions(page, server, folder):
    page.goto(f"{server}/ui/#explore?model=strokes")
    loaded(page, "The latent, decoded")
    latent = Bundle.load(folder / "strokes").manifest.latent
    widest = np.argsort(-np.array(latent.std))[:8]
    names = [f"Dimension {latent.active[i]}" for i in widest]
    sliders = page.get_by_role("slider")
    assert [sliders.nth(i).get_attribute("aria-label") for i in range(sliders.count())] == names
    page.get_by_text("The 8 narrower dimensions").click()
    expect(sliders).to_have_count(16)
    page.reload()
    expect(sliders).to_have_count(16)


def test_the_explorer_moves_along_the_principal_directions(page, server, engine, mapped):
    page.goto(f"{server}/ui/#explore?model=mapped&seed=3&row=2")
    loaded(page, "The latent, decoded")
    latent = mapped.manifest.latent
    sliders = page.get_by_role("slider")
    share = round(100 * latent.principal.shares[0])
    assert sliders.first.get_attribute("aria-label") == f"Direction 1 ({share} %)"
    expect(sliders).to_have_count(8)
    for _ in range(6):
        page.get_by_role("slider", name="Direction 2").press("ArrowRight")
    wait_until(lambda: "along" in state(page), 20, "the move is in the address")
    distance = float(state(page)["along"].removeprefix("2:"))
    code = code_of(engine, 3, 2)
    until_shown(
        page, "The latent, decoded", decoded(engine, code + distance * np.array(latent.principal.directions[1]))
    )
    page.reload()
    page.get_by_text("The 8 dimensions one by one").click()
    expect(sliders).to_have_count(16)
    page.get_by_role("slider", name="Direction 1").hover()
    page.get_by_text(f"Direction 1 ({share} %), lowest to highest").wait_for()
    page.get_by_role("button", name="Reset Direction 2").click()
    until_shown(page, "The latent, decoded", decoded(engine, code))
    wait_until(lambda: "along" not in state(page), 20, "the move is gone from the address")


def test_a_slider_shows_what_it_does_when_it_is_pointed_at(page, server):
    page.goto(f"{server}/ui/#explore?model=digits")
    loaded(page, "The latent, decoded")
    page.get_by_role("slider", name="Dimension 4").hover()
    page.get_by_text("Dimension 4, lowest to highest").wait_for()
    assert page.locator(".peek img").count() == 5


def test_a_random_picture_comes_from_the_prior(page, server, engine):
    page.goto(f"{server}/ui/#explore?model=digits")
    loaded(page, "The latent, decoded")
    page.get_by_role("button", name="Random").click()
    wait_until(lambda: "seed" in state(page), 20, "a seed is drawn")
    seed = int(state(page)["seed"])
    until_shown(page, "The latent, decoded", engine.sample(1, seed=seed)[0, ..., 0])


# Map


def plane_latent(page, mapped, across: float, down: float) -> np.ndarray:
    """The latent at a place of the map: parts of its width and height."""
    left, top, width, height = map(float, page.locator(".map svg").first.get_attribute("viewBox").split())
    latent = mapped.manifest.latent
    place = np.array([left + across * width, -(top + down * height)])
    return latent.mean + place @ np.array(latent.principal.directions[:2])


def on_map(page, across: float, down: float) -> dict[str, float]:
    """A place of the map in pixels of its border box, whose border is one pixel wide."""
    width, height = page.locator(".map").evaluate("e => [e.clientWidth, e.clientHeight]")
    return {"x": 1 + round(across * width), "y": 1 + round(down * height)}


def test_a_place_on_the_map_is_seen_taken_and_left_by_an_interpolation(page, server, engine, mapped):
    page.goto(f"{server}/ui/#map?model=mapped")
    loaded(page, "The latent, decoded")
    page.locator(".map path").first.wait_for(state="attached")
    plane, width = page.locator(".map"), page.locator(".map").evaluate("e => e.clientWidth")
    first, last = (round(part * width) / width for part in (0.25, 0.75))
    plane.hover(position=on_map(page, first, first))
    seen = decoded(engine, plane_latent(page, mapped, first, first))
    until_shown(page, "The latent, decoded", seen)
    assert "latent" not in state(page)
    plane.click(position=on_map(page, first, first))
    wait_until(lambda: "latent" in state(page), 20, "the point is taken")
    page.mouse.move(0, 0)
    until_shown(page, "The latent, decoded", seen)
    end = decoded(engine, plane_latent(page, mapped, last, first))
    plane.drag_to(plane, source_position=on_map(page, first, first), target_position=on_map(page, last, first))
    until_state(page, view="interpolate", path="linear")
    until_shown(page, "Step 1 of 10", seen)
    until_shown(page, "Step 10 of 10", end)
    page.go_back()
    until_shown(page, "The latent, decoded", seen)


def test_the_map_goes_by_keyboard(page, server, engine):
    page.goto(f"{server}/ui/#map?model=mapped&seed=3")
    until_shown(page, "The latent, decoded", decoded(engine, code_of(engine, 3, 0)))
    page.locator(".map path").first.wait_for(state="attached")
    mark = page.locator(".map i")
    before = mark.bounding_box()
    page.get_by_role("application").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    wait_until(lambda: "latent" in state(page), 20, "the point is moved")
    after = mark.bounding_box()
    assert after["x"] - before["x"] == pytest.approx(2 * (before["y"] - after["y"]), abs=0.5)
    assert after["x"] > before["x"]


def test_the_map_shows_labels_and_layers(page, server):
    page.goto(f"{server}/ui/#map?model=mapped")
    names = page.locator(".map b")
    expect(names).to_have_text([str(k) for k in range(10)])
    page.get_by_label("Label").select_option("3")
    expect(names).to_have_text(["3"])
    page.get_by_label("Show").select_option("prior")
    expect(names).to_have_count(0)
    page.get_by_label("Show").select_option("pictures")
    expect(page.locator(".map img")).to_have_count(192)
    page.reload()
    expect(page.locator(".map img")).to_have_count(192)
    assert {"label": "3", "layer": "pictures"}.items() <= state(page).items()


def test_without_a_map_the_page_says_how_to_get_one(page, server):
    page.goto(f"{server}/ui/#map?model=strokes")
    page.get_by_role("button", name="Copy", exact=True).click()
    assert clipboard(page) == "rae-serve attributes exported/strokes --data LABELLED_PICTURES"


# Interpolate


def milliseconds(path: Path) -> int:
    """How long an animation takes. Equal images in a row may be one frame of the file."""
    total = 0
    with Image.open(path) as animation:
        for frame in range(animation.n_frames):
            animation.seek(frame)
            animation.load()
            total += int(animation.info["duration"])
    return total


def test_an_interpolation_is_a_strip_and_an_animation(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#interpolate?model=digits&start=1:0&end=2:3")
    ends = np.concatenate([engine.noise(1, seed=1), engine.noise(1, seed=2, offset=3)])
    expected = engine.interpolate(*ends, 10, space="noise", path="spherical")
    for i, image in enumerate(expected):
        assert np.array_equal(shown(page, f"Step {i + 1} of 10"), image[..., 0])
    strip = page.locator("figure", has=page.locator(".strip"))
    strip.get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), tmp_path), images.grid(expected, columns=10)[..., 0])
    page.locator(".player").get_by_role("button", name="Copy curl").click()
    run(clipboard(page), tmp_path)
    assert milliseconds(tmp_path / "animation.webp") == 98 * 40  # 50 images there and 48 back, 25 a second
    page.get_by_title("Step 4 of 10").click()
    until_shown(page, "The latent, decoded", expected[3, ..., 0])


@pytest.mark.parametrize("width", [390, 1280])
def test_the_strip_shows_its_last_picture(page, server, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{server}/ui/#interpolate?model=strokes&steps=24")
    loaded(page, "Step 24 of 24")
    box = page.get_by_title("Step 24 of 24").bounding_box()
    assert box["x"] + box["width"] <= width


def test_the_animation_can_be_stopped_and_waits_where_motion_is_not_wanted(page, server):
    frame = "document.querySelector('canvas').dataset.frame"
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{server}/ui/#interpolate?model=digits")
    loaded(page, "Step 10 of 10")
    page.wait_for_function(f"{frame} === '0'")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"{frame} > 3")
    page.get_by_role("button", name="Pause").click()
    before = page.evaluate(frame)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(150)  # several images' time
    assert page.evaluate(frame) == before


def test_an_interpolation_takes_moved_latents_and_says_a_wrong_number_of_steps(page, server, engine):
    page.goto(f"{server}/ui/#explore?model=digits&seed=3&move=1:2")
    loaded(page, "The latent, decoded")
    page.get_by_role("button", name="Interpolate to").click()
    moved = code_of(engine, 3, 0)
    moved[1] += 2
    until_shown(page, "End", engine.decode(moved[None])[0, ..., 0].astype(int))
    assert page.get_by_label("Space").is_disabled()
    page.get_by_label("Steps").fill("500")
    page.keyboard.press("Tab")
    assert "steps" not in state(page)


def test_a_picture_of_ones_own_is_an_end_of_an_interpolation(page, server, engine, bundle, wide_picture):
    expected = reconstructed(engine, bundle, wide_picture)
    page.goto(f"{server}/ui/#interpolate?model=digits")
    loaded(page, "Step 10 of 10")
    page.get_by_label("End: your picture", exact=True).set_input_files(wide_picture)
    until_shown(page, "End", expected)
    until_shown(page, "Step 10 of 10", expected)
    page.reload()
    until_shown(page, "Step 10 of 10", expected)
    page.get_by_label("Start: your picture", exact=True).set_input_files(
        {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("alert").get_by_text("“text.png” cannot be used: it is not a readable picture").wait_for()


# Edit


def test_a_slider_of_an_attribute_has_the_names_of_its_ends(page, server, engine):
    page.goto(f"{server}/ui/#edit?model=digits&seed=3&row=2")
    loaded(page, "Edited")
    assert page.locator(".slider").all_inner_texts() == ["Smile\n0.00", "Old\n0.00\nYoung"]
    old, young = (page.locator(".pair").get_by_text(name).bounding_box() for name in ("Old", "Young"))
    assert old["x"] < young["x"]
    assert old["y"] == young["y"]
    slider = page.get_by_role("slider", name="Old to Young")
    for _ in range(10):  # to -1, the name of the left end
        slider.press("ArrowLeft")
    expected = engine.decode((code_of(engine, 3, 2) - 0.5)[None])[0, ..., 0].astype(int)
    until_shown(page, "Edited", expected)
    until_state(page, edit="Young:-1")
    page.get_by_role("link", name="Explore").click()  # the edit is part of the point
    until_shown(page, "The latent, decoded", expected)


def test_a_slider_is_filled_from_its_centre(page, server):
    page.goto(f"{server}/ui/#edit?model=digits&edit=Smile:-1")
    loaded(page, "Edited")
    filled = "e => ['--from', '--to'].map(name => Number(getComputedStyle(e).getPropertyValue(name)))"
    assert page.get_by_role("slider", name="Smile").evaluate(filled) == [0.25, 0.5]
    assert page.get_by_role("slider", name="Old to Young").evaluate(filled) == [0.5, 0.5]


@pytest.fixture
def wide_picture(tmp_path):
    """A picture file that is twice as wide as high."""
    path = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)).save(path)
    return path


def reconstructed(engine, bundle, path: Path) -> np.ndarray:
    return engine.reconstruct(bundle.manifest.image(read_picture(path.read_bytes()))[None])[0, ..., 0]


def test_a_picture_of_ones_own_is_reconstructed(page, server, engine, bundle, wide_picture):
    page.goto(f"{server}/ui/#edit?model=digits")
    loaded(page, "Edited")
    page.get_by_label("Your picture: choose, drop or paste").set_input_files(wide_picture)
    expected = reconstructed(engine, bundle, wide_picture)
    loaded(page, "Reconstructed")
    until_shown(page, "Reconstructed", expected)
    figure(page, "Reconstructed").get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), wide_picture.parent), expected)


def test_a_picture_of_ones_own_is_shown_as_the_model_sees_it(page, server, bundle, wide_picture):
    page.goto(f"{server}/ui/#edit?model=digits")
    loaded(page, "Edited")
    page.get_by_label("Your picture: choose, drop or paste").set_input_files(wide_picture)
    seen = bundle.manifest.image(read_picture(wide_picture.read_bytes()))[..., 0]
    until_shown(page, "Your picture", seen)
    figure(page, "Your picture").get_by_text("Your picture, as the model sees it").wait_for()
    boxes = [page.get_by_alt_text(name, exact=True).bounding_box() for name in ("Reconstructed", "Edited")]
    assert boxes[0]["y"] == boxes[1]["y"]  # before and after, side by side
    figure(page, "Your picture").get_by_role("button", name="Copy curl").click()
    assert np.array_equal(run(clipboard(page), wide_picture.parent), seen)


def test_a_picture_of_ones_own_survives_back_another_view_and_another_model(
    page, server, folder, engine, bundle, wide_picture
):
    expected = reconstructed(engine, bundle, wide_picture)
    page.goto(f"{server}/ui/#edit?model=digits")
    loaded(page, "Edited")
    page.get_by_label("Your picture: choose, drop or paste").set_input_files(wide_picture)
    until_shown(page, "Edited", expected)
    page.go_back()
    page.get_by_alt_text("Start", exact=True).wait_for()
    page.go_forward()
    loaded(page, "Your picture")
    until_shown(page, "Edited", expected)
    page.get_by_role("link", name="Explore").click()
    until_shown(page, "The latent, decoded", expected)
    page.get_by_label("Model").select_option("strokes")  # to which the same latent would mean something else
    strokes = Bundle.load(folder / "strokes")
    until_shown(page, "The latent, decoded", reconstructed(Engine(strokes, device="cpu"), strokes, wide_picture))
    page.go_back()
    until_shown(page, "The latent, decoded", expected)
    page.reload()  # which forgets the file, but not the latent
    until_shown(page, "The latent, decoded", expected)


def test_a_picture_can_be_dropped_and_pasted_anywhere(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 0")
    given = """async type => {
        const blob = await new Promise(done => document.createElement('canvas').toBlob(done));
        const data = new DataTransfer();
        data.items.add(new File([blob], 'drawn.png', {type: 'image/png'}));
        const event = type === 'drop' ? new DragEvent(type, {dataTransfer: data, cancelable: true})
            : new ClipboardEvent(type, {clipboardData: data});
        return dispatchEvent(event);
    }"""
    assert page.evaluate(given, "drop") is False  # else the browser would leave the page
    loaded(page, "Your picture")
    page.go_back()
    loaded(page, "Seed 7, row 0")
    page.evaluate(given, "paste")
    loaded(page, "Your picture")


def test_without_attributes_the_page_says_how_to_get_some(page, server, folder):
    shutil.copytree(ROOT / "exported" / "maskaae-mnist-small", folder / "later")
    later = Bundle.load(folder / "later")
    annotate(later, attributes={})
    page.goto(f"{server}/ui/#edit?model=digits")
    loaded(page, "Edited")
    choice = page.get_by_label("Model")

    def listed() -> bool:
        ask_again(page)
        return "later" in choice.inner_text()

    wait_until(listed, 20, "the new model is in the list", pause=0.1)
    choice.select_option("later")
    page.get_by_role("button", name="Copy", exact=True).click()
    assert clipboard(page) == "rae-serve attributes exported/later --data LABELLED_PICTURES"
    annotate(later, attributes={"Bold": Attribute(direction=[1.0] * later.manifest.latent.dim, source="by hand")})

    def appeared() -> bool:
        ask_again(page)
        return page.get_by_role("slider", name="Bold").count() == 1

    wait_until(appeared, 20, "the new attribute has a slider", pause=0.1)
    shutil.rmtree(folder / "later")

    def gone() -> bool:
        ask_again(page)
        return page.get_by_role("alert").get_by_text("There is no model “later” here.").count() == 1

    wait_until(gone, 20, "the page says that the model is gone", pause=0.1)
    page.get_by_role("button", name="Use digits").click()
    loaded(page, "Edited")


# About


def test_the_page_says_what_a_model_is_and_whether_it_is_fit_to_ship(page, server, folder):
    page.goto(f"{server}/ui/#about?model=mapped")
    page.get_by_text("Nobody has judged this model yet.").wait_for()
    page.get_by_role("button", name="Copy", exact=True).click()
    assert clipboard(page) == "rae-serve evaluate exported/mapped --keep verdict"
    manifest = Bundle.load(folder / "mapped").manifest
    page.get_by_role("cell", name=manifest.digest).wait_for()
    expect(page.locator(".spreads > div")).to_have_count(manifest.latent.dim)
    unfit = page.get_by_role("link", name="not fit to ship")
    assert not unfit.is_visible()

    finding = Finding(question="Is it new?", grade="bad", found="40% are copies.", threshold="bad above 20%")
    picture = Picture(title="Generated images", caption="The first ones.", file="picture-0.png")
    judged = Evaluation(grade="bad", summary="Do not.", data="digits", findings=[finding], pictures=[picture])
    shutil.copytree(folder / "digits", folder / "judged")
    drawn = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    annotate(Bundle.load(folder / "judged"), added={picture.file: images.encode(drawn)}, evaluation=judged)

    def listed() -> bool:
        ask_again(page)
        return "judged" in page.get_by_label("Model").inner_text()

    wait_until(listed, 20, "the new model is in the list", pause=0.1)
    page.get_by_label("Model").select_option("judged")
    page.get_by_role("heading", name="Not fit to ship").wait_for()
    page.get_by_role("cell", name="40% are copies. (bad above 20%)").wait_for()
    assert np.array_equal(shown(page, "Generated images"), drawn[..., 0])
    page.get_by_role("link", name="Gallery").click()
    unfit.click()
    page.get_by_role("heading", name="Not fit to ship").wait_for()
    shutil.rmtree(folder / "judged")


# State


def test_seed_and_row_go_with_the_user_to_other_views_and_models(page, server, engine):
    page.goto(f"{server}/ui/#gallery?model=digits&seed=123&row=4")
    loaded(page, "Seed 123, row 0")
    page.get_by_role("link", name="Explore").click()
    until_shown(page, "The latent, decoded", engine.sample(1, seed=123, offset=4)[0, ..., 0])
    page.get_by_label("Model").select_option("strokes")
    until_state(page, model="strokes", seed="123", row="4")
    page.get_by_role("link", name="Edit").click()
    loaded(page, "Edited")
    until_state(page, view="edit", model="strokes", seed="123", row="4")
    page.get_by_role("button", name="Copy link").click()
    assert clipboard(page) == page.url


def test_what_was_set_for_an_interpolation_stays_in_the_link(page, server):
    page.goto(f"{server}/ui/#interpolate?model=digits")
    loaded(page, "Step 10 of 10")
    for label, value in (("Start seed", "42"), ("End row", "9"), ("Steps", "5")):
        page.get_by_label(label).fill(value)
        page.keyboard.press("Tab")
    page.get_by_label("Path").select_option("linear")
    loaded(page, "Step 5 of 5")
    assert state(page) == {
        "view": "interpolate", "model": "digits", "start": "42:0", "end": "7:9", "steps": "5", "path": "linear"
    }  # fmt: skip
    page.reload()
    loaded(page, "Step 5 of 5")
    assert page.get_by_label("Start seed").input_value() == "42"


def test_an_answer_about_another_model_is_dropped(page, server):
    page.goto(f"{server}/ui/#explore?model=digits")
    loaded(page, "The latent, decoded")
    held = Held(page, "**/v1/models/strokes")
    page.get_by_label("Model").select_option("strokes")
    held.wait()
    expect(page.locator("main")).to_have_attribute("aria-busy", "true")
    page.get_by_label("Model").select_option("digits")
    held.let_go()
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("slider").count() == 8
    assert "digits" in page.title()
    assert page.get_by_label("Model").input_value() == "digits"


def test_a_slow_first_answer_does_not_replace_the_users_picture(page, server, engine, bundle, wide_picture):
    held = Held(page, "**/v1/interpolate")
    page.goto(f"{server}/ui/#edit?model=digits")
    held.wait()
    page.get_by_label("Your picture: choose, drop or paste").set_input_files(wide_picture)
    expected = reconstructed(engine, bundle, wide_picture)
    until_shown(page, "Edited", expected)
    held.let_go()
    page.wait_for_load_state("networkidle")
    until_shown(page, "Edited", expected)
    until_shown(page, "Reconstructed", expected)


# Waiting and failing


@pytest.mark.parametrize(
    ("view", "address", "done"),
    [
        ("gallery", "sample", "Seed 7, row 0"),
        ("map", "models/mapped/map", "The latent, decoded"),
        ("explore", "interpolate", "The latent, decoded"),
        ("interpolate", "interpolate", "Step 1 of 10"),
        ("edit", "decode", "Edited"),
    ],
)
def test_a_failure_stays_where_it_happened_and_can_be_tried_again(page, server, view, address, done):
    fails_once(page, f"**/v1/{address}")
    page.goto(f"{server}/ui/#{view}?model=mapped")
    fault = page.get_by_role("alert").filter(has_text="the graph is tired").first
    fault.wait_for()
    fault.get_by_role("button", name="Retry").click()
    loaded(page, done)
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)


def test_waiting_looks_like_waiting(page, server):
    held = Held(page, re.compile("/v1/(sample|interpolate)"))
    page.goto(f"{server}/ui/#gallery?model=digits")
    held.wait()
    waiting = page.locator(".area[aria-busy=true]")
    expect(waiting).to_have_count(1)
    assert waiting.locator("button").first.evaluate("e => getComputedStyle(e).animationName") == "wave"
    box = page.locator(".tiles button").last.bounding_box()
    held.let_go()
    loaded(page, "Seed 7, row 47")
    expect(waiting).to_have_count(0)
    assert page.locator(".tiles button").last.bounding_box() == box


def test_a_busy_service_is_asked_again_after_the_time_it_names(page, server):
    fails_once(page, "**/v1/sample", 429, **{"Retry-After": "1"})
    page.goto(f"{server}/ui/#gallery?model=digits")
    page.get_by_role("status").get_by_text("busy").wait_for()
    loaded(page, "Seed 7, row 47")
    assert page.get_by_role("alert").filter(visible=True).count() == 0


def test_a_service_that_is_down_is_said_and_asked_again(page, server):
    page.route("**/v1/models", lambda route: route.abort())
    page.goto(f"{server}/ui/#gallery?model=digits")
    fault = page.get_by_role("alert").filter(has_text="The service does not answer. Is it running?")
    fault.wait_for()
    page.unroute("**/v1/models")
    fault.get_by_role("button", name="Retry").click()
    loaded(page, "Seed 7, row 47")


def test_a_service_without_models_says_how_to_make_one(page, server):
    page.route("**/v1/models", lambda route: route.fulfill(status=404, json={"detail": "the server has no model"}))
    page.goto(f"{server}/ui/")
    page.get_by_role("button", name="Copy", exact=True).nth(2).click()
    assert clipboard(page) == "rae-serve export runs/digits --out exported/digits"
    page.unroute("**/v1/models")
    ask_again(page)
    loaded(page, "Seed 7, row 47")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("gallery?seed=-1", "seed must be a whole number from 0 to"),
        ("gallery?seed=abc", "seed must be a whole number from 0 to"),
        ("explore?row=-3", "row must be a whole number from 0 to"),
        ("explore?latent=AAA", "latent must be a latent"),
        ("interpolate?start=7", "start must be SEED:ROW or a latent"),
        ("interpolate?steps=1000", "steps must be a whole number from 2 to 64"),
        ("edit?edit=Smile", "edit must be NAME:NUMBER"),
        ("paint", "There is no view “paint”"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(page, server, address, text):
    page.goto(f"{server}/ui/#{address}")
    page.get_by_role("alert").get_by_text(text).wait_for()
    page.get_by_role("button", name="Go on without that").click()
    page.get_by_role("heading", level=2).wait_for()
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("alert").filter(visible=True).count() == 0


def test_an_unknown_model_is_not_replaced_silently(page, server):
    page.goto(f"{server}/ui/#explore?model=nope&seed=5")
    page.get_by_role("alert").get_by_text("There is no model “nope” here.").wait_for()
    page.get_by_role("button", name="Use strokes").click()
    loaded(page, "The latent, decoded")
    until_state(page, model="strokes", seed="5")


def test_a_file_that_is_no_picture_is_said_and_not_shown(page, server):
    page.goto(f"{server}/ui/#edit?model=digits")
    loaded(page, "Edited")
    page.get_by_label("Your picture: choose, drop or paste").set_input_files(
        {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("alert").get_by_text("“text.png” cannot be used: it is not a readable picture").wait_for()
    assert not page.get_by_alt_text("Your picture").is_visible()


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


# Downloads and looks


def saved(page, place, entry: str, folder: Path) -> Path:
    """Save an entry of a menu of downloads, and return the file."""
    place.get_by_text("Download").click()
    with page.expect_download() as download:
        place.get_by_role("button", name=entry).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_pictures_can_be_saved_enlarged(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#explore?model=digits&seed=3")
    loaded(page, "The latent, decoded")
    path = saved(page, figure(page, "The latent, decoded"), "PNG 4×", tmp_path)
    expected = engine.sample(1, seed=3)[0, ..., 0]
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture.convert("L")), expected.repeat(4, 0).repeat(4, 1))


def test_a_page_of_the_gallery_can_be_saved(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#gallery?model=digits&seed=3&from=48")
    loaded(page, "Seed 3, row 95")
    expected = engine.sample(48, seed=3, offset=48)
    form = page.locator("main form")
    assert np.array_equal(np.load(saved(page, form, "Array", tmp_path)), expected)
    with Image.open(saved(page, form, "Contact sheet (PNG)", tmp_path)) as sheet:
        assert np.array_equal(np.asarray(sheet), images.grid(expected)[..., 0])
    with zipfile.ZipFile(saved(page, form, "PNG files", tmp_path)) as archive:
        assert len(archive.namelist()) == 48


def test_an_animation_can_be_saved(page, server, tmp_path):
    page.goto(f"{server}/ui/#interpolate?model=digits")
    loaded(page, "Step 10 of 10")
    for entry in ("GIF", "WebP"):
        assert milliseconds(saved(page, page.locator(".player"), entry, tmp_path)) == 98 * 40


VIEWS = (
    "gallery?model=mapped",
    "gallery?model=mapped&open=1",
    "gallery?model=mapped&beside=digits",
    "map?model=mapped",
    "explore?model=mapped&more=1",
    "interpolate?model=mapped",
    "edit?model=digits",
    "edit?model=mapped",  # without attributes
    "about?model=mapped",
)


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(browser, server, view):
    """https://github.com/dequelabs/axe-core checks contrast, names, roles and the order of headings."""
    for width, scheme in itertools.product((390, 1280), ("light", "dark")):
        page = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
        )
        page.goto(f"{server}/ui/#{view}")
        page.locator("main[aria-busy=false] h2").first.wait_for()
        page.wait_for_function("!document.querySelector('.area[aria-busy=true]')")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.close()


@pytest.mark.parametrize("width", [360, 844])
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_phone(page, server, view, width):
    page.set_viewport_size({"width": width, "height": 1060 - width})
    page.goto(f"{server}/ui/#{view}")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("view", ["gallery", "map", "explore", "interpolate", "edit"])
def test_nothing_moves_when_the_pictures_come(page, server, view):
    page.add_init_script(
        "window.moved = 0; const add = list => { for (const entry of list.getEntries()) moved += entry.value; };"
        "new PerformanceObserver(add).observe({type: 'layout-shift', buffered: true});"
    )
    page.goto(f"{server}/ui/#{view}?model={'mapped' if view == 'map' else 'strokes'}")
    page.wait_for_load_state("networkidle")
    page.wait_for_function(
        "document.querySelectorAll('.area.empty:not([hidden] *)').length === 0 && document.querySelector('main img')"
    )
    assert page.evaluate("moved") < 0.01


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_borders_of_controls_can_be_seen(page, server, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 0")
    contrast = """e => {
        const light = colour => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(c => c / 255)
                .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const sides = [e, document.documentElement].map(side => getComputedStyle(side).backgroundColor);
        const border = light(getComputedStyle(e).borderTopColor);
        return Math.min(...sides.map(light).map(l => (Math.max(l, border) + .05) / (Math.min(l, border) + .05)));
    }"""
    for control in (page.get_by_label("Seed"), page.locator("#model"), page.get_by_role("button", name="Random")):
        assert control.evaluate(contrast) >= 3
