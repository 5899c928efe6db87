"""MNIST's idx files: train-images-idx3-ubyte.gz, with the labels in train-labels-idx1-ubyte.gz beside it."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_ratio
from restart_sampling.base.numbers import counted

_IMAGES = re.compile(r"images([-.])idx3-ubyte(\.gz)?$")


def is_mnist(path: Path) -> bool:
    """Tells whether the name is that of a file of images."""
    return _IMAGES.search(path.name) is not None


def read_mnist(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads images uint8 [N, 1, H, W], and labels int64 [N], or None without the file of labels.

    28 x 28 pixels get a black border of two, to 32 x 32, as in EDM.

    Raises:
        InputError: a file is damaged or cut off, or the two do not belong together.
    """
    images = _read_idx(path, 3)[:, None]
    if images.shape[2:] == (28, 28):
        images = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    beside = path.with_name(_IMAGES.sub(r"labels\1idx1-ubyte\2", path.name))
    if not beside.exists():
        return images, None
    labels = _read_idx(beside, 1)
    if len(labels) != len(images):
        raise InputError(
            f"{beside} has {counted(len(labels), 'label')}, and {path.name} has {counted(len(images), 'image')}; "
            f"get both again"
        )
    return images, labels.astype(np.int64)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads a file of bytes: 0, 0, 8 (bytes), the number of dimensions, each of them big-endian, and the elements."""
    packed = path.stat().st_size
    start = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack(f">{1 + dimensions}I", file.read(start))
            size = math.prod(shape)
            if magic != 0x800 + dimensions or not size:
                raise InputError(f"{path} is no idx file of bytes in {dimensions} dimensions; get it again")
            # Before it is read: a file of 16 bytes can announce any size.
            if path.suffix == ".gz":
                check_ratio(size, packed, str(path))
            elif packed != start + size:
                raise EOFError(f"{size:,} bytes are announced, and {packed - start:,} are there")
            data = file.read(size + 1)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"{path} is damaged or truncated ({error}); get it again") from error
    if len(data) != size:
        raise InputError(f"{path} is damaged or truncated: {size} bytes are announced; get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)
