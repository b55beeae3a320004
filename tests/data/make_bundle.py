"""Make bundles of the tests: python tests/data/make_bundle.py [NAME]...

`digits` is a small FlexAE, trained for a moment on scikit-learn's digits. `waves` is a small RAE of coloured stripes,
16 pixels high and 20 wide, with a mixture prior (a choice column), attributes, and weights in float16. Only this
script needs rae-serve[train]: the tests read the bundles as committed. `tests/data/version-1` is one of an earlier
release.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from rae_serve.bundle import Bundle, annotate
from rae_serve.manifest import Attribute
from training import recipe as recipes
from training.export.bundle import export
from training.runs import Run, load_data
from training.trainer import Trainer

DATA = Path(__file__).parent
SMALL = (
    "steps=30",
    "log_every=5",
    "sample_every=15",
    "filters=4",
    "hidden=16",
)
DIGITS = (*SMALL, "prior_hidden=16", "critic_hidden=16")
WAVES = (*SMALL, "steps=600", "lr=0.005", "posthoc_components=3")  # its images must differ from each other


def train(
    path: Path, recipe_name: str = "flexae-digits", settings: tuple[str, ...] = DIGITS, data: str = "digits"
) -> Run:
    """Train a small model, and leave its run at `path`.

    Args:
        path: The folder of the run.
        recipe_name: The recipe. By default, the model is a FlexAE.
        settings: Changes of the recipe, each `key=value`.
        data: The name of a data set, or the path of images.
    """
    recipe = recipes.load(recipe_name, settings)
    dataset = load_data(recipe, data)
    run = Run.create(path, recipe, dataset, Path(data).stem)
    Trainer(recipe, dataset, path, torch.device("cpu")).fit()
    return run


def make_digits(folder: Path) -> Bundle:
    """Train and export `digits` in an empty folder."""
    return export(train(folder / "run"), folder / "digits")


def make_waves(folder: Path) -> Bundle:
    """Train and export `waves` in an empty folder."""
    i, y, x, channel = np.ogrid[:300, :16, :20, :3]
    waves = np.sin((x * (1 + i % 3) + y * (1 + i % 5) + channel * 2 + i) / 4)
    np.save(folder / "waves.npy", (127.5 + 127.5 * waves).astype(np.uint8))
    run = train(folder / "run", "rae-digits", WAVES, str(folder / "waves.npy"))
    bundle = export(run, folder / "waves", precision="float16-weights")
    entries = bundle.manifest.latent.dim
    cold = Attribute(direction=[0.25] * entries, source="by hand", opposite="Warm")
    annotate(bundle, attributes={"Cold": cold, "Broad": Attribute(direction=[-0.5] * entries, source="by hand")})
    return Bundle.load(bundle.path)


MAKERS = {"digits": make_digits, "waves": make_waves}


def main() -> None:
    """Replace the bundles of these names; all of them if no name is given."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            bundle = MAKERS[name](Path(folder))
            shutil.rmtree(DATA / name, ignore_errors=True)
            shutil.copytree(bundle.path, DATA / name)
        print(f"{DATA / name}: digest {bundle.manifest.digest}")


if __name__ == "__main__":
    main()
