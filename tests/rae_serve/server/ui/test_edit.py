"""The view for editing, and pictures of the user's own."""

from __future__ import annotations

import shutil

import numpy as np
from playwright.sync_api import expect

from rae_serve.bundle import Bundle, annotate
from rae_serve.engine import Engine
from rae_serve.manifest import Attribute
from rae_serve.preprocessing import read_picture
from tests.rae_serve.server.ui.browsing import (
    ask_again,
    clipboard,
    code_of,
    figure,
    loaded,
    reconstructed,
    run,
    until_listed,
    until_shown,
    until_state,
)
from tests.serving import ROOT
from tests.waiting import wait_until


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


def test_the_edited_picture_stays_in_sight_of_every_slider(phone, server):
    phone.goto(f"{server}/ui/#edit?model=strokes")
    loaded(phone, "Edited")
    phone.get_by_role("slider").last.scroll_into_view_if_needed()
    assert phone.evaluate("scrollY") > 0
    expect(phone.get_by_alt_text("Edited", exact=True)).to_be_in_viewport(ratio=1)


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
    until_shown(page, "As the model sees it", seen)
    loaded(page, "Your picture")
    whole = page.get_by_alt_text("Your picture", exact=True)
    assert whole.evaluate("e => [e.naturalWidth, e.naturalHeight, getComputedStyle(e).objectFit]") == [
        40,
        20,
        "contain",
    ]
    names = ("Your picture", "As the model sees it", "Reconstructed", "Edited")
    boxes = [page.get_by_alt_text(name, exact=True).bounding_box() for name in names]
    assert len({box["y"] for box in boxes}) == 1  # side by side, from the picture to what was made of it
    assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
    figure(page, "As the model sees it").get_by_role("button", name="Copy curl").click()
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
    until_listed(page, "later")
    page.get_by_label("Model").select_option("later")
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
