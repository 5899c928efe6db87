"""Folders of images."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.images.decode import check_file, is_image
from restart_sampling.images.file_index import FileIndex

_MAX_VISITS = 100  # of one folder, along different links


class FolderFiles:
    """The files in and below a folder. Links are followed, but not round in circles.

    Raises:
        InputError: a folder cannot be listed, an image is no regular file, or links lead to one folder without end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.index = FileIndex(folder, ((name, b"") for name in _walk(folder)))

    def read(self, name: str, place: bytes) -> bytes:
        """Reads a file."""
        path = self._folder / name
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                check_file(size, self._folder, name)
                return file.read(size)  # Python makes room for as many bytes as are asked for
        except OSError as error:
            raise InputError(f"{shorten(str(path), 300)} cannot be read ({error.strerror})") from error


def _walk(top: Path) -> Iterator[str]:
    """Yields the names of all files, in no order."""
    waiting: list[tuple[str, frozenset[str]]] = [("", frozenset())]  # folders, and the real ones above each
    visits: Counter[str] = Counter()
    while waiting:
        prefix, above = waiting.pop()
        folder = top / prefix
        real = os.path.realpath(folder)
        if real in above:
            continue
        visits[real] += 1
        if visits[real] > _MAX_VISITS:
            name = shorten(str(folder), 300)
            raise InputError(f"{name} is reached along more than {_MAX_VISITS} links; give a folder without such links")
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append((f"{prefix}{entry.name}/", above | {real}))
                    elif entry.is_file():
                        yield prefix + entry.name
                    elif is_image(prefix + entry.name):
                        name = shorten(f"{folder}/{entry.name}", 300)
                        raise InputError(f"{name} is a broken link, a device or a pipe, and no file; remove it")
        except OSError as error:
            raise InputError(f"{shorten(str(folder), 300)} cannot be listed ({error.strerror})") from error
