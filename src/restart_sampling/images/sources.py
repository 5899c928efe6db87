"""Sources of images: folders, zips, tars, CIFAR-10's and MNIST's files, each as one sorted sequence, read lazily."""

import json
import os
import struct
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.images.cifar import cifar_batches, read_cifar
from restart_sampling.images.decode import LOSSY, SUFFIXES, Raw, decode, is_image
from restart_sampling.images.labels import folder_labels, listed_labels, root
from restart_sampling.images.mnist import is_mnist, read_mnist
from restart_sampling.images.tars import TarFiles, is_tar
from restart_sampling.images.writers import LABELS, MANIFEST

_MAX_FILE = 2**29  # bytes of one file in a zip, unpacked


@dataclass(frozen=True, eq=False)
class Source:
    """A sequence of images, sorted by name. It may be read from several threads at once.

    Attributes:
        path: what was opened.
        names: relative to it, with "/"; in the order of the characters, so that a folder and its zip agree.
        labels: int64 [N], or None.
        raw: the image of an index, as the source holds it; raises InputError where that cannot be read.
        lossy: whether a file is of a lossy format (JPEG, WebP).
    """

    path: Path
    names: Sequence[str] = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    raw: Callable[[int], Raw] = field(repr=False)
    lossy: bool

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Image.Image, int | None]]:
        """Yields name, picture (mode L, RGB or RGBA) and label of each image, one at a time."""
        for index, name in enumerate(self.names):
            yield name, self.image(index), None if self.labels is None else int(self.labels[index])

    def image(self, index: int) -> Image.Image:
        """Decodes the picture of an index (see `decode`).

        Raises:
            InputError: the file is damaged.
        """
        return decode(self.raw(index), self.where(index))

    def where(self, index: int) -> str:
        """Names an image in messages."""
        name = shorten(self.names[index], 200)
        return f"{self.path}/{name}" if self.path.is_dir() else f"{self.path}: {name}"


def open_source(path: Path) -> Source:
    """Opens the images in a folder, a zip, a tar (plain, gz, bz2, xz), CIFAR-10's python tar, or MNIST's idx file.

    Labels are those of dataset.json where there is one (its null means none), else the folders of the classes in the
    order of their names, if there is more than one; a single folder that holds all the others is looked through. What
    `generate` has written has no classes beyond its dataset.json.

    Raises:
        InputError: there is nothing of the kind, it is damaged, or it holds no images.
    """
    if path.is_dir():
        return _from_files(path, _FolderFiles(path))
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); give a folder, zip or tar of images") from error
    if is_mnist(path):
        return _from_arrays(path, *read_mnist(path))
    if head.startswith(b"PK"):
        return _from_files(path, _ZipFiles(path))
    if is_tar(head):
        files = TarFiles(path)
        if cifar_batches(files):
            return _from_arrays(path, *read_cifar(files, str(path)))
        return _from_files(path, files)
    kind = "a damaged zip" if path.suffix == ".zip" else "no folder, zip, tar or idx file"
    raise InputError(f"{path} is {kind}; give a folder, zip or tar of images")


class _Files(Protocol):
    names: list[str]  # sorted

    def read(self, index: int) -> bytes: ...


class _FolderFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = list(_walk(folder, "", frozenset()))

    def read(self, index: int) -> bytes:
        path = self._folder / self.names[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error


class _ZipFiles:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
            raise InputError(f"{path} is a damaged or truncated zip ({error}); get or make it again") from error
        self._lock = Lock()  # ZipFile counts its readers without one
        self.names = sorted({info.filename for info in self._archive.infolist() if not info.is_dir()})

    def read(self, index: int) -> bytes:
        name = self.names[index]
        try:
            info = self._archive.getinfo(name)
            if info.file_size > _MAX_FILE:
                raise ValueError(f"{info.file_size:,} bytes are more than an image has")
            with self._lock:
                return self._archive.read(info)
        except Exception as error:  # a damaged or encrypted zip can fail in any way
            raise InputError(f"{self._path}: {shorten(name, 200)} cannot be read ({error})") from error


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
    """Lists all files in and below a folder, in the order of the characters of the whole names.

    Links are followed, but not round in circles.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name + "/") if entry.is_dir() else entry.name for entry in entries)
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror})") from error
    for name in found:
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name, above | {real})
        else:
            yield prefix + name


def _from_files(path: Path, files: _Files) -> Source:
    places = [index for index, name in enumerate(files.names) if is_image(name)]
    if not places:
        raise InputError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    names = [files.names[index] for index in places]
    return Source(
        path=path,
        names=names,
        labels=_labels(path, files, names),
        raw=lambda index: files.read(places[index]),
        lossy=any(name.lower().endswith(LOSSY) for name in names),
    )


def _from_arrays(path: Path, names: list[str], images: np.ndarray, labels: np.ndarray | None) -> Source:
    return Source(path, names, labels, raw=lambda index: images[index], lossy=False)


def _labels(path: Path, files: _Files, names: list[str]) -> np.ndarray | None:
    parts = root(names).split("/")
    for depth in range(len(parts)):
        folder = "".join(f"{part}/" for part in parts[:depth])
        labels, manifest = _find(files, folder + LABELS), _find(files, folder + MANIFEST)
        if manifest is not None:
            _check_complete(path, files.read(manifest))
        if labels is not None:
            return listed_labels(files.read(labels), names, folder, f"{path}: {files.names[labels]}")
        if manifest is not None:
            return None
    return folder_labels(names)


def _find(files: _Files, name: str) -> int | None:
    index = bisect_left(files.names, name)
    return index if files.names[index : index + 1] == [name] else None


def _check_complete(path: Path, manifest: bytes) -> None:
    """Refuses an interrupted run of `generate`, which has other images than were asked for."""
    try:
        complete = json.loads(manifest).get("complete", True)
    except (ValueError, AttributeError, RecursionError):
        return  # another program's
    if complete is False:
        raise InputError(f"{path} is a run of generate that did not end; run the same command again")
