"""A service of several bundles, and a page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page
from sklearn.datasets import load_digits

from rae_serve import projection
from rae_serve.bundle import Bundle, annotate
from rae_serve.engine import Engine
from rae_serve.manifest import Attribute
from tests.serving import ROOT, serving


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def mapped(folder) -> Bundle:
    """The bundle with principal directions and a map."""
    return Bundle.load(folder / "mapped")


@pytest.fixture(scope="session")
def server(folder, tmp_path_factory):
    """The address of a service of the bundles, which sees at once what changes in their folder."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(folder, log, reload_seconds=0.1, keep_attributes=True) as (address, _):
        yield address


@contextmanager
def watched(browser, server: str, **options: object) -> Iterator[Page]:
    """Open a page on which nothing may fail, and which talks to the service alone."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
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


@pytest.fixture
def page(browser, server):
    """A page in a window."""
    with watched(browser, server, viewport={"width": 1100, "height": 800}) as page:
        yield page


@pytest.fixture
def phone(browser, server):
    """A page on a phone, which takes touches; it is lower than any view, so that every view could scroll."""
    with watched(browser, server, viewport={"width": 390, "height": 500}, has_touch=True) as page:
        yield page


@pytest.fixture
def wide_picture(tmp_path):
    """A picture file that is twice as wide as high."""
    path = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)).save(path)
    return path
