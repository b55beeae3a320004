"""The command that starts the server."""

from __future__ import annotations

import os
import socket
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
_PORT = "TCP port."
_HOST = "Address to listen on; 0.0.0.0 admits other machines."


@app.command()
def serve(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE", help=_BUNDLES, show_default="exported")
    ] = None,
    port: Annotated[int, typer.Option(**INTEGER, help=_PORT, envvar="RAE_SERVE_PORT")] = 3000,
    host: Annotated[str, typer.Option(help=_HOST, envvar="BENTOML_HOST")] = "127.0.0.1",
) -> None:
    """Serve bundles over HTTP. The environment variables RAE_SERVE_… set everything else (docs/deploy.md)."""
    if find_spec("bentoml") is None:
        raise MissingExtra("bentoml", extras.install_command("server"))
    in_range("--port", port, 1, 65535)
    for bundle in bundles or ():
        if not bundle.is_dir():
            raise BundleError(f"there is no folder {bundle}; name bundles, or folders of bundles")
        if os.pathsep in str(bundle):
            raise InvalidInput("BUNDLE", f"{bundle} has a {os.pathsep!r} in its name; rename the folder")
    _check_address(host, port)
    environment = {"RAE_SERVE_PORT": str(port), "BENTOML_HOST": host}
    if bundles:
        environment["RAE_SERVE_BUNDLES"] = os.pathsep.join(map(str, bundles))
    command = [sys.executable, "-m", "bentoml", "serve", "rae_serve.service:RaeServe"]
    os.execve(command[0], command, os.environ | environment)


def _check_address(host: str, port: int) -> None:
    """Raise InvalidInput if nothing can listen on an address: BentoML would print a traceback."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise InvalidInput("--port", f"{port} on {host} cannot be used ({error.strerror}); choose another") from None
