"""Say which files of the service take the CPU time of requests.

    pip install py-spy==0.4.3
    python -m benchmarks.serving.profile BUNDLE [--n 1] [--connections 32] [--seconds 10]

py-spy looks at every running Python thread of the service 200 times per second while wrk sends requests. A sample
counts for the innermost function that is not of the standard library. So the graphs are in `onnxruntime`, a C
function counts for the Python function that calls it, and uvloop, with the sockets, for `uvicorn/_compat.py`, which
starts it. Threads of ONNX Runtime's own are not seen: with more than two cores, set RAE_SERVE_THREADS=2, so that each
batch runs on the thread that calls it. On Linux, py-spy needs root or kernel.yama.ptrace_scope=0.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from benchmarks.serving.servers import ROOT, at_least_one, bundle_folder, running

SAMPLES_PER_SECOND = 200
LEAST_SHARE = 0.01  # files below it are summed up
FRAME = re.compile(r"\((?P<path>[^;]*?):\d+\)(?:;|$)")
WAITING = re.compile(r"\bwait \([^;]*\bthreading\.py:\d+\)$")  # the thread is about to sleep, or has just woken
PACKAGES = Path(sysconfig.get_path("purelib"))


def samples_by_file(raw: str) -> collections.Counter[str]:
    """Count samples by the file of their innermost function outside of the standard library.

    Args:
        raw: The output of `py-spy record --format raw --full-filenames`: a stack from the outermost to the innermost
            function, and its number of samples, in each line.
    """
    counts: collections.Counter[str] = collections.Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if WAITING.search(stack):
            continue
        files = [_short_name(frame["path"]) for frame in FRAME.finditer(stack)]
        counts[next((name for name in reversed(files) if name), "standard library alone")] += int(count)
    return counts


def _short_name(path: str) -> str | None:
    """Return a file's path in its package or this repository, as Markdown code; None for the standard library."""
    for root in (PACKAGES, ROOT):
        if Path(path).is_relative_to(root):
            return f"`{Path(path).relative_to(root)}`"
    return None


def main() -> None:
    """Profile, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=bundle_folder, help="the folder of the bundle to serve")
    parser.add_argument("--n", type=at_least_one, default=1, help="the number of images that each request asks for")
    parser.add_argument("--connections", type=at_least_one, default=32, help="the number of requests at a time")
    parser.add_argument("--seconds", type=at_least_one, default=10, help="how long to send requests")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the graphs run")
    arguments = parser.parse_args()
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=Path(sys.executable).parent)
    if spy is None:
        parser.error("py-spy is not installed: pip install py-spy==0.4.3")
    with (
        running("rae-serve", arguments.bundle, arguments.device) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        server.load(arguments.n, arguments.connections, 2)  # warm-up
        raw = Path(folder) / "raw"
        # Without --nonblocking, py-spy stops all threads to look, and then sees those that wait as running.
        options = ["--format", "raw", "--full-filenames", "--subprocesses", "--nonblocking"]
        options += ["--rate", str(SAMPLES_PER_SECOND)]
        command = [spy, "record", *options, "--duration", str(arguments.seconds), "--output", str(raw)]
        recording = subprocess.Popen(
            [*command, "--pid", str(server.process.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        load = server.load(arguments.n, arguments.connections, arguments.seconds)
        _, problem = recording.communicate(timeout=60)
        if recording.returncode:
            sys.exit(f"py-spy failed: {problem.strip()}")
        counts = samples_by_file(raw.read_text(encoding="utf-8"))
    print(f"{load.per_s:,.0f} requests/s, {load.cpu_us:,.0f} CPU µs per request, {counts.total():,} samples\n")
    print("| file | share of samples |\n|---|---|")
    rest = 0.0
    for name, count in counts.most_common():
        share = count / counts.total()
        if share >= LEAST_SHARE:
            print(f"| {name} | {share:.1%} |")
        else:
            rest += share
    print(f"| all others | {rest:.1%} |")


if __name__ == "__main__":
    main()
