"""Atomic writes, by which a file or folder appears complete or not at all; and paths as text."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rae_serve.errors import RaeServeError


def write(path: Path, data: bytes) -> None:
    """Write a file atomically; when this function returns, the file is on the disk.

    Raises:
        RaeServeError: The file cannot be written; a file that was at `path` before is unchanged.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise RaeServeError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink()


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as one line of UTF-8 text; control characters and other bytes become escapes such as \xe9.

    The text is for people and for files: open a file by the path itself.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: f"\\x{ord(control[0]):02x}", text)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` at the end, or delete it if the block fails.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RaeServeError(f"{path} is in use; choose another folder or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise RaeServeError(f"{path} cannot be written: {error.strerror}") from None
    try:
        draft.chmod(0o755)  # mkdtemp lets only the owner read its folders
        yield draft
        if path.exists():
            path.rmdir()
        draft.rename(path)
    except OSError as error:
        raise RaeServeError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
