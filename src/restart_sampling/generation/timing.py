"""How long an image will take, from the first evaluations of its batch, and a detector for it."""

import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.generation.drawing import Drawing

ENOUGH = 1.0
PATIENCE = 10.0


class _EnoughError(Exception):
    """The rate is known."""


def seconds_per_image(drawing: Drawing, seeds: Sequence[int]) -> float:
    """Measures the time of an image in a batch of these seeds, which is given up as soon as that is known.

    The first evaluation, which may compile and picks algorithms, counts only where it takes more than `PATIENCE`
    seconds, for there is no second one then. What comes after the evaluations, such as a decoder of latents, is not
    part of the time.

    Raises:
        InputError: the images cannot be drawn.
    """
    marks = [(time.perf_counter(), 0.0)]

    def note(images: float) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        marks.append((time.perf_counter(), marks[-1][1] + images))
        seconds = marks[-1][0] - marks[0][0]
        if seconds > PATIENCE or (len(marks) > 2 and seconds > ENOUGH):
            raise _EnoughError

    with suppress(_EnoughError):
        next(drawing.draw(seeds[: drawing.batch], note))
    (start, before), (end, after) = marks[1 if len(marks) > 2 else 0], marks[-1]
    return (end - start) / (after - before)


def detector_seconds(setup: EvaluationSetup, drawing: Drawing) -> float:
    """Measures the detector's time of an image, in a batch of the drawing's size."""
    images = torch.zeros(drawing.batch, *(drawing.shape or (3, *(setup.reference.size or (64, 64)))), dtype=torch.uint8)
    for _ in range(2):  # the first call picks algorithms
        start = time.perf_counter()
        setup.detector(images).cpu()
        seconds = time.perf_counter() - start
    return seconds / len(images)
