"""The learning rate and the EMA's decay over a run."""

from math import cos, pi

WARM_UP = 0.05
"""Part of the run over which the learning rate rises."""
HALF_LIFE = 500_000
"""Of the EMA, in images [EDM, table 7]."""
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


def ema_decay(images: int, batch: int) -> float:
    """What remains of the average in a step: 1/2 to the power of batch / half-life.

    Args:
        images: so far, with this step's.
        batch: images of this step.
    """
    return 0.5 ** (batch / min(HALF_LIFE, RAMP_UP * images))
