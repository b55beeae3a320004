"""Evaluating a run in torch needs no onnx, which belongs to the exporter alone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from pathlib import Path
from training.evaluation.commands import evaluate

evaluate(Path(sys.argv[1]), "digits", "reconstruction,latent", Path(sys.argv[2]), 40, 0, "cifar10", None, "cpu")
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"onnx", "onnxscript"}, loaded
"""


def test_evaluating_a_run_imports_no_onnx(run, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(run.path), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "out" / "report.html").is_file()
