"""What the tests of examples/ share: bundles, a server of them, and a way to run JavaScript."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rae_serve.bundle import Bundle
from rae_serve.client import Client
from tests.serving import ROOT, serving

EXAMPLES = ROOT / "examples"
# Grey and shipped; and in colour, 16 × 20 pixels, with a choice column, attributes and float16 weights.
BUNDLES = {
    "flexae-mnist-small": ROOT / "exported" / "flexae-mnist-small",
    "maskaae-mnist-small": ROOT / "exported" / "maskaae-mnist-small",
    "waves": ROOT / "tests" / "data" / "waves",
}
_PRELUDE = """
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import ort from "onnxruntime-node";
import * as rae from "rae-bundle";
import * as pictures from "rae-bundle/pictures.js";

const given = JSON.parse(readFileSync(0));
const sessionOptions = { intraOpNumThreads: 1 };
const open = (folder) => rae.loadBundle((name) => readFile(`${folder}/${name}`), ort, { sessionOptions });
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const numbers = (rows) => rows.map((row) => [...row]);
const floats = (rows) => rows.map((row) => Float32Array.from(row));
const problem = async (task) => {
  try { await task(); return "no error"; } catch (error) { return `${error.name}: ${error.message}`; }
};
const result = await (async () => { %s })();
console.log(JSON.stringify(result));
"""

RunJavaScript = Callable[..., Any]


@pytest.fixture(scope="session")
def javascript(node: str) -> RunJavaScript:
    """Run the body of an async JavaScript function, which sees its arguments as `given`; return its result."""

    def run(body: str, **given: Any) -> Any:
        command = [node, "--input-type=module", "--eval", _PRELUDE % body]
        done = subprocess.run(
            command, cwd=EXAMPLES, input=json.dumps(given), capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of the BUNDLES."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, path in BUNDLES.items():
        shutil.copytree(path, folder / name)
    with serving(folder, tmp_path_factory.mktemp("log") / "serve.log") as (address, _):
        yield address


@pytest.fixture(scope="session", params=BUNDLES)
def example(request: pytest.FixtureRequest) -> Bundle:
    """Each of the BUNDLES."""
    return Bundle.load(BUNDLES[request.param])


@pytest.fixture
def client(api: str, example: Bundle) -> Iterator[Client]:
    """A client of the service that uses the same bundle."""
    with Client(api, model=example.name) as client:
        yield client


@pytest.fixture
def photograph() -> bytes:
    """A PNG file of colours, larger than any of the models' images and of another shape."""
    import numpy as np

    from rae_serve import png

    y, x, channel = np.ogrid[:45, :70, :3]
    return png.encode(((x * 5 + y * 3 * (channel + 1)) % 256).astype(np.uint8))
