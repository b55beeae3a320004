"""The state in the address, from view to view and from model to model."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.rae_serve.server.ui.browsing import Held, clipboard, loaded, reconstructed, state, until_shown, until_state


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
