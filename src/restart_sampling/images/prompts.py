"""Prompts and the images that were made of them: image number i is that of the i-th prompt of a CSV."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from PIL import Image

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import atomic, decode_text
from restart_sampling.base.numbers import counted
from restart_sampling.base.parallel import available_cores, in_order
from restart_sampling.images.sources import Source

_MAX_WORKERS = 8
_HEADER = ["", "caption"]
_COCO_HEADER = ["", "file_name", "caption"]  # its first column is of the table of all captions
_NUMBER = re.compile(r"\s*(?:.*[/\\])?([0-9]{1,18})(?:\.0*|\.[a-z]{3,4})?\s*", re.IGNORECASE)
_INDEX = re.compile(r"unnamed: 0|index|idx|file|image|img|((file|image|img)[ _]?)?(name|path|file)")
_ONE_COLUMN = re.compile(r'("?)caption\1[\r\n]')
_LINE_END = re.compile(r"\r\n?|\n")  # str.splitlines divides at \f, \u2028 and others, too
_LINE = re.compile(r'(?:"((?:[^"]|"")*+)"|([^\r\n]*))(?:\r\n?|\n|\Z)')

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
    """Reads the column `caption` of a CSV with a header: a prompt a row, in order.

    In a file with no other column each line is a prompt, commas and all, unless it is quoted as a whole. Where a first
    column without a name, as in the table of `write_prompts`, or one with the name `file_name` numbers the images
    (`11`, `11.0` or `a/0011.png`) 0, 1, 2 and so on in another order, that of the numbers counts, as it does where a
    column such as `index` or `image` has all of these; COCO's table of `write_captions` numbers none. In a .txt file
    without such a header each line that is not blank is a prompt.

    Raises:
        InputError: the file cannot be read, has no such column, no prompts, one without text, or a row whose length is
            not that of the header; a line of a .txt file has a tab; a first column without a name numbers some images
            only, or two the same.
    """
    return list(read_numbered_prompts(path).values())


def read_numbered_prompts(path: Path) -> dict[int, str]:
    """Does the same, and gives the number of each prompt's image, which is that of its row where the file says none."""
    try:
        text = decode_text(path.read_bytes(), f"prompts {path}")
        if path.suffix.lower() == ".txt" and not _has_header(text):
            lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
            if not lines:
                raise InputError(f"prompts {path} holds no prompts; write one a line")
            if table := next((line for line in lines if "\t" in line), None):
                raise InputError(
                    f"prompts {path} has a tab in the line '{shorten(table, 60)}'; write one prompt a line, or give a "
                    f"table as .csv, with a header and commas"
                )
            return dict(enumerate(lines))
        header, *rows = _whole_lines(text) if _ONE_COLUMN.match(text) else _csv_rows(path, text)
    except OSError as error:
        raise InputError(
            f"prompts {path} cannot be read ({error.strerror}); give a CSV such as subset.csv, or a .txt file"
        ) from error
    except csv.Error as error:
        raise InputError(f"prompts {path} is not a CSV ({error}); give one such as subset.csv") from error
    column = header.index("caption")
    prompts = [row[column] if column < len(row) else "" for row in rows]
    if not prompts:
        raise InputError(f"prompts {path} holds no prompts, only a header; give one a row")
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        if not prompt.strip():
            raise InputError(f"prompts {path}: number {number}, counted from 0, has no text; write one or leave it out")
        if len(row) != len(header):
            raise InputError(
                f"prompts {path}: number {number}, counted from 0, does not have the header's {len(header)} fields "
                f"but {len(row)} ('{shorten(','.join(row), 60)}'); put a text with commas in quotes"
            )
    numbers = _numbers(path, header, rows) or range(len(prompts))
    numbered = dict(zip(numbers, prompts, strict=True))
    return dict(sorted(numbered.items())) if numbered.keys() == {*range(len(prompts))} else numbered


def _numbers(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Reads the numbers of the images that a table gives; none where it gives none.

    Raises:
        InputError: a first column without a name numbers some of them, or two the same.
    """
    if header == _COCO_HEADER:
        return []
    for column in [place for place, name in enumerate(header) if name == "file_name"] + [0] * (header[0] == ""):
        matches = [_NUMBER.fullmatch(row[column]) for row in rows]
        numbers = [int(match[1]) for match in matches if match]
        if len({*numbers}) == len(rows):
            return numbers
        if numbers and header[column] == "":
            odd = next((row[column] for row, match in zip(rows, matches, strict=True) if not match), None)
            (twice, _), *_ = Counter(numbers).most_common(1)
            what = f"{twice} twice" if odd is None else f"'{shorten(odd, 40)}', which is no number"
            raise InputError(
                f"prompts {path}: a first column without a name numbers the images, and this has {what}; give each "
                "image a number of its own, or the column a name if it is something else"
            )
    for column in [place for place, name in enumerate(header) if _INDEX.fullmatch(name.strip().lower())]:
        matches = [_NUMBER.fullmatch(row[column]) for row in rows]
        numbers = [int(match[1]) for match in matches if match]
        if sorted(numbers) == [*range(len(rows))]:
            return numbers
    return []


def _has_header(text: str) -> bool:
    return "caption" in next(csv.reader(_LINE_END.split(text, maxsplit=1)[:1]), [])


def _csv_rows(path: Path, text: str) -> list[list[str]]:
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    if header.count("caption") != 1:
        what = "more than one" if "caption" in header else "no"
        named = ", ".join(repr(shorten(column, 40)) for column in header)
        raise InputError(
            f"prompts {path} has {what} column 'caption' (it has: {named or 'none'}); name one so, "
            "and put commas between columns"
        )
    return [header, *rows]


def _whole_lines(text: str) -> list[list[str]]:
    """Reads the rows of a file of one column: no comma divides, and quotes count where they hold a whole line."""
    lines = (line.groups() for line in _LINE.finditer(text))
    return [[quoted.replace('""', '"') if plain is None else plain] for quoted, plain in lines if plain != ""]


def write_prompts(prompts: Sequence[str], path: Path) -> None:
    """Writes the original's table beside its images: the columns `` (the number of the image) and `caption`."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_HEADER, *enumerate(prompts)])


def match_images(source: Source, prompts: Sequence[str] | Mapping[int, str]) -> PromptedImages:
    """Finds each prompt's image: the one whose file name is the prompt's number.

    Prompts without numbers are counted from 0. Zeros before the number and folders do not matter: 17.png, 000017.png
    and 000000/000017.png are all number 17. Files with other names are no images of prompts.

    Raises:
        InputError: a prompt has no image or two, or a numbered image has no prompt; the message names it.
    """
    numbered = prompts if isinstance(prompts, Mapping) else dict(enumerate(prompts))
    places: dict[int, int] = {}
    for place, name in enumerate(source.names):
        stem = PurePosixPath(name).stem
        if not re.fullmatch("[0-9]+", stem):
            continue
        number = int(stem)
        if number in places:
            raise InputError(f"{source.where(places[number])} and {source.where(place)} are both number {number}")
        places[number] = place
    missing = [number for number in numbered if number not in places]
    if missing:
        others = f", nor for {counted(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise InputError(
            f"{source.path} has no image for prompt {missing[0]} ('{shorten(numbered[missing[0]], 60)}'){others}; its "
            f"name has to be {missing[0]}.png, or that with zeros before it"
        )
    extra = [number for number in places if number not in numbered]
    if extra:
        raise InputError(
            f"{source.where(places[min(extra)])} has no prompt: there are {len(numbered)}, counted from "
            f"{min(numbered)}; give the CSV that the images were made of"
        )
    return PromptedImages(source, [places[number] for number in numbered], list(numbered.values()))
