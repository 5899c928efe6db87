"""Prompts and the images that were made of them: image number i is that of the i-th prompt of a CSV."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from PIL import Image

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import atomic
from restart_sampling.base.parallel import available_cores, in_order
from restart_sampling.images.sources import Source

_MAX_WORKERS = 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PromptedImages:
    """Images with their prompts.

    Attributes:
        source: where the images are.
        places: the place there of each prompt's image.
        prompts: in the order of the CSV.
    """

    source: Source
    places: Sequence[int]
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def batches(
        self, numbers: Sequence[int], size: int, prepare: Callable[[Image.Image], T]
    ) -> Iterator[tuple[list[str], list[T]]]:
        """Yields prompts and prepared images, decoded and prepared ahead by threads.

        Args:
            numbers: of the prompts that are wanted.
            size: of a batch; the last one may be smaller.
            prepare: of a picture (mode L, RGB or RGBA), what is wanted of it.

        Raises:
            InputError: a file is damaged; the message names it.
        """

        def read(part: Sequence[int]) -> tuple[list[str], list[T]]:
            prepared = [prepare(self.source.image(self.places[number])) for number in part]
            return [self.prompts[number] for number in part], prepared

        workers = min(available_cores(), _MAX_WORKERS)
        parts = (numbers[start : start + size] for start in range(0, len(numbers), size))
        with ThreadPoolExecutor(workers) as threads:
            yield from in_order(threads, read, parts, ahead=workers + 1)


def read_prompts(path: Path) -> list[str]:
    """Reads the column `caption` of a CSV with a header, in order.

    Raises:
        InputError: the file cannot be read, has no such column, no prompts, or one without text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            prompts = [row["caption"] for row in rows] if "caption" in columns else None
    except OSError as error:
        raise InputError(f"prompts {path} cannot be read ({error.strerror}); give a CSV such as subset.csv") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"prompts {path} is not a CSV in UTF-8 ({error}); give one such as subset.csv") from error
    if prompts is None:
        named = ", ".join(repr(shorten(column, 40)) for column in columns)
        raise InputError(f"prompts {path} has no column 'caption' (it has: {named or 'none'}); name the column so")
    if not prompts:
        raise InputError(f"prompts {path} holds no prompts, only a header; give one a row")
    for number, prompt in enumerate(prompts):
        if not (prompt or "").strip():  # None in a row that is too short
            raise InputError(f"prompts {path}: number {number}, counted from 0, has no text; write one or leave it out")
    return prompts


def write_prompts(prompts: Sequence[str], path: Path) -> None:
    """Writes the original's table beside its images: the columns `` (the number of the image) and `caption`."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["", "caption"], *enumerate(prompts)])


def match_images(source: Source, prompts: Sequence[str]) -> PromptedImages:
    """Finds each prompt's image: the one whose file name is the prompt's number, counted from 0.

    Zeros before the number and folders do not matter: 17.png, 000017.png and 000000/000017.png are all number 17. Files
    with other names are no images of prompts.

    Raises:
        InputError: a prompt has no image or two, or a numbered image has no prompt; the message names it.
    """
    places: dict[int, int] = {}
    for place, name in enumerate(source.names):
        stem = PurePosixPath(name).stem
        if not re.fullmatch("[0-9]+", stem):
            continue
        number = int(stem)
        if number in places:
            raise InputError(f"{source.where(places[number])} and {source.where(place)} are both number {number}")
        places[number] = place
    missing = [number for number in range(len(prompts)) if number not in places]
    if missing:
        others = f", nor for {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"{source.path} has no image for prompt {missing[0]} ('{shorten(prompts[missing[0]], 60)}'){others}; its "
            f"name has to be {missing[0]}.png, or that with zeros before it"
        )
    extra = [number for number in places if number >= len(prompts)]
    if extra:
        raise InputError(
            f"{source.where(places[min(extra)])} has no prompt: there are {len(prompts)}, counted from 0; give the CSV "
            "that the images were made of"
        )
    return PromptedImages(source, [places[number] for number in range(len(prompts))], prompts)
