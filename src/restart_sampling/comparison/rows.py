"""`Row`, `Outcome` and `Watch`: a line of a comparison, what became of it, and who is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from restart_sampling.generation.drawing import Drawing
from restart_sampling.images.image_set import ImageSet


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a comparison.

    Attributes:
        name: for the user; that of each row is its own.
        about: JSON, what the line says of this row alone; `run` in it defines the images.
        drawing: of the images; None: they are read from files.
        seeds: of the images that are drawn.
        files: images that are not drawn.
    """

    name: str
    about: dict[str, Any]
    drawing: Drawing | None = None
    seeds: Sequence[int] = ()
    files: ImageSet | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.seeds if self.files is None else self.files)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[C, H, W] of each image; None: known when one was drawn."""
        if self.files is not None:
            return self.files.shape
        return self.drawing.shape if self.drawing else None

    def labels(self) -> Tensor | None:
        """Finds the class of each image, int64 [N]; None: there are no classes."""
        if self.files is not None:
            return None if self.files.labels is None else torch.from_numpy(self.files.labels)
        return self.drawing.labels(self.seeds) if self.drawing else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; () where none are known."""
        if self.files is not None:
            return self.files.classes
        return self.drawing.classes if self.drawing else ()

    def where(self, place: int) -> str:
        """Names the image at a place, in messages."""
        return f"the image of seed {self.seeds[place]}" if self.files is None else self.files.where(place)

    @property
    def cost(self) -> int:
        """Cost of an image: its NFE, and 1 where it is only read."""
        return self.drawing.nfe if self.drawing else 1


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a row.

    Attributes:
        row: which.
        result: its line; None: it failed.
        error: why it failed, in one sentence.
    """

    row: Row
    result: dict[str, Any] | None
    error: str = ""


class Watch:
    """A listener that a comparison tells how it goes on; this one ignores it."""

    def begin(self, row: Row, there: int) -> None:
        """A row begins, with the sums of so many images from an earlier start."""

    def advance(self, row: Row, images: float) -> None:
        """So many more images of a row are there, of all processes, or the work of a part of them is done."""

    def say(self, text: str) -> None:
        """What a row is at, where that takes longer than a few seconds; this comes from another thread."""

    def end(self, outcome: Outcome) -> None:
        """A row has been measured, or has failed."""
