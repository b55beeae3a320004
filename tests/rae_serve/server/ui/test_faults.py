"""A service that is slow, busy, failing or locked, and addresses that are wrong."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.rae_serve.server.ui.browsing import Held, ask_again, clipboard, fails_once, loaded, shown, until_state
from tests.serving import KEY


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
    models = Held(page, "**/v1/models")
    held = Held(page, re.compile("/v1/(sample|interpolate)"))
    page.goto(f"{server}/ui/#gallery?model=digits")
    models.wait()
    assert "Loading" in page.locator("main").evaluate("e => getComputedStyle(e, '::before').content")
    models.let_go()
    held.wait()
    waiting = page.locator(".area[aria-busy=true]")
    expect(waiting).to_have_count(1)
    assert waiting.locator("button").first.evaluate("e => getComputedStyle(e).animationName") == "wave"
    box = page.locator(".tiles button").last.bounding_box()
    held.let_go()
    loaded(page, "Seed 7, row 71")
    expect(waiting).to_have_count(0)
    assert page.locator(".tiles button").last.bounding_box() == box


def test_a_busy_service_is_asked_again_after_the_time_it_names(page, server):
    fails_once(page, "**/v1/sample", 429, **{"Retry-After": "1"})
    page.goto(f"{server}/ui/#gallery?model=digits")
    page.get_by_role("status").get_by_text("busy").wait_for()
    loaded(page, "Seed 7, row 71")
    assert page.get_by_role("alert").filter(visible=True).count() == 0


def test_an_answer_that_is_not_the_services_is_said_in_plain_words(page, server):
    answers = [
        ({"status": 200, "content_type": "text/html", "body": "<p>Log in"}, "What answers here is not the service."),
        ({"status": 502, "body": "<p>Bad gateway"}, "The service answered 502."),
        ({"status": 500, "json": {"error": "no detail"}}, "The service answered 500."),
        ({"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}}, "The service answered 503."),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "The service answered 429."),
    ]
    given = [answer for answer, _ in answers]
    page.route("**/v1/sample", lambda route: route.fulfill(**given.pop(0)) if given else route.continue_())
    page.goto(f"{server}/ui/#gallery?model=digits")
    fault = page.get_by_role("alert").filter(visible=True)
    for _, text in answers:
        expect(fault).to_contain_text(text)
        fault.get_by_role("button", name="Retry").click()
    loaded(page, "Seed 7, row 71")


def test_a_service_that_is_down_is_said_and_asked_again(page, server):
    page.route("**/v1/models", lambda route: route.abort())
    page.goto(f"{server}/ui/#gallery?model=digits")
    fault = page.get_by_role("alert").filter(has_text="The service does not answer. Is it running?")
    fault.wait_for()
    page.unroute("**/v1/models")
    fault.get_by_role("button", name="Retry").click()
    loaded(page, "Seed 7, row 71")


def test_the_page_tries_again_by_itself_when_the_service_is_back(page, server):
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 71")
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("button", name="More").click()
    page.get_by_role("alert").filter(has_text="The service does not answer. Is it running?").wait_for()
    ask_again(page)
    page.get_by_role("status").get_by_text("The service does not answer.").wait_for()
    page.unroute("**/v1/**")
    ask_again(page)
    loaded(page, "Seed 7, row 143")


def test_a_service_without_models_says_how_to_make_one(page, server):
    page.route("**/v1/models", lambda route: route.fulfill(status=404, json={"detail": "the server has no model"}))
    page.goto(f"{server}/ui/")
    page.get_by_role("button", name="Copy", exact=True).nth(2).click()
    assert clipboard(page) == "rae-serve export runs/digits --out exported/digits"
    page.unroute("**/v1/models")
    ask_again(page)
    loaded(page, "Seed 7, row 71")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("gallery?seed=-1", "seed must be a whole number from 0 to"),
        ("gallery?seed=abc", "seed must be a whole number from 0 to"),
        ("explore?row=-3", "row must be a whole number from 0 to"),
        ("explore?latent=AAA", "latent must be a latent"),
        ("explore?latent=AACAPw", "a latent of another model: those of “digits” have 8 numbers"),
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
    page.get_by_title("Seed 11, row 5", exact=True).click()
    page.get_by_role("button", name="Copy curl").click()
    assert KEY not in clipboard(page)
    monkeypatch.setenv("RAE_SERVE_KEY", KEY)
    command = ["bash", "-c", f"{clipboard(page)} --silent --fail"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "image.png")), shown(page, "Seed 11, row 5"))
    page.goto(f"{locked_server}/ui/#explore")  # and is not asked again
    loaded(page, "The latent, decoded")
    context.close()
