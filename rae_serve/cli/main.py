"""The `rae-serve` application: all commands, and how an error ends the process."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from rae_serve.cli import bundles, pictures, training
from rae_serve.errors import RaeServeError

app = typer.Typer(
    help="Train generative auto-encoders, export them to ONNX bundles, and use the bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (training, bundles, pictures):  # the order of `rae-serve --help`
    app.add_typer(commands.app)


def main() -> None:
    """Run the command that sys.argv names. An error prints one line on stderr and exits with status 2."""
    try:
        # Typer returns a number if a command exits early; the return value of a command itself means success.
        status = app(standalone_mode=False, prog_name="rae-serve")
        sys.exit(status if isinstance(status, int) else 0)
    except RaeServeError as error:
        _fail(str(error))
    except TyperException as error:  # a wrong word or option on the command line
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", status=130)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}")


def _fail(message: str, status: int = 2) -> None:
    if message:  # empty if Typer has just printed the help instead
        print("rae-serve: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)
