"""The `rae-serve` command: all commands in one application, and how an error ends it."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from rae_serve.cli import bundles, pictures, training
from rae_serve.errors import RaeServeError

app = typer.Typer(
    help="Train generative auto-encoders, export them to ONNX, sample them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (training, bundles, pictures):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command; an error is one line on stderr and exit status 2."""
    try:
        # Anything but a number is a command's own end, which is a success.
        status = app(standalone_mode=False, prog_name="rae-serve")
        sys.exit(status if isinstance(status, int) else 0)
    except RaeServeError as error:
        _fail(str(error))
    except TyperException as error:  # of the command line itself
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", status=130)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}")


def _fail(message: str, status: int = 2) -> None:
    if message:  # there is none where the help has just been shown instead
        print("rae-serve: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)
