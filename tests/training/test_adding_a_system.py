"""docs/adding-a-system.md, followed to the letter in a copy of the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "adding-a-system.md").read_text(encoding="utf-8")
# The page's files: a heading that ends with the name of a file, and the first block of code under it.
FILES = dict(re.findall(r"^## \d\. [^\n]*`([\w./-]+)`\n+```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
VARIANTS = "tests/training/variants.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with the page's files in it."""
    root = tmp_path_factory.mktemp("source")
    for name in ("rae_serve", "training", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, text in FILES.items():
        if name != VARIANTS:
            assert not (root / name).exists()
            (root / name).write_text(text, encoding="utf-8")
    small = "SMALL: Final[dict[str, dict[str, Any]]] = {\n"
    variants = (root / VARIANTS).read_text(encoding="utf-8")
    assert small in variants
    (root / VARIANTS).write_text(variants.replace(small, small + FILES[VARIANTS]), encoding="utf-8")
    return root


def run(copy: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_a_model_a_recipe_and_a_test():
    assert list(FILES) == ["training/models/denoising.py", "training/recipes/denoising-digits.toml", VARIANTS]
    lines = [line for line in FILES["training/models/denoising.py"].splitlines() if line.strip()]
    assert len(lines) <= 50


def test_the_line_of_the_test_drives_the_model(copy):
    out = run(
        copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/training/test_models.py", "-k", "denoising or driven"
    )
    passed = int(re.search(r"(\d+) passed", out)[1])
    assert passed > 10


def test_it_trains_exports_and_draws(copy):
    cli = "rae_serve.cli"
    assert "noise" in run(copy, cli, "recipes", "denoising-digits")
    run(copy, cli, "train", "denoising-digits", "--steps", "30", "--set", "posthoc_components=3", "--out", "run")
    run(copy, cli, "export", "run", "--out", "bundle")
    engine = Engine(Bundle.load(copy / "bundle"), device="cpu")
    assert engine.sample(3, seed=1).shape == (3, 8, 8, 1)
    engine.close()
