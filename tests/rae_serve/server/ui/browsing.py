"""What the tests of the page share: its address, pictures and files, and services that are slow or fail."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
from PIL import Image
from playwright.sync_api import Error, Route

from rae_serve.preprocessing import read_picture
from tests.waiting import wait_until


class Held:
    """The requests of a page to an address, which get no response until they are let go."""

    def __init__(self, page, pattern: str | re.Pattern[str]) -> None:
        self._page = page
        self._routes: list[Route] = []
        self._open = False
        page.route(pattern, self._take)

    def wait(self) -> None:
        wait_until(lambda: self._page.wait_for_timeout(10) or self._routes, 20, "the page has asked")

    def let_go(self) -> None:
        """Let the held requests go on, and those that come later too."""
        self._open = True
        for route in self._routes:
            try:
                route.continue_()
            except Error:  # the page has given the request up
                continue

    def _take(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self._routes.append(route)


def fails_once(page, pattern: str, status: int = 500, **headers: str) -> None:
    """Let the first request of a page to an address fail."""
    failed: list[Route] = []

    def answer(route: Route) -> None:
        if failed:
            route.continue_()
            return
        failed.append(route)
        body = json.dumps({"detail": "the graph is tired"})
        route.fulfill(status=status, headers=headers, content_type="application/problem+json", body=body)

    page.route(pattern, answer)


def state(page) -> dict[str, str]:
    """The state in the address of a page, with the view's name."""
    view, query = page.evaluate("location.hash").removeprefix("#").split("?")
    return {"view": view} | {key: " ".join(values) for key, values in parse_qs(query).items()}


def until_state(page, **wanted: str) -> None:
    """Wait until the address has these values."""
    wait_until(lambda: wanted.items() <= state(page).items(), 20, f"the state has {wanted}")


def ask_again(page) -> None:
    """Let the page ask for the models, as it does when its window is looked at again."""
    page.evaluate("dispatchEvent(new Event('focus'))")


def until_listed(page, name: str) -> None:
    """Wait until the page offers a model."""

    def listed() -> bool:
        ask_again(page)
        return name in page.locator("#model").inner_text()

    wait_until(listed, 20, f"{name} is in the list of models", pause=0.1)


def clipboard(page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def run(curl: str, folder: Path) -> np.ndarray:
    """The picture that a copied command makes."""
    command = shlex.split(curl)
    subprocess.run([*command, "--silent", "--fail"], cwd=folder, check=True, timeout=30)
    with Image.open(folder / command[command.index("-o") + 1]) as picture:
        return np.asarray(picture)


def loaded(page, name: str) -> None:
    page.wait_for_function(
        "name => { const i = document.querySelector(`img[alt='${name}']`); return i && i.naturalWidth }", arg=name
    )


def shown(page, name: str) -> np.ndarray:
    """The pixels of the picture of this name, as they came."""
    loaded(page, name)
    fetched = """async name => {
        const answer = await fetch(document.querySelector(`img[alt='${name}']`).src);
        return [...new Uint8Array(await answer.arrayBuffer())];
    }"""
    data = page.evaluate(fetched, name)
    return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("L"))


def figure(page, name: str):
    return page.locator("figure", has=page.get_by_alt_text(name, exact=True))


def code_of(engine, seed: int, row: int, temperature: float = 1.0) -> np.ndarray:
    return engine.latents(engine.noise(1, seed=seed, offset=row, temperature=temperature))[0]


def decoded(engine, latent: np.ndarray) -> np.ndarray:
    return engine.decode([latent])[0, ..., 0].astype(int)


def until_shown(page, name: str, expected: np.ndarray) -> None:
    """Wait until the picture of this name has these pixels, but for roundings of the latent."""

    def is_shown() -> bool:
        pixels = shown(page, name).astype(int)
        return pixels.shape == expected.shape and bool(np.abs(pixels - expected).max() <= 1)

    wait_until(is_shown, 20, f"{name} shows the expected picture")


def reconstructed(engine, bundle, path: Path) -> np.ndarray:
    return engine.reconstruct(bundle.manifest.image(read_picture(path.read_bytes()))[None])[0, ..., 0]


def milliseconds(path: Path) -> int:
    """How long an animation takes. Equal images in a row may be one frame of the file."""
    total = 0
    with Image.open(path) as animation:
        for frame in range(animation.n_frames):
            animation.seek(frame)
            animation.load()
            total += int(animation.info["duration"])
    return total


def saved(page, place, entry: str, folder: Path) -> Path:
    """Save an entry of a menu of downloads, and return the file."""
    place.get_by_text("Download").click()
    with page.expect_download() as download:
        place.get_by_role("button", name=entry).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path
