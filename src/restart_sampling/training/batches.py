"""The batch of a step: it depends on the seed and the step alone, so that a run can go on where it stopped."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restart_sampling.training.augmentation import draw_labels, transform
from restart_sampling.training.losses import Loss, unit_noise
from restart_sampling.training.training_set import TrainingSet

_BATCH_STREAM = 0
_FIRST_NETWORK_STREAM = 1


@dataclass(frozen=True, eq=False)
class Batch:
    """What one process trains on in one step.

    Attributes:
        images: clean, float32 [B, C, H, W] in [-1, 1].
        labels: int64 [B], or None.
        sigma: their noise levels, float32 [B].
        noise: float32 [B, C, H, W], at noise level 1.
        augment_labels: float32 [B, 9], what was done to the images; None without augmentation.
    """

    images: Tensor
    labels: Tensor | None
    sigma: Tensor
    noise: Tensor
    augment_labels: Tensor | None


def network_seed(seed: int, step: int, rank: int) -> int:
    """Makes the seed of what the network draws in a step: dropout, of images and of labels."""
    return _mixed(seed, step, _FIRST_NETWORK_STREAM + rank)


def draw_batch(
    data: TrainingSet,
    loss: Loss,
    D: int | None,
    *,
    seed: int,
    step: int,
    size: int,
    augment: float | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Batch:
    """Draws images with replacement, flips half of them, augments some, and draws noise levels and noise.

    Nothing waits for the device. Each process draws the whole batch and takes its share, so that the number of
    processes changes nothing.

    Args:
        data: what to draw from, on the device.
        loss: says which noise levels.
        D: augmented dimensions of PFGM++, or None.
        seed: of the run.
        step: number of the step.
        size: of the batch of all processes together.
        augment: probability of each transformation; None is flips only, without labels.
        rank: of this process.
        ranks: the number of processes; divides `size`.
    """
    device = data.images.device
    generator = torch.Generator(device).manual_seed(_mixed(seed, step, _BATCH_STREAM))
    chosen = torch.randint(len(data), (size,), generator=generator, device=device)
    flipped = torch.rand(size, generator=generator, device=device) < 0.5
    sigma = loss.levels(size, generator)
    noise = unit_noise((size, *data.images.shape[1:]), D, generator)
    own = slice(rank * size // ranks, (rank + 1) * size // ranks)
    images = data.images[chosen[own]] / 127.5 - 1
    if augment is None:
        augment_labels = None
        images = torch.where(flipped[own, None, None, None], images.flip(3), images)
    else:
        augment_labels = draw_labels(flipped, augment, generator)[own]
        images = transform(images, augment_labels)
    labels = None if data.labels is None else data.labels[chosen[own]]
    return Batch(images, labels, sigma[own], noise[own], augment_labels)


def _mixed(*numbers: int) -> int:
    """Makes one seed of several numbers. Its low half is mixed as well: torch's generator on CPUs takes no more."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
