"""The view of what the model is."""

from __future__ import annotations

import shutil

import numpy as np
from playwright.sync_api import expect

from rae_serve import images
from rae_serve.bundle import Bundle, annotate
from rae_serve.manifest import Evaluation, Finding, Picture
from tests.rae_serve.server.ui.browsing import clipboard, shown, until_listed


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
    until_listed(page, "judged")
    page.get_by_label("Model").select_option("judged")
    page.get_by_role("heading", name="Not fit to ship").wait_for()
    page.get_by_role("cell", name="40% are copies. (bad above 20%)").wait_for()
    assert np.array_equal(shown(page, "Generated images"), drawn[..., 0])
    page.get_by_role("link", name="Gallery").click()
    unfit.click()
    page.get_by_role("heading", name="Not fit to ship").wait_for()
    shutil.rmtree(folder / "judged")
