"""The `rae-serve` application: all commands, and how an error ends the process."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from rae_serve.cli import bundles, generation, interrupts, pictures, serving, sharing, training
from rae_serve.errors import RaeServeError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for commands in (training, serving, bundles, generation, pictures, sharing):  # the order of `rae-serve --help`
    app.add_typer(commands.app)


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"rae-serve {version('rae-serve')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train generative auto-encoders, export them to ONNX bundles, serve the bundles and use them."""


def main() -> None:
    """Run the command that sys.argv names. An error prints one line on stderr and exits with status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where the stream is closed
            stream.reconfigure(errors="backslashreplace")  # for characters that the stream's encoding lacks
    Console.on_broken_pipe = _raise_again  # type: ignore[method-assign]  # Typer's console of help pages included
    try:
        status = _run()
    except RaeServeError as error:
        status = _fail(str(error))
    except TyperException as error:  # a wrong word or option on the command line
        status = _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        status = _fail("interrupted", interrupts.STATUS)
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        status = 128 + signal.SIGPIPE
    except OSError as error:
        status = _fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    sys.exit(status)


def _raise_again(self: Console) -> None:
    """Raise the BrokenPipeError that rich has caught and would turn into status 1."""
    raise


def _run() -> int:
    """Run the command; return its exit status. Typer's own main would print some errors, and hide others."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("rae-serve", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    finally:
        _flush()
    return 0


def _flush() -> None:
    """Flush stdout here, where an error can be reported: at its end, Python would print a traceback."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is not written is dropped
        raise


def _fail(message: str, status: int = 2) -> int:
    if message:  # empty if Typer has just printed the help instead
        with suppress(OSError):  # nobody reads stderr
            print("rae-serve: " + " ".join(message.split()), file=sys.stderr)
    return status
