"""Atomic writes, by which a file or folder appears complete or not at all; and paths as text."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import Literal

from rae_serve.errors import RaeServeError

Used = Literal["refuse", "fill", "swap"]


def write(path: Path, data: bytes) -> None:
    """Write a file atomically; when this function returns, the file is on the disk.

    A symbolic link stays, and the file that it points to is written. So is a device or a pipe, such as /dev/null.

    Raises:
        RaeServeError: The file cannot be written; a file that was at `path` before is unchanged.
    """
    with named_errors(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # renaming a draft would put a file in the place of the device
            return
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BufferedRandom]:
    """Yield a temporary file to write; at the end give it the name `path`, or delete it if the block fails.

    The file is on the disk before it has its name. Several writers of one path do not disturb each other; the last
    one wins. A process that is killed leaves a hidden file behind, which `target_of_draft` recognises.

    Raises:
        RaeServeError: The file cannot be written; a file that was at `path` before is unchanged.
    """
    with named_errors(path):
        target = Path(os.path.realpath(path))
        _existing_folder(target.parent)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.draft")
        try:
            with draft.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            with suppress(OSError):
                draft.unlink()


def target_of_draft(name: str) -> str | None:
    """Return the name that a temporary file of `new_file` would have got; None for any other file name."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.draft", name)
    return found and found[1]


@contextmanager
def named_errors(path: Path, verb: str = "written") -> Iterator[None]:
    """Turn an OSError of this block into a RaeServeError which says that `path` cannot be written, or read."""
    try:
        yield
    except OSError as error:
        raise RaeServeError(f"{path} cannot be {verb}: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it exists.

    Raises:
        RaeServeError: `path` is a file, or the folder cannot be made.
    """
    with named_errors(path):
        _existing_folder(path)
        path.mkdir(parents=True, exist_ok=True)


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as one line of UTF-8 text; control characters and other bytes become escapes such as \xe9.

    The text is for people and for files: open a file by the path itself.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: f"\\x{ord(control[0]):02x}", text)


def check_new_folder(path: Path, *, mark: str = "", used: Used = "refuse") -> None:
    """Check, before the work that fills it, that `new_folder` can make a folder. Change nothing.

    Args:
        path: The folder, as for `new_folder`.
        mark: The file of `new_folder`.
        used: The choice of `new_folder`.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    with named_errors(path), _draft(_place_for_draft(path, mark, used)):
        pass


@contextmanager
def new_folder(path: Path, *, mark: str = "", used: Used = "refuse") -> Iterator[Path]:
    """Yield a temporary folder; at the end give it the name `path`, or delete it if the block fails.

    A folder that exists may be a mount point, a working directory or the target of a link, and its parent may be
    read-only. So such a folder stays, and the files of the temporary folder move into it.

    Args:
        path: The folder. It does not exist yet, or holds nothing but hidden files.
        mark: The file by which readers know a folder of this kind. It appears last.
        used: What to do if `path` holds `mark` already. "refuse": raise. "fill": replace the files of the same
            names, one by one. "swap": replace the whole folder. For a moment, between two renames, there is then no
            folder `path`, but never one that holds files of both.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    with named_errors(path), _draft(_place_for_draft(path, mark, used)) as draft:
        yield draft
        target = Path(os.path.realpath(path))
        place = _place_for_draft(path, mark, used)  # again: another process may have used the folder meanwhile
        if place == target:
            for entry in sorted(draft.iterdir(), key=lambda entry: entry.name == mark):
                entry.replace(target / entry.name)
        elif _exists(target):
            _swap(target, draft)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(target)


def _swap(folder: Path, draft: Path) -> None:
    """Put the folder `draft` in the place of `folder`, which is deleted."""
    with _draft(folder.parent) as aside:
        folder.rename(aside / folder.name)
        try:
            draft.rename(folder)
        except OSError:
            (aside / folder.name).rename(folder)
            raise


@contextmanager
def _draft(parent: Path) -> Iterator[Path]:
    """Make a hidden folder in `parent`, and delete what is left of it at the end."""
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
    try:
        draft.chmod(0o755)  # mkdtemp lets only the owner read its folders
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _place_for_draft(path: Path, mark: str, used: Used) -> Path:
    """Return the folder that the draft of `path` is renamed in: `path` itself if it is to be filled."""
    target = Path(os.path.realpath(path))
    if not _exists(target):
        return _existing_folder(target.parent)
    if not target.is_dir():
        raise RaeServeError(f"{path} is a file, not a folder; choose another name or remove it first")
    if all(name.startswith(".") or name == "lost+found" for name in os.listdir(target)):
        return target
    if used == "refuse" or not (target / mark).exists():
        raise RaeServeError(f"{path} is in use; choose another folder or remove it first")
    if used == "fill":
        return target
    if target.is_mount():
        raise RaeServeError(f"{path} is a mount point, which cannot be replaced; choose another folder")
    return target.parent


def _existing_folder(path: Path) -> Path:
    """Return `path` if it exists, else the nearest existing folder above it. Raise OSError if that is a file."""
    while not _exists(path):
        path = path.parent
    if not path.is_dir():
        raise OSError(errno.ENOTDIR, f"{path} is a file")
    return path


def _exists(path: Path) -> bool:
    """Return whether there is a file or folder, or a broken link. Raise OSError if that cannot be known."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
