"""The README's code, run as it stands on what is shipped."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from tests.serving import ROOT

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for language, block in BLOCKS if language == "sh" for line in block.replace("\\\n", "").splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder in which the README's relative paths work and nothing else is touched."""
    shutil.copytree(ROOT / "exported", tmp_path / "exported")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return tmp_path


def size_of(name: str) -> tuple[int, int]:
    with Image.open(name) as picture:
        return picture.size


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_python(block, here):
    exec(compile(block, "README.md", "exec"), {})


def test_javascript_makes_the_image_that_the_golden_vectors_say(here, node):
    (javascript,) = [block for language, block in BLOCKS if language == "js"]
    bundle = Bundle.load("exported/flexae-mnist-small")
    golden = bundle.vectors()["samples"][0]["sha256"]
    (said,) = re.findall("([0-9a-f]{12})…", javascript)
    assert golden.startswith(said)
    (here / "node_modules").symlink_to(ROOT / "examples" / "node_modules")
    (here / "embed.mjs").write_text(javascript, encoding="utf-8")
    done = subprocess.run([node, "embed.mjs"], check=True, capture_output=True, text=True, timeout=60)
    assert re.fullmatch("[0-9a-f]{64}\n", done.stdout)
    image = Engine(bundle, device="cpu").sample(1, seed=7)
    if hashlib.sha256(image).hexdigest() == golden:  # on another processor, a pixel may be rounded differently
        assert done.stdout.strip() == golden


def test_commands_on_the_shipped_bundles(here):
    commands = [line for line in LINES if re.match(r"rae-serve (sample|inspect|verify)", line)]
    assert len(commands) == 4
    for command in commands:
        subprocess.run(command, shell=True, check=True, capture_output=True, timeout=60)
    assert size_of("digits.png") == (4 * 28, 4 * 28)
    assert size_of("automobiles.png") == (4 * 32, 4 * 32)


def test_training_commands_are_of_recipes_that_exist():
    named = {line.split()[2] for line in LINES if line.startswith("rae-serve train")}
    assert named
    assert named <= {path.stem for path in (ROOT / "training" / "recipes").glob("*.toml")}


def test_curl_against_a_server(here, server, bundle):
    commands = [line for line in LINES if line.startswith("curl")]
    assert len(commands) == 3
    for command in commands:
        command = command.replace("http://127.0.0.1:3000", server)
        command = re.sub(r"\bflexae-mnist-small\b|\bmine\b(?=\")", bundle.name, command)
        subprocess.run(f"{command} --silent --fail", shell=True, check=True, timeout=60)
    assert size_of("digits.png") == (4 * 8, 4 * 8)
    assert size_of("digit.png") == (8, 8)
    assert size_of("mine.png") == (4 * 8, 4 * 8)
