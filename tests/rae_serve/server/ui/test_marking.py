"""Attributes that a user makes by marking pictures of the gallery."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from rae_serve import attributes
from rae_serve.bundle import Bundle
from tests.rae_serve.server.ui.browsing import (
    ask_again,
    code_of,
    decoded,
    loaded,
    state,
    until_listed,
    until_shown,
    until_state,
)
from tests.waiting import wait_until

HAS, LACKS = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9, 11)  # rows of seed 7


@pytest.fixture
def found(engine):
    """The attribute that the marks give."""
    codes = np.stack([code_of(engine, 7, row) for row in (*HAS, *LACKS)]).astype(np.float64)
    has = np.arange(len(codes)) < len(HAS)
    return attributes.find_in(codes, has[:, None], ["found"], "a user's choice")["found"]


def show_marked(page, server: str, model: str) -> None:
    """Open the gallery of a model, with the marks."""
    marks = [f"has=7:{row}" for row in HAS] + [f"lacks=7:{row}" for row in LACKS]
    page.goto(f"{server}/ui/#gallery?model={model}&marking=1&{'&'.join(marks)}")


def test_marked_pictures_show_what_their_attribute_does_and_how_good_it_is(page, server, engine, found):
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 71")
    page.get_by_role("button", name="Mark an attribute").click()
    panel = page.get_by_role("region", name="Mark an attribute")
    tiles = page.locator(".tiles button")
    for row in (*HAS, *LACKS, *LACKS):  # once for those that have it, twice for those that do not
        tiles.nth(row).click()
    expect(tiles.nth(2)).to_have_attribute("title", "Seed 7, row 2: has it")
    expect(tiles.nth(3)).to_have_attribute("title", "Seed 7, row 3: has it not")
    panel.get_by_text(f"From 5 with it and 6 without it. AUC {found.auc:.2f}").wait_for()
    expect(panel.locator(".tried img")).to_have_count(6)
    slider = panel.get_by_role("slider", name="less of it to more of it")
    for _ in range(10):
        slider.press("ArrowRight")
    until_state(page, strength="1")
    page.reload()  # the address keeps the marks and the strength
    expected = decoded(engine, code_of(engine, 7, 1) + np.array(found.direction, np.float32))
    page.locator(".tried img").nth(3).evaluate("e => { e.alt = 'the first without it'; }")
    until_shown(page, "the first without it", expected)
    tiles.nth(3).click()
    expect(tiles.nth(3)).to_have_attribute("title", "Seed 7, row 3")
    panel.get_by_role("button", name="Clear").click()
    panel.get_by_text("0 ✓ and 0 ✕ so far; 2 of each show a direction.").wait_for()
    panel.get_by_role("button", name="Done").click()
    tiles.nth(2).click()
    page.get_by_role("dialog", name="Seed 7, row 2").wait_for()


def test_too_few_marks_are_said(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits&marking=1&has=7:0&has=7:1&lacks=7:2")
    loaded(page, "Seed 7, row 2: has it not")
    page.get_by_text("2 ✓ and 1 ✕ so far; 2 of each show a direction.").wait_for()
    page.locator(".tiles button").nth(3).click(click_count=2)
    page.get_by_text("From 2 with it and 2 without it.").wait_for()
    page.get_by_text("Not measured: this needs at least 5 images").wait_for()


def test_on_a_phone_the_slider_and_most_of_the_gallery_are_in_sight(phone, server):
    phone.set_viewport_size({"width": 390, "height": 844})
    show_marked(phone, server, "digits")
    panel = phone.get_by_role("region", name="Mark an attribute")
    panel.get_by_text("From 5 with it and 6 without it.").wait_for()
    expect(panel.get_by_role("slider")).to_be_in_viewport(ratio=1)
    assert panel.bounding_box()["height"] < 844 / 4
    panel.get_by_text("From 5 with it and 6 without it.").scroll_into_view_if_needed()
    expect(panel.get_by_text("From 5 with it and 6 without it.")).to_be_in_viewport(ratio=1)


def test_marks_go_by_keyboard_and_by_thumb(phone, server):
    phone.goto(f"{server}/ui/#gallery?model=digits&marking=1")
    loaded(phone, "Seed 7, row 71")
    tiles = phone.locator(".tiles button")
    tiles.nth(4).tap()
    until_state(phone, has="7:4")
    tiles.nth(4).press("Enter")
    until_state(phone, lacks="7:4")
    assert "has" not in state(phone)
    tiles.nth(4).press("ArrowRight")
    phone.keyboard.press("Space")
    until_state(phone, has="7:5", lacks="7:4")
    panel = phone.get_by_role("region", name="Mark an attribute").bounding_box()
    assert panel["y"] + panel["height"] <= 500  # the panel is in sight


def test_marks_are_of_one_temperature_and_of_one_model(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits&marking=1&temperature=0.5&beside=strokes")
    loaded(page, "Seed 7, row 71")
    expect(page.locator(".tiles button")).to_have_count(72)
    page.locator(".tiles button").first.click()
    until_state(page, has="7:0:0.5")
    page.locator("#model").select_option("strokes")
    until_state(page, model="strokes")
    assert "has" not in state(page)


def test_an_attribute_of_marked_pictures_is_kept_under_a_name(page, server, folder, found):
    shutil.copytree(folder / "digits", folder / "marked")
    page.goto(f"{server}/ui/")
    until_listed(page, "marked")
    show_marked(page, server, "marked")
    panel = page.get_by_role("region", name="Mark an attribute")
    for name, answer in (
        ("Old", "has an attribute 'Old' already"),
        ("Round", "Kept. In a moment"),
    ):
        panel.get_by_label("Name of the attribute").fill(name)
        panel.get_by_role("button", name="Keep it").click()
        panel.get_by_text(answer).wait_for()
    kept = Bundle.load(folder / "marked").manifest.attributes
    assert list(kept) == ["Smile", "Young", "Round"]
    assert kept["Round"].auc == found.auc
    assert kept["Round"].images == (5, 6)
    assert np.allclose(kept["Round"].direction, found.direction, atol=1e-5)
    page.get_by_role("link", name="Edit").click()

    def appeared() -> bool:
        ask_again(page)
        return page.get_by_role("slider", name="Round").count() == 1

    wait_until(appeared, 20, "the new attribute has a slider", pause=0.1)
    shutil.rmtree(folder / "marked")


def test_a_service_that_keeps_no_attributes_says_so(page, server):
    def refused(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=json.dumps(response.json() | {"can_keep": False}))

    page.route("**/v1/attributes", refused)
    show_marked(page, server, "digits")
    page.get_by_text("This service keeps no attributes from the page.").wait_for()
    assert not page.get_by_role("button", name="Keep it").is_visible()
