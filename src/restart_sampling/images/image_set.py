"""Image sets as uint8 batches in sorted order, decoded ahead by threads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.base.parallel import available_cores, in_order
from restart_sampling.images.decode import Raw, decode, describe, pixels
from restart_sampling.images.labels import folder_of, root
from restart_sampling.images.png import SMALL, decode_alike, decode_plain
from restart_sampling.images.sources import Source, open_source

_MAX_WORKERS = 8


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one shape, in the order of their names.

    Attributes:
        source: where they come from.
        indices: int64 [N], their places there.
        shape: [C, H, W] of each; C = 1 is grey, 3 is RGB.
        workers: threads that decode.
    """

    source: Source
    indices: np.ndarray
    shape: tuple[int, int, int]
    workers: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> list[str]:
        """Names relative to the source."""
        return [self.source.names[index] for index in self.indices]

    @property
    def labels(self) -> np.ndarray | None:
        """Labels, int64 [N], or None."""
        return None if self.source.labels is None else self.source.labels[self.indices]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the labels can mean: the source's, or the folders' where each class is one.

        () where there are none, or two are the same. Bytes that are not UTF-8 are written as in Python: caf\\xe9.
        """
        if self.labels is None:
            return ()
        names = self.source.classes[: int(self.labels.max()) + 1] or _folder_names(self.names, self.labels)
        readable = tuple(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in names)
        return readable if len({*readable}) == len(readable) else ()

    @property
    def lossy(self) -> bool:
        """Whether there are JPEG or WebP files, which move a Fréchet distance."""
        return self.source.lossy

    def where(self, place: int) -> str:
        """Names the image at a place, in messages."""
        return self.source.where(int(self.indices[place]))

    def take(self, places: Sequence[int] | np.ndarray) -> "ImageSet":
        """Takes the images at these places, such as range(rank, len(images), world) for a process among many."""
        return ImageSet(self.source, self.indices[np.asarray(places, np.int64)], self.shape, self.workers)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.batches()

    def batches(self, size: int = 64) -> Iterator[np.ndarray]:
        """Yields uint8 [B, C, H, W], B = size but for the last. No more than workers + 1 batches are held ahead.

        Raises:
            InputError: a file is damaged, or not of the shape of the first; the message names it.
        """
        parts = (self.indices[start : start + size] for start in range(0, len(self), size))
        with ThreadPoolExecutor(self.workers) as threads:
            yield from in_order(threads, self._read, parts, ahead=self.workers + 1)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        raws = [self.source.raw(index) for index in indices.tolist()]  # whose ints are found sooner than numpy's
        files = [raw for raw in raws if isinstance(raw, bytes)]
        batch = decode_alike(files) if len(files) == len(raws) else None
        if batch is not None and batch.shape[1:] == self.shape:
            return batch
        batch = np.empty((len(indices), *self.shape), np.uint8)
        for place, (raw, index) in enumerate(zip(raws, indices, strict=True)):
            image = _pixels(raw, self.source, index)
            if image.shape != self.shape:
                raise InputError(
                    f"{self.source.where(index)} is {describe(image.shape)}, and the first image is "
                    f"{describe(self.shape)}; 'restart-sampling dataset' makes images of one size"
                )
            batch[place] = image
        return batch


def read_images(source: str | Path | Source, *, count: int | None = None, workers: int | None = None) -> ImageSet:
    """Reads the images of a source that `open_source` knows.

    Args:
        source: a path, or what is open already.
        count: how many; None is all. Of more, EDM's choice is taken: numpy's RandomState(0) shuffles, then the first
            `count`, sorted.
        workers: threads that decode; None is one a core, at most 8, and a single one for small images.

    Raises:
        InputError: no images, fewer than `count`, or the first one is damaged or has transparency.
    """
    source = source if isinstance(source, Source) else open_source(Path(source))
    indices = np.arange(len(source))
    if count is not None:
        if count > len(source):
            raise InputError(
                f"{source.path} holds {counted(len(source), 'image')}, and {count} are asked for; ask for fewer"
            )
        np.random.RandomState(0).shuffle(indices)
        indices = np.sort(indices[:count])
    first = int(indices[0])
    channels, height, width = _pixels(source.raw(first), source, first).shape
    return ImageSet(source, indices, (channels, height, width), workers or _workers(height * width))


def _folder_names(names: Sequence[str], labels: np.ndarray) -> tuple[str, ...]:
    """Names the folders, where each is one of the classes 0, 1, ...; numbers are the folders of EDM's datasets."""
    start = len(root(names))
    pairs = sorted({(label, folder_of(name, start)) for label, name in zip(labels.tolist(), names, strict=True)})
    one_each = [label for label, _ in pairs] == list(range(len(pairs)))
    folders = tuple(name for _, name in pairs)
    return folders if one_each and not any(name == "" or name.isdecimal() for name in folders) else ()


def _workers(pixels: int) -> int:
    # Opening a file holds Python's lock, decoding does not: of small images there is too little to decode at once.
    return 1 if pixels <= SMALL else min(available_cores(), _MAX_WORKERS)


def _pixels(raw: Raw, source: Source, index: int) -> np.ndarray:
    if isinstance(raw, np.ndarray):
        return raw
    image = decode_plain(raw) or decode(raw, source.where(index))
    if image.mode == "RGBA":
        raise InputError(
            f"{source.where(index)} has transparency, and images have to be RGB or grey here; "
            "'restart-sampling dataset' lays them on white"
        )
    return pixels(image)
