"""The view of an interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from rae_serve import images
from tests.rae_serve.server.ui.browsing import (
    clipboard,
    code_of,
    loaded,
    milliseconds,
    reconstructed,
    run,
    saved,
    shown,
    state,
    until_shown,
)


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


def test_an_animation_can_be_saved(page, server, tmp_path):
    page.goto(f"{server}/ui/#interpolate?model=digits")
    loaded(page, "Step 10 of 10")
    for entry in ("GIF", "WebP"):
        assert milliseconds(saved(page, page.locator(".player"), entry, tmp_path)) == 98 * 40
