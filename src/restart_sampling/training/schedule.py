"""The learning rate, the augmentation and the EMA's decay over a run."""

from math import cos, pi

WARM_UP = 0.05
"""Part of the run over which the learning rate rises."""
RAMP_UP = 0.05
"""The half-life is at most this part of the images so far, so that the beginning is soon forgotten [EDM]."""


def learning_rate(progress: float, highest: float) -> float:
    """Rises linearly over the first `WARM_UP` of the run, then falls to 0 along half a cosine.

    Args:
        progress: part of the run that is done, from 0 to 1.
        highest: learning rate.
    """
    if progress < WARM_UP:
        return highest * progress / WARM_UP
    return highest * (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def augmentation(progress: float, highest: float) -> float:
    """Falls linearly to 0: what is learned last, at low learning rates, is how the plain images look.

    Args:
        progress: part of the run that is done, from 0 to 1.
        highest: probability of each transformation.
    """
    return highest * (1 - progress)


def ema_decay(images: int, batch: int, half_life: float) -> float:
    """Computes what remains of the average in a step: 1/2 to the power of batch / half-life.

    Args:
        images: so far, with this step's.
        batch: images of this step.
        half_life: in images, after the ramp.
    """
    return 0.5 ** (batch / min(half_life, RAMP_UP * images))
