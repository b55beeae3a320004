"""Commands on a whole bundle: inspect, verify, upgrade, sample, attributes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from rae_serve import arrays, attributes, files, golden, images, labels, noise, parity, projection, upgrading
from rae_serve.bundle import VECTORS, Bundle
from rae_serve.cli.common import (
    INTEGER,
    NUMBER,
    OUTPUT,
    SEED,
    TEMPERATURE,
    BundleArgument,
    DeviceOption,
    console,
    import_training,
    output_format,
    print_parity,
)
from rae_serve.engine import Engine
from rae_serve.manifest import Attribute, Manifest

app = typer.Typer()

_MAX_FILES = 1_000_000
_MAX_IN_ONE_FILE = 100_000
_CHUNK = 1024  # images that are in memory at once, for a folder

_DATA = "Folder with one subfolder per class, folder of pictures (with --labels), or name of a data set."
_LABELS = "Table of attributes: CSV of file names and 0/1 columns, or CelebA's list."
_METHOD = "difference: of the class means. linear: normal of a linear classifier."


@app.command()
def inspect(
    bundle: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest, without its checksum.")] = False,
) -> None:
    """Show the facts of a bundle's manifest."""
    manifest = Bundle.load(bundle).manifest
    if as_json:
        typer.echo(json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    height, width, channels = manifest.image.shape
    rows = {
        "model": f"{manifest.model.kind}, by the recipe {manifest.model.recipe}",
        "image": f"{height} × {width} × {channels}, {manifest.image.mode}",
        "latent": f"{manifest.latent.dim} of {manifest.latent.trained_dim} trained dimensions",
        "noise": f"{manifest.noise.dim} columns, {manifest.noise.algorithm}",
        "attributes": ", ".join(
            _title(name, one) + (f" (AUC {_area(one)})" if one.auc is not None else "")
            for name, one in manifest.attributes.items()
        )
        or "none",
        "training": f"{manifest.training.steps:,} steps on {manifest.training.images:,} images "
        f"of {manifest.training.data}, seed {manifest.training.seed}",
        **{name: f"{figure.value:g} ({figure.protocol})" for name, figure in manifest.quality.items()},
        "format": f"{_precision(manifest)}, opset {manifest.opset}, IR version {manifest.ir_version}",
        "licence": manifest.licence,
        "created by": manifest.created_by,
        "digest": manifest.digest,
        **{name: f"{file.bytes:,} bytes" for name, file in manifest.files.items()},
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    console.print(table)


@app.command()
def verify(bundle: BundleArgument) -> None:
    """Check the files of a bundle, and its graphs against torch."""
    loaded = Bundle.load(bundle)
    typer.echo(f"{len(loaded.manifest.files)} files match the manifest")
    engine = Engine(loaded, device="cpu")
    measured = parity.measure(engine, loaded.golden())
    parity.check(measured, loaded.manifest.tolerance)
    print_parity(measured)
    vectors = loaded.vectors()
    if vectors is None:
        typer.echo(f"no {VECTORS}, by which other programs can check themselves; rae-serve upgrade adds it")
    else:
        typer.echo(f"{VECTORS}: {golden.check(engine, vectors)}")


@app.command()
def upgrade(
    bundle: BundleArgument,
    out: Annotated[
        Path | None, typer.Option(**OUTPUT, help="Write a new folder, and leave the bundle.", show_default="in place")
    ] = None,
    generator: Annotated[
        bool, typer.Option("--generator", help="Add generator.onnx: prior and decoder in one graph.")
    ] = False,
) -> None:
    """Bring a bundle to the latest version of the format. Its graphs, and so its images, stay the same."""
    loaded = Bundle.load(bundle)
    join = import_training("export.rewriting").joined if generator else None
    upgraded = upgrading.upgrade(loaded, out, join)
    added = sorted(upgraded.contents.keys() - loaded.contents.keys())
    changes = f"added {' and '.join(added)}" if added else "nothing to add"
    typer.echo(f"{upgraded.path}: version {upgraded.manifest.schema_version}, {changes}")


@app.command()
def sample(
    bundle: BundleArgument,
    out: Annotated[
        Path, typer.Option(**OUTPUT, help="FILE.png (several images become a grid), FILE.npz, or a folder.")
    ],
    n: Annotated[int, typer.Option("-n", "--n", **INTEGER, help="How many images to generate.")] = 1,
    seed: Annotated[int | None, typer.Option(**INTEGER, help=SEED, show_default="random")] = None,
    offset: Annotated[int, typer.Option(**INTEGER, help="First row of the seed.")] = 0,
    temperature: Annotated[float, typer.Option(**NUMBER, help=TEMPERATURE)] = 1.0,
    device: DeviceOption = "auto",
) -> None:
    """Generate images."""
    suffix = output_format(out, (".png", ".npz"), folder=True)
    arrays.in_range("n", n, 1, _MAX_IN_ONE_FILE if suffix else _MAX_FILES, f"for {out}")
    engine = Engine(Bundle.load(bundle), device=device)
    seed = noise.random_seed() if seed is None else seed
    if not suffix:
        with files.new_folder(out) as folder:
            for start in range(offset, offset + n, _CHUNK):
                count = min(_CHUNK, offset + n - start)
                pixels = engine.sample(count, seed=seed, offset=start, temperature=temperature)
                for index, image in enumerate(pixels, start):
                    (folder / f"{seed}-{index:06d}.png").write_bytes(images.encode(image))
    else:
        pixels = engine.sample(n, seed=seed, offset=offset, temperature=temperature)
        if suffix == ".png":
            files.write(out, images.encode(images.grid(pixels)))
        else:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, images=pixels, seed=seed, offset=offset, digest=engine.manifest.digest)
            files.write(out, buffer.getvalue())
    typer.echo(f"{out}: {n} image{'s' if n > 1 else ''} of seed {seed}, from row {offset}")


@app.command("attributes")
def find_attributes(
    bundle: BundleArgument,
    data: Annotated[str, typer.Option(help=_DATA)],
    table: Annotated[Path | None, typer.Option("--labels", help=_LABELS)] = None,
    method: Annotated[attributes.Method, typer.Option(help=_METHOD)] = "difference",
    device: DeviceOption = "auto",
) -> None:
    """Find directions of attributes, say how good they are, and store them in the bundle, with a map."""
    loaded = Bundle.load(bundle)
    known_as = loaded.manifest.training.data
    labelled = labels.read(data, table, known_as, lambda: import_training("data.labels"))
    engine = Engine(loaded, device=device)
    codes, has = attributes.encoded(engine, labelled)
    found = attributes.find_in(codes, has, labelled.names, labelled.data, method)
    kept = attributes.merge(loaded.manifest.attributes, found)
    projection.annotate(engine, codes, labelled.names, has, attributes=kept)
    rows = Table("attribute", box=None, pad_edge=False)
    for heading in ("images with it", "without it", "AUC"):
        rows.add_column(heading, justify="right")
    for name, attribute in found.items():
        counts = (f"{count:,}" for count in attribute.images or ())
        rows.add_row(Text(_title(name, attribute)), *counts, _area(attribute))
    typer.echo(f"{bundle}: found {len(found)} attribute{'s' if len(found) > 1 else ''}")
    console.print(rows)
    _warn_of_weak(found)


def _precision(manifest: Manifest) -> str:
    """Return the precision that all graphs have, or the precision of each."""
    precisions = set(manifest.precision.values())
    each = (f"{graph} {precision}" for graph, precision in manifest.precision.items())
    return precisions.pop() if len(precisions) == 1 else ", ".join(each)


def _title(name: str, attribute: Attribute) -> str:
    """Return the name of an attribute, or the names of both ends if both have one."""
    return name if attribute.opposite is None else f"{attribute.opposite} to {name}"


def _area(attribute: Attribute) -> str:
    return "unknown" if attribute.auc is None else f"{attribute.auc:.2f}"


def _warn_of_weak(found: Mapping[str, Attribute]) -> None:
    """Say which directions hardly tell their classes apart, which are not measured, and what to do about it."""
    weak = [_title(name, one) for name, one in found.items() if one.auc is not None and one.auc < attributes.WEAK]
    unknown = [_title(name, one) for name, one in found.items() if one.auc is None]
    if weak:
        typer.echo(
            f"weak: {', '.join(weak)}. Below an AUC of {attributes.WEAK} (0.5 is chance), edits change much else and "
            "little of the attribute. Check the labels, add pictures, or try the other --method.",
            err=True,
        )
    if unknown:
        typer.echo(
            f"not measured: {', '.join(unknown)}. Give at least {attributes.FOLDS} readable pictures with the "
            "attribute and as many without it.",
            err=True,
        )
