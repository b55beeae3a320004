"""OpenMP reports how often its idle threads check for work: as often as we set, unless the user sets it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

KEYS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.skipif(platform.system() != "Linux", reason="torch uses GNU's OpenMP only on Linux")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "GOMP_SPINCOUNT = '1000'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "active"}, "GOMP_SPINCOUNT = '30000000000'"),
    ],
)
def test_idle_threads_check_seldom_unless_the_user_sets_it(given: dict[str, str], kept: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in KEYS}
    # As `rae-serve train` imports it.
    command = [sys.executable, "-c", "from rae_serve.cli.common import import_training; import_training('commands')"]
    environment |= given | {"OMP_DISPLAY_ENV": "verbose"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert kept in shown.stderr
