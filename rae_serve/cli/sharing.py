"""The commands that share bundles through the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rae_serve.bundle import Bundle
from rae_serve.cli.common import OUTPUT, BundleArgument

app = typer.Typer()

Repository = Annotated[str, typer.Argument(metavar="REPO", help="Repository of the Hugging Face Hub: user/name.")]


def _hub() -> Any:
    """Import the module here, since it needs the extra `hub`."""
    from rae_serve import hub

    return hub


@app.command()
def push(
    bundle: BundleArgument,
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="Hide a repository that is made from others.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch.", show_default="main")] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub. Set HF_TOKEN, or run `hf auth login` before."""
    typer.echo(_hub().push(Bundle.load(bundle), repository, private=private, revision=revision))


@app.command()
def pull(
    repository: Repository,
    out: Annotated[Path, typer.Option(**OUTPUT, help="Folder of the new bundle.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
) -> None:
    """Download a bundle from the Hugging Face Hub, and check it."""
    pulled = _hub().pull(repository, out, revision=revision)
    typer.echo(f"{out}: {len(pulled.manifest.files)} files, digest {pulled.manifest.digest}")
