"""`rae-serve generate`: what it says, and what it leaves when it is killed, interrupted or out of disk."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.waiting import wait_until

LIMIT = 1 << 16  # bytes that a file may have in the test of a full disk


def words(bundle: Path, out: Path, *more: object) -> list[object]:
    return ["generate", bundle, "--seed", 7, "--out", out, "--device", "cpu", *more]


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file: a difference between megabytes takes pytest minutes to show."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@contextmanager
def running(words: list[object]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rae_serve.cli", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def test_shards_are_made_once(command, bundle, engine, tmp_path):
    request = words(bundle.path, tmp_path / "out", "--rows", "5:105", "--rows-per-shard", 40, "--format", "npz")
    status, out, err = command(*request, "--shard", "1/2")
    assert (status, err) == (0, "")
    assert out == f"{tmp_path}/out: shards made: 1, found undamaged: 0; shards of other workers are missing\n"
    status, out, err = command(*request)
    assert (status, err) == (0, "")
    assert out == f"{tmp_path}/out: shards made: 2, found undamaged: 1; generate.json lists all shards\n"
    names = [shard["name"] for shard in json.loads((tmp_path / "out" / "generate.json").read_text())["shards"]]
    pixels = []
    for name in names:
        with np.load(tmp_path / "out" / name) as arrays:
            pixels.append(arrays["images"])
    assert np.array_equal(np.concatenate(pixels), engine.sample(100, seed=7, offset=5))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--rows", "5:5"], "5:5"),
        (["--rows", "9:3"], "9:3"),
        (["--rows", "-1:3"], "-1:3"),
        (["--rows", "10"], "must be A:B, such as 0:1000000, not '10'"),
        (["--rows", "a:b"], "'a:b'"),
        (["--rows", "0:9007199254740993"], "0:9007199254740993"),
        (["--rows", "0:9" + "9" * 5000], "9" * 31),
        (["--rows", "0:9", "--shard", "0/0"], "0/0"),
        (["--rows", "0:9", "--shard", "5/4"], "5/4"),
        (["--rows", "0:9", "--shard", "4/4"], "4/4"),
        (["--rows", "0:9", "--shard", "1"], "must be k/K, such as 0/8, not '1'"),
        (["--rows", "0:9", "--shard", "-1/2"], "'-1/2'"),
        (["--rows", "0:9", "--rows-per-shard", 0], "rows-per-shard"),
        (["--rows", "0:9", "--rows-per-shard", "many"], "many"),
        (["--rows", "0:9", "--format", "gif"], "gif"),
        (["--rows", "0:9", "--temperature", 11], "11"),
        (["--rows", "0:9", "--threads", -1], "threads"),
        (["--rows", "0:9", "--seed", 2**53], "seed"),
        ([], "--rows"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, bundle, tmp_path, more, text):
    fails(words(bundle.path, tmp_path / "out", *more), text)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(fails, bundle, tmp_path):
    (tmp_path / "file").touch()
    fails(words(bundle.path, tmp_path / "file", "--rows", "0:9"), "file is a file")
    fails(words(bundle.path, tmp_path / "file" / "out", "--rows", "0:9"), "file is a file")
    fails(words(bundle.path, "/proc/out", "--rows", "0:9"), "/proc/out cannot be written")
    fails(words(tmp_path, tmp_path / "out", "--rows", "0:9"), "is not a bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_line_and_leaves_whole_shards(command, bundle, tmp_path):
    """The system refuses to let any file grow beyond LIMIT, as a full disk would."""
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))\n"
        "from rae_serve.cli.__main__ import main\n"
        "main()"
    )
    out = tmp_path / "out"
    request = words(bundle.path, out, "--rows", "0:1000", "--rows-per-shard", 250)
    command(*request, "--shard", "1/4")
    before = contents(out)
    limited = [sys.executable, "-c", code, *map(str, request)]
    result = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"rae-serve: {out}/7-[0-9-]+\.tar cannot be written: File too large\n", result.stderr)
    assert contents(out) == before


def test_a_killed_worker_leaves_whole_shards_and_its_successor_the_rest(command, bundle, tmp_path):
    request = ("--rows", "0:20000", "--rows-per-shard", 200)
    out = tmp_path / "killed"
    with running(words(bundle.path, out, *request)) as process:
        wait_until(lambda: len(list(out.glob("*.tar"))) > 2, 60, "some shards are there")
        wait_until(lambda: list(out.glob(".*.draft")), 60, "another one is being made")
        process.kill()
    whole = sorted(out.glob("*.tar"))
    assert 2 < len(whole) < 100
    for path in whole:
        record = json.loads(path.with_name(f"{path.name}.json").read_text())["shard"]
        assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    status, said, _ = command(*words(bundle.path, out, *request))
    assert status == 0
    assert f"made: {100 - len(whole)}, found undamaged: {len(whole)};" in said
    command(*words(bundle.path, tmp_path / "whole", *request))
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_leaves_whole_shards_only(bundle, tmp_path):
    out = tmp_path / "out"
    with running(words(bundle.path, out, "--rows", "0:10000000", "--rows-per-shard", 200)) as process:
        wait_until(lambda: list(out.glob("*.tar")), 60, "a shard is there")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, b"", b"rae-serve: interrupted\n")
    assert not list(out.glob(".*"))
    assert not (out / "generate.json").exists()
    for path in out.glob("*.tar"):
        assert path.with_name(f"{path.name}.json").exists()
