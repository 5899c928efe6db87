"""Sources of images: folders, archives and files of arrays, each as one sorted sequence, read lazily."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol, overload

import numpy as np
from PIL import Image

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.numbers import counted
from restart_sampling.images.arrays import read_samples
from restart_sampling.images.cifar import cifar_batches, read_cifar
from restart_sampling.images.dataset_cards import as_names
from restart_sampling.images.decode import SUFFIXES, Raw, decode, is_hidden
from restart_sampling.images.file_index import FileIndex
from restart_sampling.images.folders import FolderFiles
from restart_sampling.images.labels import (
    METADATA,
    folder_labels,
    listed_labels,
    metadata_labels,
    root,
    stated_classes,
)
from restart_sampling.images.mnist import is_mnist, read_mnist
from restart_sampling.images.parquet import SUFFIX, ParquetFiles, check_shards, part_of
from restart_sampling.images.tars import TarFiles, is_tar
from restart_sampling.images.writers import LABELS, MANIFEST, SUBSET
from restart_sampling.images.zips import ZipFiles

_MAX_KINDS = 5  # of files left out that are named
_MAX_JSON, _MAX_JSON_EACH = 2**25, 2**8  # bytes, and those for each image more


@dataclass(frozen=True, eq=False)
class Source:
    """A sequence of images, sorted by name. It may be read from several threads at once.

    Attributes:
        path: what was opened.
        names: relative to it, with "/"; in the order of the characters, so that a folder and its zip agree.
        labels: int64 [N], or None.
        raw: the image of an index, as the source holds it; raises InputError where that cannot be read.
        lossy: whether a file is of a lossy format (JPEG, WebP).
        classes: the names of the classes 0, 1, ...; () where none are known.
        left_out: how many files are there that are no images, and of which kinds; "" where there are none.
    """

    path: Path
    names: Sequence[str] = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    raw: Callable[[int], Raw] = field(repr=False)
    lossy: bool
    classes: tuple[str, ...] = field(default=(), repr=False)
    left_out: str = ""

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
    """Opens the images in a folder, a zip, a tar (plain, gz, bz2, xz) or a file of one of these kinds.

    CIFAR-10's python tar, MNIST's idx file, samples in .npz (`read_samples`), and Parquet (`ParquetFiles`); a folder
    without images may hold the tars of a WebDataset, or Parquet files, of which `folder/train` is the part train.

    Labels are those of dataset.json where there is one (its null means none), else of the column `label` of Hugging
    Face's metadata.csv or metadata.jsonl, else those in the .cls or .json files of a WebDataset, else the folders of
    the classes in the order of their names, if there is more than one; a single folder that holds all the others is
    looked through.
    What `generate` has written has no classes beyond its dataset.json.

    Raises:
        InputError: there is nothing of the kind, it is damaged, or it holds no images.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists() and path.parent.is_dir() and (shards := _shards_of_part(path)):
        return _from_parquet(path, shards)
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is a device or a pipe")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); give a folder, zip or tar of images") from error
    if is_mnist(path):
        return _from_arrays(path, *read_mnist(path))
    if path.suffix == ".npz":
        return _from_arrays(path, *read_samples(path))
    if head.startswith(b"PAR1"):
        return _from_parquet(path, [path])
    if head.startswith(b"PK"):
        return _from_files(path, ZipFiles(path))
    if is_tar(head):
        files = TarFiles(path)
        if cifar_batches(files):
            names, images, labels = read_cifar(files, str(path))
            return replace(_from_arrays(path, images, labels), names=names)
        return _from_files(path, files)
    kind = "a damaged zip" if path.suffix == ".zip" else "no folder, zip, tar or idx file"
    raise InputError(f"{path} is {kind}; give a folder, zip or tar of images")


class Files(Protocol):
    """Files by name, and how to read them: those of a folder, a zip or tars."""

    index: FileIndex

    def read(self, name: str, place: bytes) -> bytes:
        """Reads the file of this name, at its place in the index; raises InputError."""


def _open_folder(path: Path) -> Source:
    files = FolderFiles(path)
    if not files.index.images:
        shards = [name for name in files.index.others() if name.endswith((".tar", SUFFIX))]
        tars = [path / name for name in shards if name.endswith(".tar")]
        if tars:
            return _from_files(path, TarFiles(path, tars))
        if shards:
            check_shards(path, shards)
            return _from_parquet(path, [path / name for name in shards])
    return _from_files(path, files)


def _shards_of_part(path: Path) -> list[Path]:
    """Finds the Parquet files of a part of a data set, `folder/train`, in the folder or one below."""
    folder = path.parent
    files = sorted(file for depth in ("", "*/") for file in folder.glob(f"{depth}*{SUFFIX}"))
    shards = {name: file for file in files if part_of(name := file.relative_to(folder).as_posix()) == path.name}
    if shards:
        check_shards(folder, [*shards])
    return [*shards.values()]


def _from_files(path: Path, files: Files) -> Source:
    names = files.index.images
    left_out = _left_out(files.index)
    if not names:
        raise InputError(f"{path} holds no images ({', '.join(SUFFIXES)}){left_out and f', only {left_out}'}")
    labels, classes = _labels(path, files, names)
    return Source(
        path=path,
        names=names,
        labels=labels,
        raw=lambda number: files.read(*files.index.image(number)),
        lossy=files.index.lossy,
        classes=classes,
        left_out=left_out,
    )


def _from_arrays(path: Path, images: np.ndarray, labels: np.ndarray | None) -> Source:
    if not images.size:
        raise InputError(f"{path} holds no images")
    return Source(path, _Numbers(len(images)), labels, raw=lambda index: np.asarray(images[index]), lossy=False)


def _from_parquet(path: Path, shards: Sequence[Path]) -> Source:
    files = ParquetFiles(path, shards)
    if not len(files):
        raise InputError(f"{path} holds no images")
    # Their names, if any, are in the files; that there may be JPEGs is all that is known without reading all.
    return Source(path, _Numbers(len(files)), files.labels, files.read, lossy=True, classes=files.classes)


class _Numbers(Sequence[str]):
    """Names of images that have none: 00000, 00001, ..."""

    def __init__(self, count: int) -> None:
        self._range = range(count)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        chosen = self._range[number]
        return f"{chosen:05d}" if isinstance(chosen, int) else [f"{each:05d}" for each in chosen]


def _left_out(index: FileIndex) -> str:
    """Counts the files of other kinds: "2 files of other kinds (.heic 1, .txt 1)", or ""."""
    others = (PurePosixPath(name) for name in index.others())
    kinds = Counter(
        shorten(path.suffix.lower(), 20) or "no suffix"
        for path in others
        if path.name not in (LABELS, MANIFEST, SUBSET, *METADATA) and path.suffix != ".cls" and not is_hidden(str(path))
    )
    if not kinds:
        return ""
    count = kinds.total()
    named = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common(_MAX_KINDS))
    return f"{counted(count, 'file')} of other kinds ({named}{', ...' * (len(kinds) > _MAX_KINDS)})"


def _labels(path: Path, files: Files, names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    def read(name: str) -> bytes | None:
        place = files.index.find(name)
        content = None if place is None else files.read(name, place)
        if content is not None and len(content) > _MAX_JSON + _MAX_JSON_EACH * len(names):
            raise InputError(
                f"{path}: {name} has {len(content):,} bytes for {counted(len(names), 'image')}; take it out"
            )
        return content

    parts = root(names).split("/")
    for depth in range(len(parts)):
        folder = "".join(f"{part}/" for part in parts[:depth])
        labels, manifest = read(folder + LABELS), read(folder + MANIFEST)
        classes = () if manifest is None else _read_manifest(path, manifest)
        if labels is not None:
            listed, own = listed_labels(labels, names, folder, f"{path}: {folder}{LABELS}")
            return listed, own or (classes if listed is not None and listed.max() < len(classes) else ())
        if manifest is not None:
            return None, ()
        for name in METADATA:
            text = read(folder + name)
            if text is not None and (found := metadata_labels(text, names, folder, f"{path}: {folder}{name}")):
                return found
    beside = any(name.endswith((".cls", ".json")) for name in files.index.others())
    stated = stated_classes(read, names, str(path)) if beside else None
    return stated or folder_labels(names)


def _read_manifest(path: Path, manifest: bytes) -> tuple[str, ...]:
    """Reads the names of the classes that `generate` drew; () where there are none, or it is another program's.

    Raises:
        InputError: the run was interrupted, and has other images than were asked for.
    """
    try:
        content = json.loads(manifest)
        complete, classes = content.get("complete", True), content.get("classes")
    except (ValueError, AttributeError, RecursionError):
        return ()
    if complete is False:
        raise InputError(f"{path} is a run of generate that did not end; run the same command again")
    return as_names(classes)
