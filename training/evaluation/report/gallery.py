"""Which pictures a report shows, and what it says of each."""

from __future__ import annotations

from training.evaluation.figures import Neighbours, Sets
from training.evaluation.report import pictures
from training.evaluation.report.page import Picture
from training.evaluation.subject import Subject


def gallery(these: Sets, neighbours: Neighbours | None, subject: Subject, seed: int, split: str) -> list[Picture]:
    """The pictures of a report in their order; those of neighbours only where neighbours were looked for."""
    shown = [
        Picture("What it makes", f"The first images of seed {seed}, none left out.", pictures.samples(these)),
        Picture(
            "What it keeps",
            f"Images of the {split} split; under each row, what is left of them after encoding and decoding.",
            pictures.reconstructions(these),
        ),
        Picture(
            "What lies between",
            "Each row goes in a straight line from the code of one held-out image to that of another. Good models "
            "pass through believable images.",
            pictures.interpolations(these, subject),
        ),
    ]
    if neighbours:
        shown += _neighbour_pictures(these, neighbours)
    return [
        *shown,
        Picture(
            "Codes and prior",
            "On the first two principal axes of the codes. The prior should cover the codes and nothing else.",
            pictures.embedding(these),
            pixels=False,
        ),
        Picture(
            "How much each dimension does",
            "Idle dimensions carry nothing; where codes and prior differ, the prior misses them.",
            pictures.activity(these),
            pixels=False,
        ),
        Picture(
            "How dimensions go together",
            "Correlations of the latent dimensions. The two should look alike.",
            pictures.covariance(these),
            pixels=False,
        ),
    ]


def _neighbour_pictures(these: Sets, neighbours: Neighbours) -> list[Picture]:
    shown = []
    for suspicious, which in ((True, "The 12 nearest"), (False, "The first 12")):
        grids = pictures.neighbours(these, neighbours, suspicious=suspicious)
        shown += [
            Picture(
                f"{which}: generated, and their nearest training images",
                "Above, what it made; below, the nearest training image. Copies would be the same image twice, and "
                "more alike than in the next picture.",
                grids["generated"],
            ),
            Picture(
                f"{which}: held-out, and their nearest training images",
                "The same of real images that it has not seen: this much likeness is chance.",
                grids["held_out"],
            ),
        ]
    return shown
