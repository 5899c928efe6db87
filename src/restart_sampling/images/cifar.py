"""CIFAR-10's cifar-10-python.tar.gz, whose batches are pickles: read without running what is in them.

The published ones are of Python 2; others are of Python 3 and of numpy before 2 or from it on.
"""

import io
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.pickles import Blank, Global, Opcodes, Unpickler, UnreadableError, damaged
from restart_sampling.images.tars import TarFiles

BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
SHAPE = (3, 32, 32)

_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # numpy 1 and 2
_MAX_BYTES = 2**28  # eight times the published batches


def cifar_batches(files: TarFiles) -> list[str]:
    """Finds the five training batches among the files: their names, [] if there is none of them."""
    found = {name.rpartition("/")[2]: name for name in files.index.others() if name.endswith(BATCHES)}
    return [found[name] for name in BATCHES if name in found]


def read_cifar(files: TarFiles, where: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads the training set: names, images uint8 [N, 3, 32, 32] and labels int64 [N].

    Raises:
        InputError: a batch is missing, damaged, or asks for what no batch needs; nothing in it was run.
    """
    found = cifar_batches(files)
    if len(found) != len(BATCHES):
        raise InputError(f"{where} has {len(found)} of CIFAR-10's batches {BATCHES[0]} to {BATCHES[-1]}; get it again")
    names, images, labels = [], [], []
    for batch, name in zip(BATCHES, found, strict=True):
        try:
            some, classes = _batch(files.read(name, files.index.find(name) or b""))
        except UnreadableError as error:
            raise InputError(f"{where}: {batch} cannot be read: {error}") from error
        names += [f"{batch}/{number:05d}" for number in range(len(some))]
        images.append(some)
        labels.append(classes)
    return names, np.concatenate(images), np.concatenate(labels)


def _batch(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    if len(data) > _MAX_BYTES:
        raise UnreadableError(f"it is {len(data):,} bytes long, and a batch is no longer than {_MAX_BYTES:,}")
    match _Batch(io.BytesIO(data), Opcodes(len(data))).load():
        # numpy's state of an array: version, shape, type, whether in Fortran's order, bytes (Python 2's are str)
        case {
            "data": Blank("ndarray", (1, (int(count), 3072), Blank("u1"), False, (str() | bytes()) as pixels)),
            "labels": list(labels),
        } if (
            len(labels) * 3072 == len(pixels)
            and count == len(labels)
            and all(type(label) is int and 0 <= label <= 9 for label in labels)
        ):
            with damaged("the array of images"):
                whole = pixels if isinstance(pixels, bytes) else pixels.encode("latin1")
            images = np.frombuffer(whole, np.uint8).reshape(count, *SHAPE)
            return images, np.array(labels, np.int64)
    raise UnreadableError("it has not the images, uint8 [N, 3072], and the labels 0 to 9 of CIFAR-10")


class _Batch(Unpickler):
    content = "batch of CIFAR-10"
    names = frozenset({*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype"})

    def _update(self, items: list[Any]) -> None:
        keys = [key.decode("latin1") if type(key) is bytes else key for key in items[::2]]  # of encoding="bytes"
        super()._update([each for pair in zip(keys, items[1::2], strict=True) for each in pair])

    def make(self, name: str, *arguments: Any) -> object:
        match name, *arguments:
            case str(call), Global(name="numpy.ndarray"), (0,), ("b" | b"b") if call in _RECONSTRUCT:
                return Blank("ndarray")
            case "numpy.dtype", str(kind), *_:
                return Blank(kind)
        return super().make(name, *arguments)
