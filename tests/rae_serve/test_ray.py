"""The adapter for Ray Data makes the engine's images. Ray runs in a process of its own, which ends with it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rae_serve.errors import BundleError, InvalidInput
from tests.serving import ROOT

pytest.importorskip("ray")

CODE = """
import sys
import numpy as np
import ray
from rae_serve.ray import dataset

ray.init(num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1")
images = dataset(sys.argv[1], seed=7, rows=range(3, 1303), temperature=0.5, device="cpu", actors=2).take_all()
np.savez(sys.argv[2], rows=[image["row"] for image in images], images=[image["image"] for image in images])
"""


def test_a_dataset_has_the_images_of_the_engine(bundle, engine, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", CODE, str(bundle.path), str(tmp_path / "images.npz")]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=110)
    with np.load(tmp_path / "images.npz") as arrays:
        order = np.argsort(arrays["rows"])
        assert np.array_equal(arrays["rows"][order], range(3, 1303))
        assert np.array_equal(arrays["images"][order], engine.sample(1300, seed=7, offset=3, temperature=0.5))
        assert arrays["images"].dtype == np.uint8


def test_bad_input_is_named_before_ray_starts(bundle, tmp_path):
    import ray

    from rae_serve.ray import dataset

    for field, wrong in (
        ("rows", {"rows": range(5, 5)}),
        ("seed", {"seed": -1}),
        ("temperature", {"temperature": 11}),
        ("actors", {"actors": 0}),
    ):
        with pytest.raises(InvalidInput) as raised:
            dataset(bundle.path, **{"seed": 7, "rows": range(9), **wrong})
        assert raised.value.field == field
    with pytest.raises(BundleError, match="no bundle"):
        dataset(tmp_path / "missing", seed=7, rows=range(9))
    assert not ray.is_initialized()
