"""`Batch`: drawn images with their seeds and classes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_writable, write_bytes
from restart_sampling.images.writers import as_picture, picture_png


@dataclass(frozen=True)
class Batch:
    """Images of a few seeds, on the CPU.

    Attributes:
        seeds: B of them.
        labels: class of each image, int64 [B]; None: there are no classes.
        images: uint8 [B, C, H, W].
    """

    seeds: tuple[int, ...]
    labels: Tensor | None
    images: Tensor

    def pictures(self) -> list[Image.Image]:
        """Makes a picture of PIL of each image, RGB, or L where it has one channel.

        Raises:
            InputError: the images have neither 1 nor 3 channels.
        """
        if self.images.shape[1] not in (1, 3):
            raise InputError(
                f"images that are made pictures have 1 or 3 channels, and those of this net have "
                f"{self.images.shape[1]}; take batch.images"
            )
        return [as_picture(image) for image in self.images.numpy()]

    def save(self, folder: str | Path) -> list[Path]:
        """Writes each image as a PNG file named by its seed, `000123.png`; one of that name is replaced.

        Returns:
            The paths of the files.

        Raises:
            InputError: the images have neither 1 nor 3 channels, or the folder cannot be written.
        """
        paths = [Path(folder) / f"{seed:06d}.png" for seed in self.seeds]
        pictures = self.pictures()
        check_writable(paths[0])
        for path, picture in zip(paths, pictures, strict=True):
            write_bytes(path, picture_png(picture))
        return paths

    def __getitem__(self, part: slice) -> "Batch":
        """Takes some of them."""
        return Batch(self.seeds[part], None if self.labels is None else self.labels[part], self.images[part])

    def __add__(self, other: "Batch") -> "Batch":
        """Joins these and those of another batch of the same model."""
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = torch.cat([self.labels, other.labels])
        return Batch(self.seeds + other.seeds, labels, torch.cat([self.images, other.images]))
