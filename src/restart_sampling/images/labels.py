"""Labels of an image set: from EDM's dataset.json, or from the folders of the classes."""

import csv
import io
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import decode_text
from restart_sampling.base.numbers import counted
from restart_sampling.base.strict_json import parse_json

METADATA = ("metadata.csv", "metadata.jsonl")
_MAX_DIGITS = 12
_NUMBER = re.compile(rf"-?\d{{1,{_MAX_DIGITS}}}(\.\d*)?|nan", re.IGNORECASE)


def root(names: Sequence[str]) -> str:
    """Finds the innermost folder of all the sorted names: "train/" of train/cat/1.png and train/dog/1.png."""
    # What the first and the last share, all in between share.
    first, last = names[0], names[-1]
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, shared) + 1]


def folder_labels(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Numbers the images by the folders within the root, the classes.

    Files beside those folders are a class too, whose name is empty, as in EDM.

    Args:
        names: sorted.

    Returns:
        int64 [N], and the sorted names of the folders; or None and () where there is only one.
    """
    start = len(root(names))
    folders = sorted({folder_of(name, start) for name in names})
    if len(folders) == 1:
        return None, ()
    numbers = {folder: number for number, folder in enumerate(folders)}
    return np.fromiter((numbers[folder_of(name, start)] for name in names), np.int64, len(names)), tuple(folders)


def listed_labels(
    text: bytes, names: Sequence[str], folder: str, where: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Reads the classes that a dataset.json states as {"labels": [["00000/img00000000.png", 6], ...]}, or as null.

    Args:
        text: the file. Under "classes" it may name them: ["cat", "dog"], as the command dataset writes.
        names: of the images.
        folder: where the file is; the names in it are relative to that.
        where: the file's name for messages.

    Returns:
        int64 [N], None where it states none; and the names of the classes, ().

    Raises:
        InputError: it is no such file, leaves an image out or lists one twice, or a label is no class number.
    """
    form = f'{where} is not of the form {{"labels": [[name, class], ...]}}'
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{form} ({shorten(str(error))}); mend or remove it") from None
    try:
        stated = content["labels"]
        pairs = [(folder + name, label) for name, label in stated or []]
        labels = dict(pairs)
        classes = content.get("classes", [])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{form}; mend or remove it") from None
    _check_once((name for name, _ in pairs), folder, where)
    for name, label in labels.items():
        if type(label) is not int or not 0 <= label < 2**31:
            raise InputError(f"{where} labels {shorten(name)} with {shorten(repr(label))}, and a class is 0, 1, ...")
    if not labels:
        return None, ()
    missing = next((name for name in names if name not in labels), None)
    if missing is not None:
        strangers = (name.removeprefix(folder) for name in labels.keys() - set(names))
        stranger = min(strangers, default=None)
        instead = "" if stranger is None else f", but one for {shorten(stranger)}, which is no image there"
        raise InputError(
            f"{where} has no class for {shorten(missing.removeprefix(folder))}{instead}; list every image by its path "
            "from there, with / and no ./ before it, or remove the file"
        )
    if not isinstance(classes, list) or any(type(name) is not str for name in classes):
        raise InputError(f'{where}: "classes" has to be a list of names; mend it or take it out')
    if len({*classes}) < len(classes):
        ((twice, _),) = Counter(classes).most_common(1)
        raise InputError(f"{where} names two classes '{shorten(twice)}'; give each a name of its own")
    labels_of = np.fromiter((labels[name] for name in names), np.int64, len(names))
    if classes and labels_of.max() >= len(classes):
        raise InputError(
            f"{where} names {counted(len(classes), 'class')}, and has a class {labels_of.max()}; name all or none"
        )
    return labels_of, tuple(classes)


def metadata_labels(
    text: bytes, names: Sequence[str], folder: str, where: str
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Reads the classes in the columns `file_name` and `label` of Hugging Face's metadata.csv or metadata.jsonl.

    Args:
        text: the file.
        names: of the images.
        folder: where the file is; the names in it are relative to that.
        where: the file's name for messages.

    Returns:
        int64 [N], and the sorted names of the classes where the labels are texts, else (); None where there are no such
        columns.

    Raises:
        InputError: it is no such file, leaves out an image or its class, or lists one twice.
    """
    try:
        lines = list(io.StringIO(decode_text(text, where), newline=None))  # which end at \n alone, not at \u2028 too
        rows = _table(lines, where) if where.endswith(".csv") else _objects(lines)
        pairs = [(posixpath.normpath(f"{folder}{row['file_name']}"), row["label"]) for row in rows]
    except KeyError as error:
        if error.args == ("file_name",):
            raise InputError(
                f"{where} has no file_name, which says whose each label is; add it or remove the file"
            ) from None
        return None
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"{where} is damaged ({shorten(str(error))}); mend or remove it") from None
    if not pairs:
        return None
    _check_once((name for name, _ in pairs), folder, where)
    label_of = dict(pairs)
    labels = [label_of.get(name) for name in names]
    for name, label in zip(names, labels, strict=True):
        if not _is_label(label):
            raise InputError(
                f"{where} has no label, a number or a text, for {shorten(name.removeprefix(folder))}; give it one, or "
                "take the column out"
            )
    return number_classes(labels, where)


def _is_label(value: object) -> bool:
    return type(value) in (str, int, float) and value != ""


def number_classes(labels: Iterable[object], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers the images by labels that are numbers, as a float too (`10.0`, as pandas writes them), or texts.

    Args:
        labels: of the images.
        where: what holds them, for messages.

    Returns:
        int64 [N], and the sorted names of the classes where the labels are texts, else ().

    Raises:
        InputError: all are numbers, and one is no class.
    """
    texts = [str(label).strip() for label in labels]
    if all(_NUMBER.fullmatch(text) for text in texts):
        wrong = next((text for text in texts if not (float(text).is_integer() and 0 <= float(text) < 2**31)), None)
        if wrong is not None:
            raise InputError(f"{where} has the label {wrong}, and a class is 0, 1, ...; take the column out")
        return np.array([int(float(text)) for text in texts], np.int64), ()
    classes = tuple(sorted({*texts}))
    number_of = {name: number for number, name in enumerate(classes)}
    return np.array([number_of[text] for text in texts], np.int64), classes


def stated_classes(
    read: Callable[[str], bytes | None], names: Sequence[str], where: str
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Reads the classes of a WebDataset, which are beside `0001.jpg`.

    `0001.cls` holds the number of its class, or else `0001.json` its number or name as the value of `label`.

    Args:
        read: reads the file of a name, None if there is none.
        names: of the images.
        where: the source, for messages.

    Returns:
        int64 [N], and the sorted names of the classes where the labels are texts, else (); or None where no image has
        such a file.

    Raises:
        InputError: only some images have one, or one holds no class.
    """
    if any(read(_beside(name, ".cls")) is not None for name in names):
        return np.fromiter((_class_of(read, _beside(name, ".cls"), where) for name in names), np.int64, len(names)), ()
    labels: list[object] = []
    for name in names:
        file = _beside(name, ".json")
        labels.append(_label_in(read(file), f"{where}: {shorten(file)}"))
        if (labels[0] is None) != (labels[-1] is None):
            without = file if labels[-1] is None else _beside(names[0], ".json")
            raise InputError(f"{where}: {shorten(without)} has no label, and others have; every image needs a class")
    return None if labels[0] is None else number_classes(labels, f"{where}: its .json files")


def _class_of(read: Callable[[str], bytes | None], file: str, where: str) -> int:
    text = read(file)
    if text is None or not text.strip().isdigit() or len(text) > _MAX_DIGITS:
        held = "is missing" if text is None else f"holds {shorten(repr(text))}"
        raise InputError(f"{where}: {shorten(file)} {held}; every image needs a class 0, 1, ...")
    return int(text)


def _label_in(text: bytes | None, where: str) -> object:
    """Reads the label in a JSON file beside an image; None where there is none, as in a file of captions."""
    try:
        content = None if text is None else parse_json(text)
    except ValueError as error:
        raise InputError(f"{where} is damaged ({shorten(str(error))}); mend or remove it") from None
    label = content.get("label") if isinstance(content, dict) else None
    if label is not None and not _is_label(label):
        raise InputError(f"{where} has the label {shorten(repr(label))}, and a class is a number or a text")
    return label


def _check_once(listed: Iterable[str], folder: str, where: str) -> None:
    seen: set[str] = set()
    for name in listed:
        if name in seen:
            raise InputError(f"{where} lists {shorten(name.removeprefix(folder))} twice; list each image once")
        seen.add(name)


def _table(lines: Sequence[str], where: str) -> Iterator[dict[str, str | None]]:
    """Reads a CSV file with commas, semicolons or tabs."""
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    columns = [column.strip().lower() for column in next(rows, [])]
    for column in ("file_name", "label"):
        if columns.count(column) > 1:
            raise InputError(f"{where} has the column {column} twice; keep one")
    for row in rows:
        if row:
            yield {column: cell for column, cell in zip_longest(columns, row) if column is not None}


def _objects(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Reads the lines of a JSONL file; the case of their keys does not matter, as in a table."""
    for line in lines:
        if line.strip():
            yield {key.strip().lower(): value for key, value in parse_json(line).items()}


def folder_of(name: str, start: int) -> str:
    """Names the folder of an image, within the first characters that are the root; "" where it is in none."""
    return name[start:].partition("/")[0] if "/" in name[start:] else ""


def _beside(name: str, suffix: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}{suffix}"
