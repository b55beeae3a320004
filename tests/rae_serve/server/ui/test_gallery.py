"""The view of the rows of a seed."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from rae_serve import images
from tests.rae_serve.server.ui.browsing import clipboard, loaded, run, saved, shown, state, until_shown, until_state
from tests.waiting import wait_until


def test_the_gallery_shows_seeds_and_its_pictures_have_addresses(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/")
    loaded(page, "Seed 7, row 71")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Show").click()
    expected = engine.sample(1, seed=11, offset=7)[0, ..., 0]
    assert np.array_equal(shown(page, "Seed 11, row 7"), expected)
    # A second click beside the dialog that the first has opened does not close it.
    page.get_by_title("Seed 11, row 7", exact=True).dblclick()
    dialog = page.get_by_role("dialog", name="Seed 11, row 7")
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
    loaded(page, "Seed 7, row 76")
    page.get_by_title("Seed 7, row 76").click()
    dialog = page.get_by_role("dialog", name="Seed 7, row 76")
    dialog.get_by_role("button", name="Copy link").click()
    link = clipboard(page)
    page.go_back()
    dialog.wait_for(state="hidden")
    assert state(page)["from"] == "72"
    page.get_by_title("Seed 7, row 76").click()
    dialog.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.go_back()  # once: a closed dialog leaves nothing behind in the history
    wait_until(lambda: "from" not in state(page), 20, "the first page is back")

    page.goto("about:blank")
    page.goto(link)
    dialog.wait_for()
    loaded(page, "Seed 7, row 143")
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")
    page.reload()
    loaded(page, "Seed 7, row 143")
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
    page.get_by_label("Compare with").select_option("strokes")
    for name in ("digits", "strokes"):
        tiles = page.get_by_role("region", name=name).get_by_role("button")
        tiles.get_by_alt_text("Seed 3, row 35").wait_for()
        expect(tiles).to_have_count(36)
    page.get_by_role("region", name="strokes").get_by_title("Seed 3, row 4", exact=True).click()
    for name, pixels in (("digits", 8), ("strokes", 28)):
        picture = page.get_by_role("dialog").get_by_alt_text(f"Seed 3, row 4, {name}")
        picture.wait_for()
        assert picture.bounding_box()["width"] % pixels == 0  # a whole multiple of its own model's
    page.reload()
    page.get_by_role("dialog").get_by_alt_text("Seed 3, row 4, strokes").wait_for()


def test_no_row_of_the_gallery_is_ragged_and_drawings_stay_sharp(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 71")
    tiles = page.locator(".tiles button")
    assert page.evaluate("getComputedStyle(document.querySelector('.tiles img')).imageRendering") == "pixelated"
    for width in (360, 390, 700, 800, 1000, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 700})
        first, last = (tiles.nth(i).bounding_box() for i in (0, 71))
        ends = [tile["x"] + tile["width"] for tile in (tiles.nth(i).bounding_box() for i in range(16))]
        assert last["x"] + last["width"] == pytest.approx(max(ends))
        assert first["width"] % 8 == 0  # a picture has 8 pixels a side


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


def test_a_page_of_the_gallery_can_be_saved(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#gallery?model=digits&seed=3&from=72")
    loaded(page, "Seed 3, row 143")
    expected = engine.sample(72, seed=3, offset=72)
    form = page.locator("main form")
    assert np.array_equal(np.load(saved(page, form, "Array", tmp_path)), expected)
    with Image.open(saved(page, form, "Contact sheet (PNG)", tmp_path)) as sheet:
        assert np.array_equal(np.asarray(sheet), images.grid(expected)[..., 0])
    with zipfile.ZipFile(saved(page, form, "PNG files", tmp_path)) as archive:
        assert len(archive.namelist()) == 72
