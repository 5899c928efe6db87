"""The paper's values for Stable Diffusion v1.5 (arXiv 2306.14878, appendix), with notes."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NOTES = (
    "they are of Stable Diffusion v1.5 with 5,000 captions of COCO's val2014 ('text coco' draws the same ones), one "
    "image each, whose noise was not seeded by image",
    "the paper counts evaluations of the guided network, once though guidance makes it two: the authors' Heun takes "
    "2 N - 1 in N steps, so 'Heun 51' and 'Heun 101' are heun:26 and heun:51 here; it does not say so",
    "'Restart 66' (47 in the table of guidance 8) counts corrections that the authors' code skips; the code, and "
    "restart:30 here, takes 64, and 62 at guidance 2",
    "the authors' Heun is on DDIM's grid and ends at timestep 0, whose level is 0.029; heun here is diffusers' "
    "scheduler, on its own grid",
    "how the images of the FID reference were scaled is not documented, and the authors' scores are float16 in part",
)
"""For a reader of our values beside the paper's."""


@dataclass(frozen=True)
class PublishedText:
    """One row of the paper's tables.

    Attributes:
        sampler: ours for it.
        printed: what the paper calls it, with the number of evaluations that it prints.
        guidance: scale.
        fid: Fréchet distance.
        clip: CLIP score, of ViT-g/14.
        aesthetic: aesthetic score.
    """

    sampler: str
    printed: str
    guidance: float
    fid: float
    clip: float
    aesthetic: float


@cache
def published_text() -> tuple[PublishedText, ...]:
    """Lists all rows, in the paper's order."""
    text = files("restart_sampling.comparison").joinpath("published_text.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedText(line["sampler"], line["printed"], *(float(line[key]) for key in list(line)[2:]))
        for line in csv.DictReader(text.splitlines())
    )


def find_published(sampler: str, guidance: float) -> PublishedText | None:
    """Finds the row of a sampler at a guidance scale, where the paper has it."""
    return next((row for row in published_text() if (row.sampler, row.guidance) == (sampler, guidance)), None)
