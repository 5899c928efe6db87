"""What a run looks like: its loss, and images of the model so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restart_sampling.errors import require_extra
from restart_sampling.files import atomic
from restart_sampling.generation.generate import generate
from restart_sampling.images.writers import encode_png
from restart_sampling.models.denoiser import Denoiser

_PLAN = "18"  # Heun, 35 evaluations
_COLUMNS, _ROWS = 10, 6
_PIXEL = 2  # each pixel of an image is drawn as so many
_SMOOTH = 0.1  # the curve of the loss is a mean of the last tenth of the run so far


def draw_samples(model: Denoiser, out: Path) -> None:
    """A grid of images of seeds 0, 1, ... by Heun with 18 steps; with classes, column k is class k.

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
    with atomic(out) as temporary:
        temporary.write_bytes(encode_png(_grid(images)))


def _grid(images: np.ndarray) -> np.ndarray:
    """Images [rows * columns, C, H, W] as one, [C, H', W'], with white between them."""
    channels, height, width = images.shape[1:]
    large = images.repeat(_PIXEL, axis=2).repeat(_PIXEL, axis=3)
    spaced = np.pad(large, ((0, 0), (0, 0), (0, _PIXEL), (0, _PIXEL)), constant_values=255)
    cells = spaced.reshape(_ROWS, _COLUMNS, *spaced.shape[1:]).transpose(2, 0, 3, 1, 4)
    tall, wide = _PIXEL * (height + 1), _PIXEL * (width + 1)
    return cells.reshape(channels, _ROWS * tall, _COLUMNS * wide)[:, :-_PIXEL, :-_PIXEL]


def draw_loss(history: Sequence[Mapping[str, Any]], out: Path) -> None:
    """The loss over the images, each round as a dot and a running mean as a line, both axes logarithmic.

    Args:
        history: lines with "images" and "loss".
        out: a PNG file, written whole.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_extra("matplotlib", "figures")
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    images = np.array([line["images"] for line in history])
    loss = np.array([line["loss"] for line in history])
    rounds = np.arange(len(loss))
    first = ((1 - _SMOOTH) * rounds).astype(int)
    sums = np.cumsum([0.0, *loss])
    smooth = (sums[1:] - sums[first]) / (rounds + 1 - first)
    figure = Figure(figsize=(6.4, 3.6), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.plot(images, loss, ".", markersize=2, color="#bbbbbb")
    axes.plot(images, smooth, color="#4477aa", linewidth=1.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("images", color="#444444")
    axes.set_ylabel("loss", color="#444444")
    axes.tick_params(which="both", labelsize=8, colors="#444444")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with atomic(out) as temporary:
        figure.savefig(temporary, format="png")
