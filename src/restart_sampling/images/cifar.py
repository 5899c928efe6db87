"""CIFAR-10's cifar-10-python.tar.gz, whose batches are pickles of Python 2: read without running what is in them."""

import io
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.pickles import Blank, Global, Opcodes, Unpickler, UnreadableError
from restart_sampling.images.tars import TarFiles

BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
SHAPE = (3, 32, 32)

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
        # numpy's state of an array: version, shape, type, whether in Fortran's order, bytes (Python 2's str)
        case {
            "data": Blank("ndarray", (1, (int(count), 3072), Blank("u1"), False, str(text))),
            "labels": list(labels),
        } if (
            len(labels) * 3072 == len(text)
            and count == len(labels)
            and all(type(label) is int and 0 <= label <= 9 for label in labels)
        ):
            images = np.frombuffer(text.encode("latin1"), np.uint8).reshape(count, *SHAPE)
            return images, np.array(labels, np.int64)
    raise UnreadableError("it has not the images, uint8 [N, 3072], and the labels 0 to 9 of CIFAR-10")


class _Batch(Unpickler):
    content = "batch of CIFAR-10"
    names = frozenset({"numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"})

    def make(self, name: str, *arguments: Any) -> object:
        match name, *arguments:
            case "numpy.core.multiarray._reconstruct", Global(name="numpy.ndarray"), (0,), "b":
                return Blank("ndarray")
            case "numpy.dtype", str(kind), *_:
                return Blank(kind)
        return super().make(name, *arguments)
