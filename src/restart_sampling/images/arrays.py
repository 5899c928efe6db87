"""Images in a NumPy file: `arr_0`, uint8 [N, H, W, C], and classes in `arr_1`, as guided-diffusion writes them."""

import math
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import check_ratio

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_samples(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Opens the images uint8 [N, C, H, W], C = 1 or 3, and reads the labels int64 [N], None where there are none.

    The images stay on the disk: in the file itself, or in a temporary one (in TMPDIR) where it is compressed. No other
    array is read, and nothing is unpickled.

    Raises:
        InputError: the file is damaged, or has no such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "arr_0.npy" not in names:
                held = ", ".join(shorten(name.removesuffix(".npy"), 40) for name in names[:8]) or "nothing"
                raise InputError(
                    f"{path} holds {held}, and no images (arr_0, uint8 [N, H, W, 3], as guided-diffusion writes them)"
                )
            images = _array(path, archive, "arr_0")
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
                raise InputError(
                    f"{path}: arr_0 is {images.dtype} {list(images.shape)}, and images are uint8 [N, H, W, 3]"
                )
            labels = _array(path, archive, "arr_1") if "arr_1.npy" in names else None
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path} is damaged or truncated ({shorten(str(error))}); get or make it again") from error
    if labels is not None and (
        labels.dtype.kind not in "iu" or labels.shape != (len(images),) or not 0 <= labels.min() <= labels.max() < 2**31
    ):
        raise InputError(
            f"{path}: arr_1 is {labels.dtype} {list(labels.shape)}, and has to be a class 0, 1, ... of each of the "
            f"{len(images)} images"
        )
    return images.transpose(0, 3, 1, 2), None if labels is None else labels.astype(np.int64)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads what comes before the numbers of an array: its shape, whether it is in Fortran's order, and its dtype."""
    return _READERS[np.lib.format.read_magic(file)](file)


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Maps an array, after its whole content was read once, which checks it."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        shape, fortran, dtype = read_header(file)
        start = file.tell()
        if dtype.hasobject or fortran or start + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{name} is {dtype} {list(shape)} in {info.file_size - start} bytes")
        check_ratio(info.file_size, info.compress_size, f"{path}: {name}")
        if info.compress_type == zipfile.ZIP_STORED:
            while file.read(2**20):
                pass
            return np.memmap(path, dtype, "r", _content(path, info) + start, shape)
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(file, unpacked, 2**20)
            return np.memmap(unpacked, dtype, "r", 0, shape)


def _content(path: Path, info: zipfile.ZipInfo) -> int:
    """Finds where the content of a file in a zip begins, which its local header says."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
