"""What all comparisons of rows share: a row that fails does not end the others, and its first images are kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from restart_sampling.base.errors import one_line
from restart_sampling.base.files import atomic
from restart_sampling.evaluation.measure import Batches
from restart_sampling.images.writers import picture_png

KEPT = 16
"""Images that are kept of each row: the first ones, of the same seeds for all rows."""


class RowError(Exception):
    """One row could not be measured; the others can."""


@contextmanager
def row_at_stake() -> Iterator[None]:
    """Turns an error in the body, the same on all processes, into one of the row alone.

    Raises:
        RowError: with what the error says.
    """
    try:
        yield
    except Exception as error:
        raise RowError(one_line(error)) from error


def keep_first(batches: Batches, path: Path) -> Batches:
    """The batches; of that which begins the set the first images are written side by side to a PNG file."""
    for places, images, labels in batches:
        if places[0] == 0:
            _write_strip(images[:KEPT], path)
        yield places, images, labels


def _write_strip(images: Tensor, path: Path) -> None:
    strip = np.concatenate(list(images.numpy()), axis=2)
    picture = Image.fromarray(strip[0] if len(strip) == 1 else strip.transpose(1, 2, 0))
    with atomic(path) as temporary:
        temporary.write_bytes(picture_png(picture))
