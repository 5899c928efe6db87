"""CLIP and aesthetic scores of images and their prompts, across all processes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.aesthetic import AestheticScore
from restart_sampling.evaluation.clip import ClipScore, preprocess
from restart_sampling.images.prompts import PromptedImages

Scores = Mapping[str, ClipScore | AestheticScore]
"""By name, of `SCORES`, on the device of this process."""


def measure_scores(
    images: PromptedImages,
    scores: Scores,
    ranks: Ranks,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Computes the mean scores of images, in one pass.

    Args:
        images: all of them, with their prompts.
        scores: to measure.
        ranks: the processes; all call this.
        batch_size: images at a time.
        advance: called with the number of images after each batch.

    Returns:
        JSON: `images`, `seconds`, and for each score `<name>_score`, its mean, and `<name>_score_error`, the standard
        error of that mean; None for a single image. The same on all processes.

    Raises:
        InputError: an image is damaged; the message names it.
    """
    start = time.perf_counter()
    sides = {score.clip.side for score in scores.values()}
    own = ranks.share(len(images), batch_size)
    values = np.empty((len(own), len(scores)))

    def prepare(image: Image.Image) -> dict[int, np.ndarray]:
        return {side: preprocess(image, side) for side in sides}

    done = 0
    with ranks.failing_together():
        for prompts, prepared in images.batches(own, batch_size, prepare):
            batch = {side: torch.from_numpy(np.stack([one[side] for one in prepared])) for side in sides}
            for column, score in enumerate(scores.values()):
                values[done : done + len(prompts), column] = score(batch[score.clip.side], prompts).cpu()
            done += len(prompts)
            ranks.alive()
            advance(len(prompts))

    # In the order of the images, so that the number of processes does not change how the sums are rounded.
    order = np.concatenate([np.asarray(part, np.int64) for part in ranks.gather(own)]).argsort()
    table = np.concatenate(ranks.gather(values))[order]
    seconds = round(time.perf_counter() - start, 3)
    result: dict[str, Any] = {"images": len(images), "seconds": seconds}
    for name, column in zip(scores, table.T, strict=True):
        result[f"{name}_score"] = float(column.mean())
        result[f"{name}_score_error"] = float(column.std(ddof=1) / len(column) ** 0.5) if len(column) > 1 else None
    return result
