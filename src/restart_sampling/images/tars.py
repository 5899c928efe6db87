"""Tar files, plain or compressed, as a list of names and a way to read any of them. Nothing is extracted."""

import bz2
import gzip
import lzma
import struct
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import check_ratio
from restart_sampling.images.decode import check_file, is_image
from restart_sampling.images.file_index import FileIndex

_OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}  # by the first bytes
_BLOCK = 512
_PLACE = struct.Struct("<3Q")  # shard, start, size


def is_tar(head: bytes) -> bool:
    """Tells whether a file whose first 512 bytes are these is a tar, or compressed as tars are."""
    return head.startswith(tuple(_OPENERS)) or head[257:262] == b"ustar"


class TarFiles:
    """The regular files of a tar, or of several: shards, whose names then stand before those of their files.

    A compressed tar can only be read from its start, so it is unpacked into one temporary file (in TMPDIR), which goes
    with this object: any order of reading, and constant memory.

    Raises:
        InputError: a tar is damaged, cut off, unpacks to far too much, or has links in place of files.
    """

    def __init__(self, path: Path, shards: Sequence[Path] | None = None) -> None:
        self._path = path
        self._shards = shards or [path]
        self._lock = Lock()  # between seek and read
        self._opened = ExitStack()  # one at a time: there may be more shards than files that can be open
        weakref.finalize(self, self._opened.close)
        self._number, self._file = 0, self._opened.enter_context(_seekable(self._shards[0]))
        self.index = FileIndex(path, self._files(prefixed=shards is not None))

    def read(self, name: str, place: bytes) -> bytes:
        """Reads a file."""
        number, start, size = _PLACE.unpack(place)
        check_file(size, self._path, name)
        with self._lock:
            file = self._shard(number)
            file.seek(start)
            return file.read(size)

    def _shard(self, number: int) -> BinaryIO:
        if number != self._number:
            self._opened.close()
            self._number, self._file = number, self._opened.enter_context(_seekable(self._shards[number]))
        return self._file

    def _files(self, prefixed: bool) -> Iterator[tuple[str, bytes]]:
        for number, path in enumerate(self._shards):
            prefix = f"{path.relative_to(self._path).as_posix()}/" if prefixed else ""
            for name, start, size in _members(self._shard(number), path):
                yield prefix + name, _PLACE.pack(number, start, size)


def _members(file: BinaryIO, path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # or it would keep a record of each file
                if (member.islnk() or member.issym()) and is_image(member.name):
                    name = shorten(member.name)
                    raise InputError(f"{path}: {name} is a link; pack with --dereference --hard-dereference")
                if member.isfile():
                    yield member.name, member.offset_data, member.size
            # tarfile takes damage between two files, and a tar cut there, for the end.
            file.seek(archive.offset)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("no end of the archive")
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _seekable(path: Path) -> BinaryIO:
    """Opens the tar without compression."""
    with path.open("rb") as file:
        head = file.read(6)
    opener: Any = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return path.open("rb")
    unpacked = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115, open as long as the object is
    try:
        with opener(path, "rb") as packed:
            _copy(packed, unpacked, path)
    except BaseException:
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked


def _copy(packed: BinaryIO, unpacked: BinaryIO, path: Path) -> None:
    size = path.stat().st_size
    try:
        while part := packed.read(2**20):
            unpacked.write(part)
            check_ratio(unpacked.tell(), size, str(path))
    except InputError:
        raise
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # the data; an error of the disk has a number
            raise _damaged(path, error) from error
        raise InputError(
            f"{path} cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder with more room, or unpack it yourself"
        ) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is a damaged or truncated tar ({str(error) or type(error).__name__}); get it again")
