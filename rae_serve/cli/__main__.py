"""The entry point of `rae-serve`: run a command, or say what to install if the extra `cli` is missing."""

from __future__ import annotations

from rae_serve.cli import interrupts


def main() -> None:
    """Run the command that sys.argv names."""
    interrupts.end_at_once()  # before the imports, which take a while
    import sys

    from rae_serve import extras
    from rae_serve.errors import MissingExtra

    try:
        with extras.needed("cli"):
            from rae_serve.cli.main import main as run
    except MissingExtra as error:
        print(f"rae-serve: {error}", file=sys.stderr)
        sys.exit(2)
    interrupts.handle()
    try:
        run()
    finally:
        interrupts.end_at_once()


if __name__ == "__main__":
    main()
