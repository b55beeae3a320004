"""The folder in which the workers of one server count their requests.

BentoML gives all servers of a user the same folder, and every server that starts deletes what is in it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Final

_MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"  # BentoML sets it for workers; prometheus_client reads it
_OURS: Final = "RAE_SERVE_METRICS_FOLDER"  # a process and the folder that it made for its workers


def environment() -> dict[str, str]:
    """Return the environment variables that name the folder of this server. Set them before a metric is made.

    The first process of a server makes the folder, and removes it at its end. The workers, which it starts later,
    find the folder in their environment.
    """
    owner, _, folder = os.environ.get(_OURS, "").partition(":")
    if owner == str(os.getppid()):
        return {_MULTIPROCESS: folder}
    folder = tempfile.mkdtemp(prefix="rae-serve-metrics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {_OURS: f"{os.getpid()}:{folder}"}
