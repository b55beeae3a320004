"""The commands that share bundles through the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rae_serve.bundle import Bundle
from rae_serve.cli.common import OUTPUT, BundleArgument

app = typer.Typer()

Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the Hugging Face Hub.")]


def _hub() -> Any:
    """Import the module here, since it needs the extra `hub`."""
    from rae_serve import hub

    return hub


@app.command()
def push(
    bundle: BundleArgument,
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="Hide a new repository from others.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch.", show_default="main")] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub. Needs HF_TOKEN, or `hf auth login`."""
    typer.echo(_hub().push(Bundle.load(bundle), repository, private=private, revision=revision))


@app.command()
def pull(
    repository: Repository,
    out: Annotated[Path, typer.Option(**OUTPUT, help="Folder of the bundle.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Download a bundle from the Hugging Face Hub, and check its files."""
    pulled = _hub().pull(repository, out, revision=revision, overwrite=overwrite)
    typer.echo(f"{out}: {len(pulled.manifest.files)} files match the manifest, digest {pulled.manifest.digest}")
