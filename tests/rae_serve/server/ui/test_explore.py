"""The view of a single latent."""

from __future__ import annotations

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from rae_serve.bundle import Bundle
from tests.rae_serve.server.ui.browsing import (
    clipboard,
    code_of,
    decoded,
    figure,
    loaded,
    run,
    saved,
    shown,
    state,
    until_shown,
)
from tests.waiting import wait_until


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


def test_pictures_can_be_saved_enlarged(page, server, engine, tmp_path):
    page.goto(f"{server}/ui/#explore?model=digits&seed=3")
    loaded(page, "The latent, decoded")
    path = saved(page, figure(page, "The latent, decoded"), "PNG 4×", tmp_path)
    expected = engine.sample(1, seed=3)[0, ..., 0]
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture.convert("L")), expected.repeat(4, 0).repeat(4, 1))
