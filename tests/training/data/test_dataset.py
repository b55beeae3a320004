"""Datasets: their sources, how files are decoded, what is held out, and batches."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rae_serve import data_sets, labels
from rae_serve.errors import InvalidInput
from training import recipe as recipes
from training.data import batches, decoding, sources
from training.data import dataset as data
from training.data import labels as training_labels
from training.data.batches import Batches, to_pixels, to_tensor

CPU = torch.device("cpu")


def folder_of(path: Path, count: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new(mode, size, i if mode == "L" else (i, 0, 0)).save(path / f"{i:03d}.png")
    return path


def test_digits_are_real_and_disjoint():
    train = data.load("digits", "digits", shape={}, validation=0.1)
    assert train.images.shape == (1500, 8, 8, 1)
    assert (len(train.train), len(train.validation)) == (1350, 150)
    assert not set(train.train) & set(train.validation)
    assert train.images.max() == 255
    assert len(data.load("digits", "digits", shape={}, split="test").images) == 297


@pytest.mark.mnist
def test_mnist_from_a_folder_that_holds_it(pytestconfig):
    root = pytestconfig.rootpath / ".." / "shared" / "data"
    mnist = data.load(str(root), "mnist", shape={}, validation=0.05)
    assert mnist.images.shape == (60000, 28, 28, 1)
    assert mnist.name == data.load(str(root), "folder", shape={}).name == "mnist"
    assert len(mnist.validation) == 3000
    assert mnist.preprocessing.shape == (28, 28, 1)


def test_only_data_sets_have_test_images(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros((4, 8, 8), np.uint8))
    for source in (tmp_path / "mine.npy", folder_of(tmp_path / "folder", 4)):
        with pytest.raises(InvalidInput, match=f"data: {source} has no test split"):
            data.load(str(source), "mnist", shape={}, split="test")


@pytest.fixture
def celeba(tmp_path, monkeypatch) -> Path:
    """Return a folder with torchvision's layout of CelebA and eight images. The last, a test image, has no file."""
    monkeypatch.setattr("torchvision.datasets.CelebA._check_integrity", lambda _: True)  # knows the real tables only
    folder = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in range(1, 9)]
    (folder / "img_align_celeba").mkdir(parents=True)
    columns = {"bbox": "x y width height", "landmarks_align": "left right", "attr": "Smiling Young"}
    for table, header in columns.items():
        rows = [f"{name} {' '.join('1' for _ in header.split())}" for name in names]
        (folder / f"list_{table}_celeba.txt").write_text("\n".join([str(len(names)), header, *rows, ""]))
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} 7\n" for name in names))
    splits = zip(names, (0, 0, 0, 0, 1, 2, 2, 2), strict=True)
    (folder / "list_eval_partition.txt").write_text("".join(f"{name} {split}\n" for name, split in splits))
    for name in names[:-1]:
        Image.new("RGB", (178, 218), (int(name[:6]), 0, 200)).save(folder / "img_align_celeba" / name)
    return tmp_path


def test_celeba_by_its_splits_cropped_as_the_recipe_says(celeba):
    shape = recipes.load("flexae-celeba").preprocessing
    train = data.load(str(celeba), "celeba", shape=shape)
    assert (train.name, train.images.shape, train.preprocessing.crop) == ("celeba", (4, 64, 64, 3), 140)


def test_a_test_image_that_cannot_be_read_is_left_out_and_not_black(celeba):
    test = data.test_images(str(celeba), "celeba", {"height": 8, "width": 8})
    assert test.shape == (2, 8, 8, 3)
    assert test[..., 2].min() > 150


def test_large_data_with_a_missing_file_is_decoded_all_the_same(celeba, monkeypatch):
    monkeypatch.setattr(decoding, "LARGE_BYTES", 0)
    monkeypatch.setenv("RAE_SERVE_CACHE", str(celeba / "cache"))
    assert data.test_images(str(celeba), "celeba", {"height": 8, "width": 8}).shape == (2, 8, 8, 3)


def test_arrays_are_cropped_as_pictures_are(tmp_path):
    pixels = np.zeros((3, 8, 8), np.uint8)
    pixels[:, 2:6, 2:6] = 200
    np.save(tmp_path / "mine.npy", pixels)
    whole = data.load(str(tmp_path / "mine.npy"), "folder", shape={})
    cropped = data.load(str(tmp_path / "mine.npy"), "folder", shape={"height": 8, "width": 8, "crop": 4})
    assert whole.images.min() == 0
    assert cropped.images.min() > 100


def test_a_nested_folder_of_mixed_sizes_and_modes(tmp_path):
    folder_of(tmp_path / "a", 5, (80, 70))
    folder_of(tmp_path / "b" / "c", 5, (100, 90), "RGB")
    (tmp_path / "b" / "labels.csv").write_text("no image")
    (tmp_path / ".hidden").write_text("never looked at")
    photos = data.load(str(tmp_path), "folder", shape={})
    assert photos.preprocessing.shape == (64, 64, 3)
    assert photos.images.shape == (11, 64, 64, 3)
    assert len(photos.train) == 10
    assert [why.split(": ")[0] for why in photos.skipped] == [str(tmp_path / "b" / "labels.csv")]
    assert photos.name == tmp_path.name


def test_a_folder_of_one_shape_keeps_it(tmp_path):
    photos = data.load(str(folder_of(tmp_path, 4, (16, 12))), "folder", shape={})
    assert photos.preprocessing.shape == (12, 16, 1)
    assert [int(photos.images[i].max()) for i in photos.train] == [0, 1, 2, 3]


def test_the_recipe_decides_before_the_data(tmp_path):
    folder_of(tmp_path, 4, (16, 12))
    photos = data.load(str(tmp_path), "folder", shape={"height": 8, "width": 8, "mode": "RGB"})
    assert photos.preprocessing.shape == (8, 8, 3)


def test_a_folder_of_mostly_no_images_fails(tmp_path):
    folder_of(tmp_path, 2)
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("x")
    with pytest.raises(
        InvalidInput, match=r"3 of 5 files cannot be read as images, such as .*0\.txt: is not a readable picture"
    ):
        data.load(str(tmp_path), "folder", shape={})


def test_a_photograph_beyond_what_the_service_takes_is_trained_on(tmp_path):
    folder_of(tmp_path, 3)
    Image.new("L", (7200, 7200), 9).save(tmp_path / "large.png")
    photos = data.load(str(tmp_path), "folder", shape={"height": 8, "width": 8})
    assert photos.skipped == ()
    assert (photos.images[3] == 9).all()


def test_a_truncated_image_is_skipped(tmp_path):
    folder_of(tmp_path, 3, (64, 64))
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    (skipped,) = data.load(str(tmp_path), "folder", shape={}).skipped
    assert skipped.startswith(f"{tmp_path / '001.png'}: is not a readable picture")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 8, 8), np.float32), "must be uint8"),
        (np.zeros((5, 8), np.uint8), "must be uint8"),
        (np.zeros((5, 8, 8, 4), np.uint8), "must be uint8"),
        (np.zeros((0, 8, 8), np.uint8), "must be uint8"),
        (np.zeros((1, 8, 8), np.uint8), "too few"),
        (np.zeros((8, 8, 3), np.uint8), r"single image, uint8 \[8, 8, 3\]; images are \[N, H, W, C\]"),
        (np.zeros((8, 8, 1), np.uint8), "single image"),
        (np.zeros((8, 8, 4), np.uint8), "single image"),
        (np.zeros((5, 8, 8, 3), np.complex64), "must be uint8 .* not complex64"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InvalidInput, match=message):
        data.load(str(tmp_path / "x.npy"), "folder", shape={})


def test_arrays_in_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(6))
    for name in ("x.npy", "x.npz"):
        loaded = data.load(str(tmp_path / name), "mnist", shape={})
        assert loaded.name == "x"
        assert np.array_equal(loaded.images[..., 0], pixels)
    np.savez(tmp_path / "two.npz", a=pixels, b=pixels)
    with pytest.raises(InvalidInput, match="named images"):
        data.load(str(tmp_path / "two.npz"), "folder", shape={})
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="cannot be read as an array"):
        data.load(str(tmp_path / "bad.npy"), "folder", shape={})
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[100] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    for name in ("cut.npz", "flipped.npz"):
        with pytest.raises(InvalidInput, match="cannot be read as an array"):
            data.load(str(tmp_path / name), "folder", shape={})


@pytest.mark.parametrize("name", ["X.NPY", "x.Npy", "x.NPZ"])
def test_the_suffix_of_an_array_file_may_be_in_capitals(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    with (tmp_path / name).open("wb") as file:
        (np.savez if name.lower().endswith("z") else np.save)(file, pixels)
    assert np.array_equal(data.load(str(tmp_path / name), "folder", shape={}).images[..., 0], pixels)


def test_too_few_images_are_counted_after_the_fraction(tmp_path):
    folder_of(tmp_path, 24)
    with pytest.raises(InvalidInput, match=r"has 24 images, .* validation=0.99 holds out 23 of them"):
        data.load(str(tmp_path), "folder", shape={}, validation=0.99)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({(28, 28): 20, (300, 200): 1, (200, 300): 1}, (28, 28)),
        ({(28, 28): 20, (27, 26): 1}, (28, 28)),
        ({(48, 32): 3, (300, 200): 2}, (32, 48)),
        ({(60, 44): 3}, (44, 60)),
        ({(96, 112): 3}, (112, 96)),
        ({(92, 112): 3}, (64, 64)),
        ({(28, 28): 2, (300, 200): 2, (300, 400): 1}, (64, 64)),
        ({(28, 28): 2, (40, 40): 2, (300, 400): 1}, (32, 32)),
        ({(300, 200): 9, (20, 20): 1, (30, 30): 1}, (64, 64)),
        ({(30, 30): 9, (400, 400): 1, (500, 500): 1}, (32, 32)),
    ],
)
def test_the_size_is_that_of_most_images(tmp_path, sizes, expected):
    for number, (size, count) in enumerate(sizes.items()):
        folder_of(tmp_path / str(number), count, size)
    assert data.load(str(tmp_path), "folder", shape={}).preprocessing.shape == (*expected, 1)


def test_pictures_that_cannot_be_read_decide_neither_size_nor_mode(tmp_path):
    """Their headers are good, so only decoding them tells."""
    folder_of(tmp_path / "good", 5, (32, 32))
    folder_of(tmp_path / "cut", 5, (80, 80), "RGB")
    for number, path in enumerate((tmp_path / "cut").iterdir()):
        noise = np.random.default_rng(number).integers(0, 256, (80, 80, 3), np.uint8)
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:2000])
    photos = data.load(str(tmp_path), "folder", shape={})
    assert photos.preprocessing.shape == (32, 32, 1)
    assert len(photos.skipped) == 5
    assert [int(photos.images[row].max()) for row in photos.train] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["big-endian", "little-endian", "32 bits"])
def test_16_bit_greys_of_every_kind_are_grey(tmp_path, kind):
    greys = np.add.outer(np.arange(32) * 1000, np.arange(32) * 900)
    for number in range(4):
        path = tmp_path / f"{number}.tif"
        if kind == "big-endian":
            picture = Image.frombytes("I;16B", (32, 32), greys.astype(">u2").tobytes())
        else:
            picture = Image.fromarray(greys.astype(np.uint16 if kind == "little-endian" else np.int32))
        picture.save(path)
    photos = data.load(str(tmp_path), "folder", shape={})
    assert np.array_equal(photos.images[0, ..., 0], greys >> 8)
    assert photos.images.shape == (4, 32, 32, 1)


@pytest.mark.parametrize("large", [False, True])
def test_dark_16_bit_pictures_are_counted_every_time(tmp_path, monkeypatch, caplog, large):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "LARGE_BYTES", 0 if large else 1 << 30)
    folder_of(tmp_path / "images", 3)
    for number in range(2):
        Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "images" / f"deep-{number}.png")
    for times in (1, 2):
        assert data.load(str(tmp_path / "images"), "folder", shape={}).images.max() == 15
        assert len(caplog.messages) == times
        assert caplog.messages[-1].startswith("2 pictures of 16 bits")


def test_files_that_no_plugin_of_the_list_reads_are_skipped(tmp_path):
    """Pillow has plugins for a hundred formats, whose errors are of many types."""
    folder_of(tmp_path, 8)
    pixel_format = struct.pack("<8I", 32, 4, int.from_bytes(b"UB12", "little"), 0, 0, 0, 0, 0)
    header = struct.pack("<7I", 124, 0x1007, 8, 8, 0, 0, 0) + bytes(44) + pixel_format
    (tmp_path / "texture.dds").write_bytes(b"DDS " + header + bytes(20))
    Image.new("L", (8, 8)).save(tmp_path / "a.pgm")
    Image.new("L", (8, 8)).save(tmp_path / "a.tga")
    photos = data.load(str(tmp_path), "folder", shape={})
    assert [Path(line.split(": ")[0]).name for line in photos.skipped] == ["a.pgm", "a.tga", "texture.dds"]
    assert photos.images.shape == (11, 8, 8, 1)


def test_a_folder_of_pictures_in_other_formats_names_those_that_are_read(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.pgm")
    with pytest.raises(InvalidInput, match=r"holds no image .* such as .*a\.pgm: .* \(none of PNG, JPEG, WEBP"):
        data.load(str(tmp_path), "folder", shape={})


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "cifar-10-batches-py", "celeba"])
def test_a_class_folder_that_is_named_like_a_data_set_is_a_folder_of_images(tmp_path, name):
    folder_of(tmp_path / name / "raw", 3)
    folder_of(tmp_path / "other", 3)
    for preferred in ("folder", "mnist", "celeba"):
        assert data_sets.found_in(tmp_path, preferred) is None
        assert data.load(str(tmp_path), preferred, shape={}).images.shape == (6, 8, 8, 1)
    assert labels.read(str(tmp_path), None, "celeba", pytest.fail).names == [name, "other"]


def test_the_name_of_a_data_set_wins_over_a_folder_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    data.load("digits", "digits", shape={})
    assert caplog.messages == []
    folder_of(tmp_path / "digits", 4, (16, 12))
    assert data.load("digits", "digits", shape={}).images.shape == (1500, 8, 8, 1)
    assert labels.read("digits", None, "digits", lambda: training_labels).names == [str(k) for k in range(10)]
    assert len(caplog.messages) == 2
    assert "write ./digits" in caplog.messages[0]
    assert data.load("./digits", "digits", shape={}).images.shape == (4, 12, 16, 1)
    assert len(caplog.messages) == 2


def test_the_cache_takes_names_that_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "LARGE_BYTES", 0)
    folder = folder_of(tmp_path / os.fsdecode(b"caf\xe9"), 4)
    (folder / os.fsdecode(b"\xff.png")).write_text("no picture")
    photos = data.load(str(folder), "folder", shape={})
    assert photos.name == r"caf\xe9"
    assert photos.skipped[0].startswith(rf"{tmp_path}/caf\xe9/\xff.png: is not a readable picture")
    assert np.array_equal(photos.train, range(4))


def test_a_damaged_data_set_is_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{split}-{kind}").touch()
    with pytest.raises(InvalidInput, match="mnist cannot be loaded"):
        data.load(str(tmp_path), "mnist", shape={})


def test_what_is_no_source_and_an_empty_folder(tmp_path):
    with pytest.raises(InvalidInput, match="'imagenet' is neither a data set"):
        data.load("imagenet", "mnist", shape={})
    with pytest.raises(InvalidInput, match="is empty"):
        data.load(str(tmp_path), "mnist", shape={})


def test_large_data_is_decoded_once_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path / "cache"))
    folder = folder_of(tmp_path / "images", 6)
    (folder / "notes.txt").write_text("x")
    plain = data.load(str(folder), "folder", shape={})
    monkeypatch.setattr(decoding, "LARGE_BYTES", 100)
    first = data.load(str(folder), "folder", shape={})
    monkeypatch.setattr(decoding, "_decode_to", None)  # a second decoding would fail
    again = data.load(str(folder), "folder", shape={})
    assert isinstance(again.images, np.memmap)
    assert again.digest() == first.digest() == plain.digest()
    assert again.skipped == plain.skipped != ()


def test_a_full_disk_while_large_data_is_decoded_is_one_error_and_leaves_nothing(tmp_path):
    """Run in a process of its own, whose files cannot grow beyond a limit, as if the disk were full."""
    folder = folder_of(tmp_path / "images", 20, (32, 32))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from rae_serve.cli.__main__ import main; from training.data import decoding; decoding.LARGE_BYTES = 100\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "train", "flexae-folder", "--data", str(folder), "--out", tmp_path / "run"]
    cache = tmp_path / "cache"
    environment = os.environ | {"RAE_SERVE_CACHE": str(cache)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(
        f"rae-serve: {cache / 'decoded'} cannot be written: File too large"
    )
    assert list((cache / "decoded").iterdir()) == []


def test_batches_are_a_function_of_seed_and_number():
    rows = np.arange(50, dtype=np.float32)[:, None]
    index = np.arange(50)
    one, other = Batches(rows, index, 8, 3, CPU), Batches(rows, index, 8, 3, CPU)
    drawn = [next(one) for _ in range(15)]
    other.drawn = 10
    assert torch.equal(next(other), drawn[10])
    epoch = torch.cat(drawn[:6])
    assert len(epoch.unique()) == 48
    assert not torch.equal(epoch, torch.cat(drawn[6:12]))
    assert not torch.equal(next(Batches(rows, index, 8, 4, CPU)), drawn[0])


def test_flipped_batches_mirror_half_of_the_images_and_nothing_else():
    rows = np.random.default_rng(0).integers(0, 256, (64, 3, 5, 2), dtype=np.uint8)
    before, index = rows.copy(), np.arange(64)
    plain, flipped = Batches(rows, index, 64, 3, CPU), Batches(rows, index, 64, 3, CPU, flip=True)
    counts = []
    for _ in range(20):
        x, y = next(plain), next(flipped)
        mirrored = [not torch.equal(one, other) for one, other in zip(x, y, strict=True)]
        assert torch.equal(torch.where(torch.tensor(mirrored)[:, None, None, None], x.flip(3), x), y)
        counts.append(sum(mirrored))
    assert 0.4 < np.mean(counts) / 64 < 0.6
    assert len(set(counts)) > 1
    assert np.array_equal(rows, before)
    again = Batches(rows, index, 64, 3, CPU, flip=True)
    again.drawn = 19
    assert torch.equal(next(again), y)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_batches_of_rows_on_the_device_are_the_same(monkeypatch, kind):
    rows = np.random.default_rng(0).integers(0, 256, (5000, 2, 3, 1), dtype=np.uint8)
    if kind == "latents":
        rows = rows.reshape(5000, 6).astype(np.float32)
    rows.flags.writeable = False  # as those that are mapped from a file
    index, flip = np.arange(0, 5000, 3), kind == "pixels"
    usual = Batches(rows, index, 64, 3, CPU, flip=flip)
    monkeypatch.setattr(batches, "_fits", lambda rows, device: True)
    on_device = Batches(rows, index, 64, 3, CPU, flip=flip)
    for _ in range(60):  # more than two epochs
        assert torch.equal(next(on_device), next(usual))
    assert torch.equal(next(on_device.whole()), next(usual))


def test_pixels_to_tensors_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 2), dtype=np.uint8)
    x = to_tensor(pixels, CPU)
    assert x.shape == (4, 2, 3, 5)
    assert np.array_equal(to_pixels(x).numpy(), pixels)
    assert to_pixels(torch.tensor([[[[-1.0, 2.0]]]])).flatten().tolist() == [0, 255]
    assert to_pixels(torch.tensor([[[[126.5, 127.4, 127.5]]]]) / 255).flatten().tolist() == [127, 127, 128]


def test_the_names_are_those_of_the_sources():
    synthetic = {"synthetic-8", "synthetic-16"}
    assert set(data_sets.NAMES) == {"digits", *synthetic, "mnist", "fashion-mnist", "cifar10", "celeba"}
    assert set(data_sets.NAMES) == {"digits", *sources.SYNTHETIC, *sources.TORCHVISION}
