"""The entry point of `rae-serve`: run a command, or say what to install if the extra `cli` is missing."""

from __future__ import annotations

import sys

from rae_serve import extras
from rae_serve.errors import MissingExtra


def main() -> None:
    """Run the command that sys.argv names."""
    try:
        with extras.needed("cli"):
            from rae_serve.cli.main import main as run
    except MissingExtra as error:
        print(f"rae-serve: {error}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
