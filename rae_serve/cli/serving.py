"""The command that starts the server."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rae_serve import extras
from rae_serve.arrays import in_range
from rae_serve.cli.common import INTEGER
from rae_serve.errors import BundleError, InvalidInput, MissingExtra

app = typer.Typer()

_BUNDLES = "Bundles, and folders of bundles."
_PORT = "TCP port; RAE_SERVE_PORT sets it too."
_HOST = "Address to listen on; 0.0.0.0 admits other machines. BENTOML_HOST sets it too."


@app.command()
def serve(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help=_BUNDLES, show_default="exported")
    ] = None,
    port: Annotated[int | None, typer.Option(**INTEGER, help=_PORT, show_default="3000")] = None,
    host: Annotated[str | None, typer.Option(help=_HOST, show_default="127.0.0.1")] = None,
) -> None:
    """Serve bundles over HTTP. The environment variables RAE_SERVE_… set everything else (docs/deploy.md)."""
    if find_spec("bentoml") is None:
        raise MissingExtra("bentoml", extras.install_command("server"))
    environment = dict(os.environ)
    for bundle in bundles or ():
        if not bundle.is_dir():
            raise BundleError(f"there is no folder {bundle}; name bundles, or folders of bundles")
        if os.pathsep in str(bundle):
            raise InvalidInput("BUNDLE", f"{bundle} has a {os.pathsep!r} in its name; rename the folder")
    if bundles:
        environment["RAE_SERVE_BUNDLES"] = os.pathsep.join(map(str, bundles))
    if port is not None:
        in_range("--port", port, 1, 65535)
        environment["RAE_SERVE_PORT"] = str(port)
    if host is not None:
        environment["BENTOML_HOST"] = host
    command = [sys.executable, "-m", "bentoml", "serve", "rae_serve.service:RaeServe"]
    os.execve(command[0], command, environment)
