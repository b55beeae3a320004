"""How OpenMP's threads wait, as the library that torch loads reports it: by our count, unless the user has said."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

KEYS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.skipif(platform.system() != "Linux", reason="torch has GNU's OpenMP on Linux alone")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "GOMP_SPINCOUNT = '1000'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "active"}, "GOMP_SPINCOUNT = '30000000000'"),
    ],
)
def test_spins_are_few_unless_given(given: dict[str, str], kept: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in KEYS}
    command = [sys.executable, "-m", "rae_serve.cli", "recipes"]
    environment |= given | {"OMP_DISPLAY_ENV": "verbose"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert kept in shown.stderr
