"""Shards of images: the same files however the work is divided or interrupted, and nothing else in the folder."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rae_serve import generation, shards
from rae_serve.bundle import Bundle
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.generation import Outcome, Worker, generate

SEED = 7
ROWS = range(3, 303)
CUT = 128  # two whole shards and a part of one; each needs more than one batch
NAMES = [f"7-{first:016d}-{end:016d}" for first, end in ((3, 131), (131, 259), (259, 303))]


def make(bundle: Bundle, out: Path, **options: object) -> Outcome:
    return generate(bundle, out, **{"seed": SEED, "rows": ROWS, "rows_per_shard": CUT, "device": "cpu", **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def members(path: Path) -> dict[str, bytes]:
    """The files in a tar file, in their order."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def another_model(bundle: Bundle) -> Bundle:
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"digest": "0" * 64}), bundle._contents)


@pytest.fixture(scope="module")
def finished(bundle, tmp_path_factory) -> Path:
    """A complete folder of PNG files. Tests copy it, and do not change it."""
    out = tmp_path_factory.mktemp("generated") / "whole"
    assert make(bundle, out) == Outcome(made=3, found=0, complete=True)
    return out


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of the complete folder."""
    (tmp_path / "out").mkdir()
    for name, data in contents(finished).items():
        (tmp_path / "out" / name).write_bytes(data)
    return tmp_path / "out"


@pytest.mark.parametrize("format_", ["png", "webp"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tar_files_hold_the_pictures_of_the_engine(bundle, engine, tmp_path, format_, temperature):
    make(bundle, tmp_path, format=format_, temperature=temperature)
    found = {}
    for name in NAMES:
        found |= members(tmp_path / f"{name}.tar")
    keys = [f"7-{row:016d}" for row in ROWS]
    assert list(found) == [f"{key}.{suffix}" for key in keys for suffix in (format_, "json")]
    pictures = [np.asarray(Image.open(io.BytesIO(found[f"{key}.{format_}"])).convert("L")) for key in keys]
    expected = engine.sample(len(ROWS), seed=SEED, offset=ROWS.start, temperature=temperature)
    assert np.array_equal(pictures, expected[..., 0])
    facts = [json.loads(found[f"{key}.json"]) for key in keys]
    assert facts == [{"seed": SEED, "row": row, "digest": bundle.manifest.digest} for row in ROWS]


def test_npz_files_hold_the_arrays_of_the_engine(bundle, engine, tmp_path):
    make(bundle, tmp_path, format="npz")
    loaded = [np.load(tmp_path / f"{name}.npz", allow_pickle=False) for name in NAMES]
    pixels, rows = (np.concatenate([arrays[name] for arrays in loaded]) for name in ("images", "rows"))
    assert np.array_equal(pixels, engine.sample(len(ROWS), seed=SEED, offset=ROWS.start))
    assert pixels.dtype == np.uint8
    assert np.array_equal(rows, ROWS)
    assert rows.dtype == np.int64
    assert {(int(arrays["seed"]), str(arrays["digest"])) for arrays in loaded} == {(SEED, bundle.manifest.digest)}
    for arrays in loaded:
        arrays.close()


def test_a_tar_file_is_what_tarfile_makes_of_its_members(finished):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members(finished / f"{NAMES[0]}.tar").items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert buffer.getvalue() == (finished / f"{NAMES[0]}.tar").read_bytes()


def test_webdataset_reads_the_shards(finished, engine):
    pytest.importorskip("webdataset")
    code = (  # in a process of its own, because WebDataset does not close its files
        "import sys, webdataset\n"
        "for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode('l8'):\n"
        "    print(sample['__key__'], sample['json']['row'], sample['png'].tobytes().hex())"
    )
    files = [finished / f"{name}.tar" for name in NAMES]
    result = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60)
    pixels = engine.sample(len(ROWS), seed=SEED, offset=ROWS.start)
    assert result.stdout.splitlines() == [
        f"7-{row:016d} {row} {image.tobytes().hex()}" for row, image in zip(ROWS, pixels, strict=True)
    ]


@pytest.mark.parametrize("format_", shards.Format.__args__)
def test_the_files_are_the_same_for_any_number_of_workers_and_threads(bundle, tmp_path, format_):
    make(bundle, tmp_path / "one", format=format_, threads=1)
    outcomes = [
        make(bundle, tmp_path / "three", format=format_, worker=Worker(index, 3), threads=4) for index in (2, 0, 1)
    ]
    assert outcomes == [Outcome(1, 0, False), Outcome(1, 0, False), Outcome(1, 0, True)]
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_workers_may_run_at_the_same_time(bundle, finished, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(make, bundle, tmp_path, worker=Worker(index, 4)) for index in range(4)]
        outcomes = [worker.result() for worker in running]
    assert sorted(outcome.made for outcome in outcomes) == [0, 1, 1, 1]
    assert contents(tmp_path) == contents(finished)


def test_the_list_names_every_shard(bundle, finished):
    listed = json.loads((finished / "generate.json").read_text())
    assert listed.pop("shards") == [
        {
            "name": f"{name}.tar",
            "rows": list(map(int, name.split("-")[1:])),
            "bytes": (finished / f"{name}.tar").stat().st_size,
            "sha256": hashlib.sha256((finished / f"{name}.tar").read_bytes()).hexdigest(),
        }
        for name in NAMES
    ]
    assert listed == {
        "model": bundle.name,
        "digest": bundle.manifest.digest,
        "seed": SEED,
        "temperature": 1.0,
        "format": "png",
        "rows": [3, 303],
        "rows_per_shard": CUT,
    }


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: [path.unlink(), path.with_name(f"{path.name}.json").unlink()],
    ],
    ids=["flipped", "truncated", "empty", "deleted", "never made"],
)
def test_only_what_is_damaged_or_missing_is_made(bundle, finished, folder, damage):
    damage(folder / f"{NAMES[1]}.tar")
    (folder / "generate.json").unlink()
    assert make(bundle, folder) == Outcome(made=1, found=2, complete=True)
    assert contents(folder) == contents(finished)


def test_the_list_is_written_again_though_nothing_is_made(bundle, finished, folder):
    (folder / "generate.json").unlink()
    assert make(bundle, folder) == Outcome(made=0, found=3, complete=True)
    assert contents(folder) == contents(finished)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seed": 8}, "seed 7, not 8"),
        ({"temperature": 0.5}, "temperature 1.0, not 0.5"),
        ({"format": "webp"}, "format png, not webp"),
        ({"format": "npz"}, "format png, not npz"),
        ({"rows_per_shard": 100}, "cut after every 100"),
        ({"rows": range(4, 303)}, "the rows 4:303"),
        ({"rows": range(3, 302)}, "the rows 3:302"),
    ],
)
def test_shards_of_something_else_are_refused(bundle, finished, folder, options, text):
    with pytest.raises(RaeServeError, match=text):
        make(bundle, folder, **options)
    assert contents(folder) == contents(finished)


def test_shards_of_another_model_are_refused(bundle, finished, folder):
    with pytest.raises(RaeServeError, match=f"digest {bundle.manifest.digest}, not 0000"):
        make(another_model(bundle), folder)
    assert contents(folder) == contents(finished)


def test_a_shard_or_record_of_unknown_origin_is_refused(bundle, folder):
    record = folder / f"{NAMES[1]}.tar.json"
    text = record.read_bytes()
    for data, problem in ((None, "has no record"), (b"{}", "is not the record"), (b"\xff", "is not the record")):
        record.unlink() if data is None else record.write_bytes(data)
        before = contents(folder)
        with pytest.raises(RaeServeError, match=problem):
            make(bundle, folder)
        assert contents(folder) == before
    record.write_bytes(text.replace(NAMES[1].encode(), NAMES[0].encode()))
    with pytest.raises(RaeServeError, match="is not the record"):
        make(bundle, folder)


def test_a_range_grows_if_the_whole_shards_stay(bundle, finished, folder):
    (folder / f"{NAMES[2]}.tar").unlink()
    (folder / f"{NAMES[2]}.tar.json").unlink()
    assert make(bundle, folder, rows=range(3, 387)) == Outcome(made=1, found=2, complete=True)
    assert json.loads((folder / "generate.json").read_text())["rows"] == [3, 387]


def test_other_files_are_left_alone(bundle, finished, tmp_path):
    mine = ("slurm-0.out", "7-1-2.tar", ".draft", f".{NAMES[0]}.tar.draft")
    for name in mine:
        (tmp_path / name).write_text(name)
    make(bundle, tmp_path)
    assert contents(tmp_path) == contents(finished) | {name: name.encode() for name in mine}


def test_what_a_killed_worker_left_is_deleted_by_its_successor(bundle, finished, tmp_path):
    drafts = [tmp_path / f".{name}.{token}.draft" for name, token in ((f"{NAMES[0]}.tar", "0123abcd"),
              (f"{NAMES[1]}.tar", "0123abcd"), (f"{NAMES[1]}.tar.json", "4567cdef"))]  # fmt: skip
    for draft in drafts:
        draft.write_bytes(b"half")
    make(bundle, tmp_path, worker=Worker(1, 3))
    assert [draft.exists() for draft in drafts] == [True, False, False]
    make(bundle, tmp_path)
    assert contents(tmp_path) == contents(finished)


@pytest.mark.parametrize("failing", ["encode", "write"])
def test_an_error_leaves_no_part_of_a_shard(bundle, tmp_path, monkeypatch, failing):
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards._Tar, failing, fails)
    with pytest.raises(RaeServeError, match=r"7-0+3-0+131\.tar cannot be written: No space left on device"):
        make(bundle, tmp_path, worker=Worker(0, 3))
    assert list(tmp_path.iterdir()) == []


def test_batches_wait_for_the_disk_in_a_limited_number(bundle, tmp_path, monkeypatch):
    submitted = written = most = 0

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments):
            nonlocal submitted, most
            submitted += self._thread_name_prefix == "lane"
            most = max(most, submitted - written)
            return super().submit(*arguments)

    write = shards._Npz.write

    def counting(self, file, rows, encoded):
        def counted():
            nonlocal written
            for batch in encoded:
                yield batch
                written += 1

        write(self, file, rows, counted())

    monkeypatch.setattr(generation, "ThreadPoolExecutor", Counting)
    monkeypatch.setattr(shards._Npz, "write", counting)
    make(bundle, tmp_path, rows=range(64 * 50), rows_per_shard=64 * 50, format="npz", threads=3)
    assert (submitted, written) == (50, 50)
    assert 3 <= most <= 6


def test_progress_is_reported_to_the_end(bundle, folder):
    (folder / f"{NAMES[2]}.tar").unlink()
    reports: list[tuple[int, int]] = []
    make(bundle, folder, worker=Worker(0, 2), report=lambda *numbers: reports.append(numbers))
    assert {total for _, total in reports} == {128 + 44}
    done = [number for number, _ in reports]
    assert done == sorted(done)
    assert done[-1] == 128 + 44


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**53}),
        ("seed", {"seed": "7"}),
        ("rows", {"rows": range(5, 5)}),
        ("rows", {"rows": range(9, 3)}),
        ("rows", {"rows": range(-1, 3)}),
        ("rows", {"rows": range(0, 2**53 + 1)}),
        ("rows", {"rows": range(0, 2**80)}),
        ("rows", {"rows": range(0, 10, 2)}),
        ("rows-per-shard", {"rows_per_shard": 0}),
        ("shard", {"worker": Worker(0, 0)}),
        ("shard", {"worker": Worker(5, 4)}),
        ("shard", {"worker": Worker(4, 4)}),
        ("shard", {"worker": Worker(-1, 4)}),
        ("temperature", {"temperature": float("nan")}),
        ("format", {"format": "gif"}),
        ("threads", {"threads": -1}),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(bundle, tmp_path, field, options):
    with pytest.raises(InvalidInput) as raised:
        make(bundle, tmp_path / "out", **options)
    assert raised.value.field == field
    assert not (tmp_path / "out").exists()


def test_the_last_row_of_all_can_be_made(bundle, engine, tmp_path):
    make(bundle, tmp_path, rows=range(2**53 - 2, 2**53), format="npz")
    with np.load(tmp_path / f"7-{2**53 - 2:016d}-{2**53:016d}.npz") as arrays:
        assert np.array_equal(arrays["images"], engine.sample(2, seed=SEED, offset=2**53 - 2))
        assert arrays["rows"].tolist() == [2**53 - 2, 2**53 - 1]


@pytest.mark.parametrize(
    ("count", "rows", "cut"), [(1, 300, 128), (3, 300, 128), (2, 256, 128), (5, 7, 10), (4, 9, 1)]
)
def test_the_rows_of_all_workers_are_all_rows_once(count, rows, cut):
    series = shards.Series(digest="0" * 64, seed=1, temperature=1.0, format="png")
    plan = shards.Plan(series, range(2, 2 + rows), cut)
    parts = [range(index, len(plan), count) for index in range(count)]
    made = [[row for index in part for row in plan.rows_of(index)] for part in parts]
    assert sorted(row for rows in made for row in rows) == list(range(2, 2 + rows))
    assert [plan.count(part) for part in parts] == list(map(len, made))
    assert [plan.index(plan.name(index)) for index in range(len(plan))] == list(range(len(plan)))
