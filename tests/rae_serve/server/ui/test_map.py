"""The view of the map."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.rae_serve.server.ui.browsing import clipboard, code_of, decoded, loaded, state, until_shown, until_state
from tests.waiting import wait_until


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


def test_a_thumb_takes_a_place_of_the_map_and_draws_an_interpolation(phone, server, engine, mapped):
    phone.goto(f"{server}/ui/#map?model=mapped")
    loaded(phone, "The latent, decoded")
    plane = phone.locator(".map")
    phone.locator(".map path").first.wait_for(state="attached")
    plane.scroll_into_view_if_needed()
    box, scrolled = plane.bounding_box(), phone.evaluate("scrollY")
    assert phone.evaluate("document.documentElement.scrollHeight > innerHeight")
    width, height = plane.evaluate("e => [e.clientWidth, e.clientHeight]")
    finger = phone.context.new_cdp_session(phone)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": box["x"] + 1 + x * width, "y": box["y"] + 1 + y * height} for x, y in places]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    high, low = (round(part * height) / height for part in (0.25, 0.75))
    middle = round(width / 2) / width
    start = decoded(engine, plane_latent(phone, mapped, middle, high))
    touch("touchStart", (middle, high))
    touch("touchMove", (middle, high + 4 / height))  # no thumb lies still
    touch("touchEnd")
    wait_until(lambda: "latent" in state(phone), 20, "the point is taken")
    assert state(phone)["view"] == "map"
    touch("touchStart", (middle, high))
    for part in (0.35, 0.5, 0.65, low):
        touch("touchMove", (middle, part))
    assert phone.evaluate("scrollY") == scrolled
    touch("touchEnd")
    until_state(phone, view="interpolate", path="linear")
    until_shown(phone, "Step 1 of 10", start)


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
    page.get_by_label("Map of").select_option("prior")
    expect(names).to_have_count(0)
    page.get_by_label("Map of").select_option("pictures")
    expect(page.locator(".map img")).to_have_count(192)
    page.reload()
    expect(page.locator(".map img")).to_have_count(192)
    assert {"label": "3", "layer": "pictures"}.items() <= state(page).items()


def test_without_a_map_the_page_says_how_to_get_one(page, server):
    page.goto(f"{server}/ui/#map?model=strokes")
    page.get_by_role("button", name="Copy", exact=True).click()
    assert clipboard(page) == "rae-serve attributes exported/strokes --data LABELLED_PICTURES"
