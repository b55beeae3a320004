"""The pictures of a report, with their titles and captions."""

from __future__ import annotations

from training.evaluation.figures import EvaluationData, Neighbours
from training.evaluation.report import pictures
from training.evaluation.report.page import Picture
from training.evaluation.subject import Subject


def gallery(
    data: EvaluationData, neighbours: Neighbours | None, subject: Subject, seed: int, split: str
) -> list[Picture]:
    """Draw the pictures of a report, in their order.

    Args:
        data: The images and latents to show.
        neighbours: The nearest training images; None leaves out their pictures.
        subject: The model, which decodes the interpolations.
        seed: The seed of the generated images.
        split: Where the held-out images come from: "test" or "validation".
    """
    shown = [
        Picture("Generated images", f"The first images of seed {seed}, without selection.", pictures.samples(data)),
        Picture(
            "Reconstructions",
            f"Images of the {split} split; below each row, the same images after encoding and decoding.",
            pictures.reconstructions(data),
        ),
        Picture(
            "Interpolations",
            "Each row follows the straight line between the latents of two held-out images. A good model gives "
            "believable images all along.",
            pictures.interpolations(data, subject),
        ),
    ]
    if neighbours:
        shown += _neighbour_pictures(data, neighbours)
    return [
        *shown,
        Picture(
            "Latents of images and of the prior",
            "On the first two principal axes of latents of images. The prior should cover these and nothing else.",
            pictures.embedding(data),
            pixels=False,
        ),
        Picture(
            "Activity of each dimension",
            "An idle dimension carries no information. Where the bars differ, the prior does not match the images.",
            pictures.activity(data),
            pixels=False,
        ),
        Picture(
            "Correlations between dimensions",
            "Latents of images and of the prior should show the same pattern.",
            pictures.covariance(data),
            pixels=False,
        ),
    ]


def _neighbour_pictures(data: EvaluationData, neighbours: Neighbours) -> list[Picture]:
    shown = []
    for nearest_first, which in ((True, "The 12 nearest"), (False, "The first 12")):
        grids = pictures.neighbours(data, neighbours, nearest_first=nearest_first)
        shown += [
            Picture(
                f"{which} generated images and their nearest training images",
                "Above, generated images; below, the nearest training image of each. A copy is the same image twice: "
                "the pairs would be more alike than those of the next picture.",
                grids["generated"],
            ),
            Picture(
                f"{which} held-out images and their nearest training images",
                "The same for real images that the model has not seen: this much likeness is chance.",
                grids["held_out"],
            ),
        ]
    return shown
