"""The files of the page, and the description of the API."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2 as httpx

UI = Path(__file__).parents[4] / "rae_serve" / "server" / "ui"


def test_the_page_is_served_whole_and_the_root_leads_to_it(server):
    answer = httpx.get(server, follow_redirects=True)
    assert answer.status_code == 200
    assert "<title>rae-serve</title>" in answer.text
    for file in UI.iterdir():
        assert httpx.get(f"{server}/ui/{file.name}").content == file.read_bytes()
        assert not re.search(b"https?://", file.read_bytes())
    missing = httpx.get(f"{server}/ui/nothing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_the_description_of_the_api_needs_no_other_server(page, server):
    page.goto(f"{server}/docs")
    page.get_by_text("/v1/interpolate").first.wait_for()
    assert page.title() == "rae-serve: HTTP API"
