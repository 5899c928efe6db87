"""Pictures of a training run: its loss, and images of the model so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restart_sampling.base.files import write_bytes
from restart_sampling.generation.generate import generate
from restart_sampling.images.writers import encode_png, image_grid
from restart_sampling.models.denoiser import Denoiser

_PLAN = "18"  # Heun, 35 evaluations
_COLUMNS, _ROWS = 10, 6
_SMOOTH = 0.1  # the curve of the loss is a mean of the last tenth of the run so far


def draw_samples(model: Denoiser, out: Path) -> None:
    """Draws a grid of images of seeds 0, 1, ... by Heun with 18 steps; with classes, column k is class k.

    Args:
        model: the average of the weights.
        out: a PNG file, written whole.

    Raises:
        InputError: an image is not finite.
    """
    seeds = range(_COLUMNS * _ROWS)
    classes = [seed % _COLUMNS % model.label_dim for seed in seeds] if model.label_dim else None
    batches = generate(model, _PLAN, seeds, batch_size=len(seeds), classes=classes)
    images = torch.cat([batch.images for batch in batches]).numpy()
    write_bytes(out, encode_png(image_grid(images, _COLUMNS)))


def plot_loss(history: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Plots the loss over the images, each round as a dot and a running mean as a line.

    Args:
        history: lines with "images" and "loss".
        out: a PNG file, written whole.

    Raises:
        InputError: matplotlib is not installed.
    """
    from restart_sampling.pictures.style import log_scale, stacked, style, styles, write_figure

    thousands = np.array([line["images"] for line in history]) / 1000
    loss = np.array([line["loss"] for line in history])
    rounds = np.arange(len(loss))
    first = ((1 - _SMOOTH) * rounds).astype(int)
    sums = np.cumsum([0.0, *loss])
    smooth = (sums[1:] - sums[first]) / (rounds + 1 - first)
    with style():
        figure, (axes,) = stacked(1, 2.2)
        axes.plot(thousands, loss, ".", markersize=1.5, color="#bbbbbb")
        axes.plot(thousands, smooth, color=styles(["ODE"])["ODE"].colour, linewidth=1.2)
        log_scale(axes, "x", thousands.tolist())
        log_scale(axes, "y", loss.tolist())
        axes.set(xlabel="thousand images", ylabel="loss")
    write_figure(figure, out)  # without a lock: the folder has one
