"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rae_serve.errors import RaeServeError


def write(path: Path, data: bytes) -> None:
    """Write a file that is never seen half-written, and is on the disk when this returns.

    Raises RaeServeError where it cannot be; what was at `path` is then untouched.
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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end, or vanishes where filling it fails.

    Raises RaeServeError where `path` is in use or cannot be written.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RaeServeError(f"{path} is in use; choose another folder or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise RaeServeError(f"{path} cannot be written: {error.strerror}") from None
    try:
        draft.chmod(0o755)  # mkdtemp's folders are their owner's alone
        yield draft
        if path.exists():
            path.rmdir()
        draft.rename(path)
    except OSError as error:
        raise RaeServeError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
