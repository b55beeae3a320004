"""What holds in every view: accessibility, widths, and nothing that moves by itself."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.rae_serve.server.ui.browsing import loaded

VIEWS = (
    "gallery?model=mapped",
    "gallery?model=mapped&open=1",
    "gallery?model=mapped&beside=digits",
    "gallery?model=mapped&marking=1&has=7:0&has=7:1&lacks=7:2&lacks=7:3",
    "map?model=mapped",
    "explore?model=mapped&more=1",
    "interpolate?model=mapped",
    "edit?model=digits",
    "edit?model=mapped",  # without attributes
    "about?model=mapped",
)


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(browser, server, view):
    """https://github.com/dequelabs/axe-core checks contrast, names, roles and the order of headings."""
    for width, scheme in ((390, "dark"), (1280, "light")):
        page = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
        )
        page.goto(f"{server}/ui/#{view}")
        page.locator("main[aria-busy=false] h2").first.wait_for()
        page.wait_for_function("!document.querySelector('.area[aria-busy=true]')")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.close()


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_phone(page, server, view):
    page.goto(f"{server}/ui/#{view}")
    page.wait_for_load_state("networkidle")
    for width in (360, 844):
        page.set_viewport_size({"width": width, "height": 1060 - width})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("view", ["gallery", "map", "explore", "interpolate", "edit"])
def test_nothing_moves_when_the_pictures_come(page, server, view):
    page.add_init_script(
        "window.moved = 0; const add = list => { for (const entry of list.getEntries()) moved += entry.value; };"
        "new PerformanceObserver(add).observe({type: 'layout-shift', buffered: true});"
    )
    page.goto(f"{server}/ui/#{view}?model={'mapped' if view == 'map' else 'strokes'}")
    page.wait_for_load_state("networkidle")
    page.wait_for_function(
        "document.querySelectorAll('.area.empty:not([hidden] *)').length === 0 && document.querySelector('main img')"
    )
    assert page.evaluate("moved") < 0.01


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_borders_of_controls_can_be_seen(page, server, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{server}/ui/#gallery?model=digits")
    loaded(page, "Seed 7, row 0")
    contrast = """e => {
        const light = colour => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(c => c / 255)
                .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const sides = [e, document.documentElement].map(side => getComputedStyle(side).backgroundColor);
        const border = light(getComputedStyle(e).borderTopColor);
        return Math.min(...sides.map(light).map(l => (Math.max(l, border) + .05) / (Math.min(l, border) + .05)));
    }"""
    for control in (page.get_by_label("Seed"), page.locator("#model"), page.get_by_role("button", name="Random")):
        assert control.evaluate(contrast) >= 3
