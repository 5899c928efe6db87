"""Tar files, plain or compressed, as a list of names and a way to read any of them. Nothing is extracted."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import weakref
import zlib
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import numpy as np

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.images.decode import is_image

_OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}  # by the first bytes
_BLOCK = 512


def is_tar(head: bytes) -> bool:
    """Tells whether a file whose first 512 bytes are these is a tar, or compressed as tars are."""
    return head.startswith(tuple(_OPENERS)) or head[257:262] == b"ustar"


class TarFiles:
    """The regular files of a tar.

    A compressed tar can only be read from its start, so it is unpacked into one temporary file (in TMPDIR), which goes
    with this object: any order of reading, and no more memory than for the names.

    Attributes:
        names: Sorted; of two files of one name the later counts, as for tar.

    Raises:
        InputError: the file is damaged, cut off, or has links in place of files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _seekable(path)
        weakref.finalize(self, self._file.close)
        self._lock = Lock()  # between seek and read
        places = self._places()
        self.names = sorted(places)
        self._starts = np.array([places[name][0] for name in self.names], np.int64)
        self._sizes = np.array([places[name][1] for name in self.names], np.int64)

    def read(self, index: int) -> bytes:
        """Reads a file."""
        with self._lock:
            self._file.seek(int(self._starts[index]))
            return self._file.read(int(self._sizes[index]))

    def _places(self) -> dict[str, tuple[int, int]]:
        places = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                while member := archive.next():
                    archive.members = []  # type: ignore[attr-defined]  # or it would keep a record of each file
                    if (member.islnk() or member.issym()) and is_image(member.name):
                        name = shorten(member.name)
                        raise InputError(f"{self._path}: {name} is a link; pack with --dereference --hard-dereference")
                    if member.isfile():
                        places[member.name.removeprefix("./")] = (member.offset_data, member.size)
                # tarfile takes damage between two files, and a tar cut there, for the end.
                self._file.seek(archive.offset)
                if self._file.read(_BLOCK) != bytes(_BLOCK):
                    raise tarfile.ReadError("no end of the archive")
        except InputError:
            raise
        except (tarfile.TarError, ValueError, OSError) as error:
            raise _damaged(self._path, error) from error
        return places


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
    try:
        shutil.copyfileobj(packed, unpacked, 2**20)
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
