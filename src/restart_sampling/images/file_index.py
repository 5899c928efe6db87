"""The files of a source, sorted by name on disk: a million take no more memory than ten."""

import posixpath
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, overload

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.images.decode import LOSSY, is_image

_CACHE_KIB = 32 * 1024
_ROWS = 1000  # names that are fetched at once
_AHEAD = 100  # images

_TABLES = """
pragma journal_mode = off;
pragma synchronous = off;
pragma cache_size = -{cache};
create table file (name blob primary key, place blob, image integer) without rowid;
create table image (number integer primary key, name blob, place blob);
"""
# SQLite numbers the images itself, from 1, in the order in which they come.


class FileIndex:
    """Names of files, each with what its source needs to find it. It may be used from several threads at once.

    The order is that of the characters, so that a folder and its zip agree. `./a//b` is `a/b`. SQLite keeps
    them in a temporary file of its own (in TMPDIR).

    Attributes:
        images: the names of the images (`is_image`), as a sequence.
        lossy: whether one of them is of a lossy format (JPEG, WebP).

    Args:
        path: the source, for messages.
        files: names and places, in any order; names that are not UTF-8 have surrogates for their bytes, as Python's.

    Raises:
        InputError: two files have one name, or there is no room for the temporary file.
    """

    def __init__(self, path: Path, files: Iterable[tuple[str, bytes]]) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._lock = Lock()
        self._ahead: dict[int, tuple[str, bytes]] = {}
        self.lossy = False
        name = ""

        def rows() -> Iterator[tuple[bytes, bytes, bool]]:
            nonlocal name
            for each, place in files:
                name = posixpath.normpath(each)
                image = is_image(name)
                self.lossy |= image and name.lower().endswith(LOSSY)
                yield _packed(name), place, image

        try:
            self._database.executescript(_TABLES.format(cache=_CACHE_KIB))
            self._database.executemany("insert into file values (?, ?, ?)", rows())
            self._database.execute(
                "insert into image (name, place) select name, place from file where image order by name"
            )
        except sqlite3.IntegrityError:
            raise InputError(f"{path} holds {shorten(name, 200)} twice; pack each file once") from None
        except sqlite3.Error as error:
            raise InputError(
                f"the names of the files in {path} have no room in {tempfile.gettempdir()} ({error}); "
                "set TMPDIR to a folder with more"
            ) from error
        self.images: Sequence[str] = _Names(self)

    def image(self, number: int) -> tuple[str, bytes]:
        """Returns name and place of an image; raises IndexError. Of numbers in turn, many are fetched at once."""
        number, ahead = int(number), self._ahead  # numpy's are none to SQLite
        if number not in ahead:
            end = number + (_AHEAD if number - 1 in ahead else 1)
            rows = self.fetch("select number - 1, name, place from image where number > ? and number <= ?", number, end)
            ahead = self._ahead = {each: (_unpacked(name), place) for each, name, place in rows}
        if number not in ahead:
            raise IndexError(number)
        return ahead[number]

    def find(self, name: str) -> bytes | None:
        """Returns the place of the file of this name; None if there is none."""
        found = self.fetch("select place from file where name = ?", _packed(name))
        return found[0][0] if found else None

    def others(self) -> Iterator[str]:
        """Yields the names of all files that are no images, sorted."""
        last = b""
        query = "select name from file where not image and name > ? order by name limit ?"
        while rows := self.fetch(query, last, _ROWS):
            yield from (_unpacked(name) for (name,) in rows)
            last = rows[-1][0]

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Answers a query."""
        with self._lock:
            return self._database.execute(query, values).fetchall()


class _Names(Sequence[str]):
    def __init__(self, index: FileIndex) -> None:
        self._index = index
        self._length: int = index.fetch("select count(*) from image")[0][0]

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        return self._index.image(range(len(self))[number])[0]  # range knows negative numbers

    def __iter__(self) -> Iterator[str]:
        query = "select name from image where number > ? order by number limit ?"
        for start in range(0, len(self), _ROWS):
            yield from (_unpacked(name) for (name,) in self._index.fetch(query, start, _ROWS))


def _packed(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # in the order of the characters


def _unpacked(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
