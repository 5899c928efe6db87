"""Datasets in EDM's format: `00000/img00000000.png` with labels in dataset.json, in a zip or a folder."""

import signal
import zipfile
from array import array
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import atomic, atomic_folder
from restart_sampling.base.lock import lock_beside, locked
from restart_sampling.base.parallel import in_order
from restart_sampling.images.decode import Raw, decode, describe
from restart_sampling.images.sources import Source
from restart_sampling.images.transforms import Transform, check_size
from restart_sampling.images.writers import LABELS, add_entry, picture_png

_CHUNK_FILES = 64  # at once to a worker: enough that sending them costs little
_CHUNK_BYTES = 2**22
_FEW = 512  # images that are done before a worker process has started

Item = tuple[int, str, Raw]
"""An image on its way to a worker: place in the source, name for messages, content."""


@dataclass(frozen=True)
class Dataset:
    """What was made.

    Attributes:
        images: how many were written.
        skipped: how many were too small for center-crop-wide.
        shape: [C, H, W] of each.
        classes: how many classes have images; None without labels.
    """

    images: int
    skipped: int
    shape: tuple[int, int, int]
    classes: int | None


@dataclass(frozen=True)
class Conversion:
    """A conversion that was checked before it begins. See `plan_dataset`."""

    source: Source
    out: Path
    transform: Transform
    count: int
    shape: tuple[int, int, int]


def image_name(place: int) -> str:
    """Makes EDM's name of the image at this place of the source, a thousand a folder."""
    return f"{place // 1000:05d}/img{place:08d}.png"


def plan_dataset(source: Source, out: Path, transform: Transform, count: int | None = None) -> Conversion:
    """Checks everything that can be refused before the work.

    Args:
        source: the images.
        out: a file that ends in .zip, or a folder; not there yet, or an empty folder.
        transform: of each image.
        count: how many images to take, the first by name; None, or more than there are, is all.

    Raises:
        InputError: something is at `out`, or the first image cannot be part of such a dataset.
    """
    _check_new(out)
    image = source.image(0)
    width, height = transform.output(image.size)
    check_size(width, height, source.where(0))
    channels = 1 if image.mode == "L" and transform.crop is None else 3
    count = len(source) if count is None else min(count, len(source))
    return Conversion(source, out, transform, count, (channels, height, width))


def _check_new(out: Path) -> None:
    empty = out.is_dir() and out.suffix != ".zip" and not any(out.iterdir())
    if (out.exists() or out.is_symlink()) and not empty:
        raise InputError(f"{out} exists; remove it, or choose another place")


def make_dataset(plan: Conversion, workers: int = 1, advance: Callable[[int], None] = lambda count: None) -> Dataset:
    """Writes the dataset. The same source makes the same bytes, whatever the number of workers.

    It appears whole at the end, or not at all. Memory is that of a few hundred images and of the names.

    Args:
        plan: from `plan_dataset`.
        workers: processes. With more than one, a script that calls this has to have `if __name__ == "__main__":`.
        advance: is told how many more images are done.

    Raises:
        InputError: a file is damaged, or does not become an image of the shape of the first, and the message names it;
            or another process writes the same, or has written it.
    """
    labels = plan.source.labels
    written = array("q")
    with locked(lock_beside(plan.out), str(plan.out), "place"), _output(plan.out) as add:
        with closing(_converted(plan, workers)) as chunks:
            for results in chunks:
                for place, png in results:
                    if png is not None:
                        add(image_name(place), png)
                        written.append(place)
                advance(len(results))
        if not written:
            raise InputError(f"{plan.source.path}: all {plan.count} images are smaller than the --resolution")
        add(LABELS, _labels_json(written, labels))
    classes = None if labels is None else len(np.unique(labels[np.asarray(written)]))
    return Dataset(len(written), plan.count - len(written), plan.shape, classes)


def _converted(plan: Conversion, workers: int) -> Generator[list[tuple[int, bytes | None]]]:
    convert = partial(_convert, transform=plan.transform, shape=plan.shape)
    if workers == 1 or plan.count <= _FEW:
        yield from map(convert, _chunks(plan))
        return
    try:
        # A fresh process, not a copy of this one: copies of a process with threads may hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupt) as processes:
            yield from in_order(processes, convert, _chunks(plan), ahead=2 * workers)
    except BrokenProcessPool as error:
        raise InputError("a worker process was ended, perhaps for want of memory; try --workers 1") from error


def _chunks(plan: Conversion) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    size = 0
    for place in range(plan.count):
        raw = plan.source.raw(place)
        chunk.append((place, plan.source.where(place), raw))
        size += len(raw) if isinstance(raw, bytes) else raw.nbytes
        if len(chunk) == _CHUNK_FILES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _convert(items: list[Item], transform: Transform, shape: tuple[int, int, int]) -> list[tuple[int, bytes | None]]:
    """Does a worker's part: makes PNG files, or None of images too small."""
    results: list[tuple[int, bytes | None]] = []
    for place, where, raw in items:
        image = transform(decode(raw, where))
        if image is None:
            results.append((place, None))
            continue
        its_shape = (len(image.getbands()), image.height, image.width)
        if its_shape != shape:
            raise InputError(
                f"{where} becomes {describe(its_shape)}, and the first image {describe(shape)}; a --resolution makes "
                "one size of all, and --transform center-crop also makes all RGB"
            )
        results.append((place, picture_png(image, compress_level=0)))  # as EDM: training reads it often
    return results


def _ignore_interrupt() -> None:
    """Ignores Ctrl-C, which reaches all processes of the terminal: the first one tidies up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _output(out: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Takes names and contents for a zip or folder that gets its name at the end, and is removed after an exception."""
    _check_new(out)  # another process may have come first
    if out.suffix == ".zip":
        with atomic(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            yield partial(add_entry, archive)
        return
    with atomic_folder(out) as folder:

        def add(name: str, content: bytes) -> None:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

        yield add


def _labels_json(written: array, labels: np.ndarray | None) -> bytes:  # type: ignore[type-arg]
    if labels is None:
        return b'{"labels": null}'
    # As text at once: a million lists would take more memory than all else.
    pairs = ", ".join(f'["{image_name(place)}", {labels[place]}]' for place in written)
    return f'{{"labels": [{pairs}]}}'.encode()
