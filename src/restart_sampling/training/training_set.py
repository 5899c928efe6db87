"""The images to train on, all on the device."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.images.image_set import ImageSet


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images of one size.

    Attributes:
        images: uint8 [N, C, H, W] on the device.
        labels: int64 [N] there, or None.
        sha256: of both.
    """

    images: Tensor
    labels: Tensor | None
    sha256: str

    def __len__(self) -> int:
        return len(self.images)


def blank_set(shape: tuple[int, ...], cond: bool, device: torch.device) -> TrainingSet:
    """Makes a set of one image, which stands in for the images before they are read.

    Args:
        shape: [C, H, W] of it.
        cond: whether it has a label.
        device: where it is to be.
    """
    labels = torch.zeros(1, dtype=torch.int64, device=device) if cond else None
    return TrainingSet(torch.zeros(1, *shape, dtype=torch.uint8, device=device), labels, "")


def read_training_set(
    images: ImageSet, cond: bool, device: torch.device, advance: Callable[[int], None] = lambda count: None
) -> TrainingSet:
    """Reads all images, and their labels for a class-conditional model.

    Args:
        images: from `read_images`.
        cond: whether the labels are used; `count_classes` has checked them.
        device: where they are to be.
        advance: called with the number of images after each part.

    Raises:
        InputError: an image is damaged, or not of the shape of the first.
    """
    pixels = np.empty((len(images), *images.shape), np.uint8)
    start = 0
    for part in images.batches(256):
        pixels[start : start + len(part)] = part
        start += len(part)
        advance(len(part))
    digest = hashlib.sha256(pixels.data)
    labels = images.labels if cond else None
    if labels is not None:
        digest.update(labels.tobytes())
    return TrainingSet(
        torch.from_numpy(pixels).to(device),
        None if labels is None else torch.from_numpy(labels).to(device),
        digest.hexdigest(),
    )


def square_side(images: ImageSet) -> int:
    """Returns height and width of the images.

    Raises:
        InputError: they differ.
    """
    _, height, width = images.shape
    if height != width:
        raise InputError(
            f"{images.source.path} has images of {width}x{height}, and the networks take squares; "
            "'restart-sampling dataset --resolution' makes them"
        )
    return height


def count_classes(images: ImageSet) -> int:
    """Counts the classes that the labels can mean: the highest label and 1.

    Raises:
        InputError: there are no labels, or one that is far above the others.
    """
    if images.labels is None:
        raise InputError(
            f"--cond needs classes, and {images.source.path} has none: put each class into a folder, "
            "add a dataset.json, or leave --cond out"
        )
    classes = int(images.labels.max()) + 1
    if classes > len(images):
        raise InputError(
            f"--cond: {images.source.path} has {counted(len(images), 'image')}, and a class {classes - 1}; "
            "number the classes 0, 1, ..."
        )
    return classes
