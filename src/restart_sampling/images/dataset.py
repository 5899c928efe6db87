"""Datasets in EDM's format: `00000/img00000000.png` with labels in dataset.json, in a zip or a folder."""

import json
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import atomic, atomic_folder
from restart_sampling.base.lock import alone, lock_beside, remove_lock
from restart_sampling.base.parallel import Workers, in_order
from restart_sampling.images.decode import Raw, decode, describe
from restart_sampling.images.sources import Source
from restart_sampling.images.transforms import Transform, check_size
from restart_sampling.images.writers import LABELS, picture_png
from restart_sampling.images.zips import ZipWriter

_CHUNK_FILES = 64  # at once to a worker: enough that sending them costs little
_CHUNK_BYTES = 2**22
_PART = 2**14  # bytes of the labels that are copied at once
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


def file_name(place: int) -> str:
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
        remove_lock(lock_beside(out))
        raise InputError(f"{out} exists; remove it, or choose another place")


def make_dataset(plan: Conversion, workers: int = 1, advance: Callable[[int], None] = lambda count: None) -> Dataset:
    """Writes the dataset. The same source makes the same bytes, whatever the number of workers.

    It appears whole at the end, or not at all. Memory does not grow with their number, but for 8 bytes of each label.

    Args:
        plan: from `plan_dataset`.
        workers: processes. With more than one, a script that calls this has to have `if __name__ == "__main__":`.
        advance: is told how many more images are done.

    Raises:
        InputError: a file is damaged, or does not become an image of the shape of the first, and the message names it;
            or another process writes the same, or has written it.
    """
    labels = plan.source.labels
    count, classes = 0, set()
    with (
        alone(plan.out, "place"),
        _output(plan.out) as add,
        TemporaryFile("w+b") as pairs,  # a million lists would take more than all else
    ):
        with closing(_converted(plan, workers)) as chunks:
            for results in chunks:
                for place, png in results:
                    if png is not None:
                        add(file_name(place), [png])
                        count += 1
                        if labels is not None:
                            classes.add(int(labels[place]))
                            pairs.write(f'["{file_name(place)}", {labels[place]}], '.encode())
                advance(len(results))
        if not count:
            raise InputError(f"{plan.source.path}: no image is as large as the --resolution")
        add(LABELS, _labels_json(pairs, plan.source.classes))
    return Dataset(count, plan.count - count, plan.shape, None if labels is None else len(classes))


def seconds_per_image(plan: Conversion) -> float:
    """Measures the time of an image by converting the first, for a second or so; writes nothing.

    Raises:
        InputError: one of these is damaged, or does not become an image of the shape of the first.
    """
    done, start = 0, time.perf_counter()
    for chunk in _chunks(plan):
        done += len(_convert(chunk, plan.transform, plan.shape))
        if time.perf_counter() - start > 1:
            break
    return (time.perf_counter() - start) / done


def _converted(plan: Conversion, workers: int) -> Generator[list[tuple[int, bytes | None]]]:
    convert = partial(_convert, transform=plan.transform, shape=plan.shape)
    if workers == 1 or plan.count <= _FEW:
        yield from map(convert, _chunks(plan))
        return
    try:
        with ThreadPoolExecutor(workers) as threads, Workers(workers, convert, _start_worker) as convert_there:
            yield from in_order(threads, convert_there, _chunks(plan), ahead=2 * workers)
    except ChildProcessError as error:
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


def _start_worker() -> None:
    """Silences Pillow's warning, as the command does."""
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")


@contextmanager
def _output(out: Path) -> Iterator[Callable[[str, Iterable[bytes]], None]]:
    """Takes names and contents, in parts, for a zip or folder that gets its name at the end.

    It is removed after an exception.
    """
    _check_new(out)  # another process may have come first
    if out.suffix == ".zip":
        with atomic(out) as temporary, ZipWriter(temporary) as add:
            yield add
        return
    with atomic_folder(out) as folder:

        def add_file(name: str, parts: Iterable[bytes]) -> None:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.writelines(parts)

        yield add_file


def _labels_json(pairs: BinaryIO, classes: Sequence[str]) -> Iterator[bytes]:
    """Writes the labels and the names of the classes around the pairs that are in a file, each with a comma behind."""
    length = pairs.tell() - len(", ")
    if length < 0:
        yield b'{"labels": null}'
        return
    yield b'{"labels": ['
    pairs.seek(0)
    while part := pairs.read(min(_PART, length - pairs.tell())):
        yield part
    yield b"]"
    if classes:
        yield f', "classes": {json.dumps(classes)}'.encode()
    yield b"}"
