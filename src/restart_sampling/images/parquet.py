"""Parquet files as Hugging Face's datasets keeps images: a column of encoded files, and one of classes."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError, require_extra, shorten
from restart_sampling.base.numbers import counted
from restart_sampling.images.class_notes import SPLITS
from restart_sampling.images.dataset_cards import as_names, stated_names
from restart_sampling.images.decode import check_file
from restart_sampling.images.labels import number_classes

SUFFIX = ".parquet"
_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_MAX_GROUP = 2**30  # bytes of the rows that are read at once
# train.parquet, train-00000-of-00005.parquet, train-00000-of-00005-1359597a978bc4fa.parquet, train/0000.parquet
_SHARD = re.compile(r"(.*?)[-_.]?\d*(?:-of-\d+)?(?:-[0-9a-f]{16})?\.parquet")


def part_of(name: str) -> str:
    """Names the part of a data set, such as train, that a Parquet file holds, by the file's name or its folder's."""
    *folders, file = name.split("/")
    match = _SHARD.fullmatch(file)
    return (match[1] if match else file) or (folders[-1] if folders else "")


def check_shards(path: Path, names: Sequence[str]) -> None:
    """Makes sure that the Parquet files of a folder are one data set, and not training and test set.

    Raises:
        InputError: they are several parts, or several configurations.
    """
    parts = sorted({part_of(name) for name in names})
    if len(parts) > 1 and SPLITS & {*parts}:
        listed, example = shorten(", ".join(parts)), next(part for part in parts if part in SPLITS)
        raise InputError(f"{path} holds the parts {listed} of a data set; give one of them, such as {path / example}")
    file, count = Counter(name.rpartition("/")[2] for name in names).most_common(1)[0]
    if count > 1:
        folders = ", ".join(name.removesuffix(file).rstrip("/") or "." for name in names if name.endswith(file))
        raise InputError(f"{path} holds {shorten(file)} in {count} folders ({shorten(folders)}); give one of them")


class ParquetFiles:
    """The images of one file or of several, in the order of the rows; those of one row group are in memory.

    Attributes:
        labels: int64 [N], or None.
        classes: the names of the classes, () where the files do not say.

    Raises:
        InputError: pyarrow is missing, or a file is damaged or has no images.
    """

    def __init__(self, path: Path, shards: Sequence[Path]) -> None:
        require_extra("pyarrow", "parquet")
        self._path = path
        self._lock = Lock()
        self._groups: list[tuple[Path, int, str]] = []  # file, number in it, name of the column
        self._held: tuple[int, Any] = (-1, None)  # the group that was read last
        rows: list[int] = []
        labels: list[np.ndarray | None] = []
        classes: set[tuple[str, ...]] = set()
        for shard in shards:
            with _opened(shard) as file:
                image, label = _columns(shard, file)
                for group in range(file.num_row_groups):
                    self._groups.append((shard, group, image))
                    rows.append(file.metadata.row_group(group).num_rows)
                if file.metadata.num_rows > shard.stat().st_size or min(rows, default=0) < 0:
                    raise ValueError(f"{file.metadata.num_rows:,} rows are announced")
                labels.append(None if label is None else _label_values(file, label))
                classes.add(_class_names(file, label) or (stated_names(shard, label) if label else ()))
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        if len(classes) > 1:
            raise InputError(f"{path}: its Parquet files name different classes; give files of one data set")
        self.classes = classes.pop()
        known = [each for each in labels if each is not None]
        if known and len(known) < len(labels):
            raise InputError(f"{path}: only some of its Parquet files have labels; give files of one data set")
        self.labels, texts = _numbered(path, np.concatenate(known)) if known else (None, ())
        self.classes = self.classes or texts
        if self.labels is not None and 0 < len(self.classes) <= self.labels.max(initial=0):
            raise InputError(
                f"{path} names {counted(len(self.classes), 'class')}, and has a class {self.labels.max()}; mend it"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, number: int) -> bytes:
        """Reads the file of an image."""
        where = f"{self._path}: row {number}"
        group = int(np.searchsorted(self._starts, number, "right")) - 1
        with self._lock:
            if group != self._held[0]:
                self._held = (group, _read_group(*self._groups[group]))
            value = self._held[1][number - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise InputError(f"{where} holds no image, but at most its path; save the data set with its images")
        check_file(len(content), self._path, f"row {number}")
        return content


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path} is a damaged Parquet file ({shorten(str(error))}); get it again") from error


def _read_group(path: Path, group: int, column: str) -> Any:
    with _opened(path) as file:
        size = file.metadata.row_group(group).total_byte_size
        if size > _MAX_GROUP:
            raise InputError(
                f"{path} has {size:,} bytes in one row group, and can have {_MAX_GROUP:,}; write it in smaller groups"
            )
        values = file.read_row_group(group, [column])[column]
        if len(values) != file.metadata.row_group(group).num_rows:
            raise ValueError(f"{len(values):,} rows are in a group of {file.metadata.row_group(group).num_rows:,}")
        return values


def _columns(path: Path, file: Any) -> tuple[str, str | None]:
    """Finds the columns of the images and of the classes."""
    import pyarrow

    schema = file.schema_arrow
    images = [name for name in _IMAGES if name in schema.names]
    if not images:
        names = ", ".join(shorten(name, 40) for name in schema.names[:8])
        raise InputError(f"{path} has the columns {names}; that of the images is {' or '.join(_IMAGES)}")
    types = {name: schema.field(name).type for name in _LABELS if name in schema.names}
    label = next((name for name, kind in types.items() if pyarrow.types.is_integer(kind)), next(iter(types), None))
    if label and pyarrow.types.is_nested(types[label]):
        raise InputError(
            f"{path}: its column {label} is {shorten(str(types[label]))}, and a label is a number or text; take it out"
        )
    return images[0], label


def _label_values(file: Any, label: str) -> np.ndarray:
    """Reads a column of classes: numbers, or object for texts."""
    import pyarrow

    column = file.read([label])[label]
    if pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    return np.array(column.to_pylist(), object)


def _class_names(file: Any, label: str | None) -> tuple[str, ...]:
    """Reads the names that Hugging Face writes into the schema."""
    try:
        return as_names(json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"][label]["names"])
    except (TypeError, KeyError, ValueError):
        return ()


def _numbered(path: Path, labels: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Makes int64 [N] of the values of the column, and names the classes where they are texts."""
    if labels.dtype.kind == "O":
        if any(label is None for label in labels):
            raise InputError(f"{path}: not all of its images have a class; give the part that has")
        return number_classes(labels, f"{path}: column label")
    if labels.size and labels.max() == -1:  # of Hugging Face's test sets, whose classes are secret
        return None, ()
    if not ((labels >= 0) & (labels < 2**31) & (labels == np.floor(labels))).all():
        raise InputError(f"{path}: not all of its images have a class 0, 1, ...; give the part that has")
    return labels.astype(np.int64), ()
