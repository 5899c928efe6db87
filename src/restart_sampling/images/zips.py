"""Zips of images, read and written with no record of each file in memory, as `zipfile` keeps one."""

import os
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.images.decode import check_file
from restart_sampling.images.file_index import FileIndex

_END = struct.Struct("<4s4H2LH")  # of the directory: signature, two disks, two counts, size, offset, length of comment
_END64 = struct.Struct("<4sQ2H2L4Q")  # signature, its size, two versions, two disks, two counts, size, offset
_LOCATOR64 = struct.Struct("<4sLQL")  # between the two
_RECORD = struct.Struct("<4s4x2H4x3L3H8xL")  # of a file in the directory; what nobody needs is left out
_LOCAL = struct.Struct("<4s22x2H")  # before its content
_PLACE = struct.Struct("<3QLHH")  # offset, packed and unpacked size, CRC-32, method, flags

_ENCRYPTED, _UTF8 = 0x1, 0x800


class ZipWriter:
    """Writes files that are not compressed, with a fixed date; gives a function of names and contents in parts."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w")
        self._records = self._archive.filelist = _Records()

    def __enter__(self) -> Callable[[str, Iterable[bytes]], None]:
        return self._add

    def __exit__(self, error: object, *_: object) -> None:
        file = self._archive.fp
        if error and file:  # it may have come in the middle of a file, and nobody wants the rest
            self._archive.fp = None
            with suppress(OSError):
                file.close()
        self._archive.close()
        self._records.file.close()

    def _add(self, name: str, parts: Iterable[bytes]) -> None:
        with self._archive.open(_new_entry(name), "w") as file:
            for part in parts:
                file.write(part)
        self._archive.NameToInfo.clear()


class _Records(list[zipfile.ZipInfo]):
    """What a ZipFile keeps of each file until it writes the directory: here, in a temporary file."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, info: zipfile.ZipInfo) -> None:
        self.file.write(f"{info.header_offset} {info.file_size} {info.CRC} {info.external_attr} {info.filename}\n")
        self._count += 1

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        self.file.seek(0)
        for line in self.file:
            *numbers, name = line.rstrip("\n").split(" ", 4)
            info = _new_entry(name)
            info.header_offset, info.file_size, info.CRC, info.external_attr = map(int, numbers)
            info.compress_size = info.file_size
            yield info


def _new_entry(name: str) -> zipfile.ZipInfo:
    """Makes the record of a file in a zip: a fixed date and no compression (PNG has its own), so the same bytes."""
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


class ZipFiles:
    """The files of a zip, of 4 GB and more too. A backslash in a name, as Windows makes them, is a slash, as in EDM.

    Raises:
        InputError: the zip is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._lock = Lock()  # between seek and read
        self._length = self._file.seek(0, os.SEEK_END)
        try:
            self.index = FileIndex(path, _entries(self._file, self._length))
        except (ValueError, OSError, struct.error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is a damaged or truncated zip ({error}); get or make it again") from error

    def read(self, name: str, place: bytes) -> bytes:
        """Reads a file, and checks its CRC-32."""
        offset, packed_size, size, checksum, method, flags = _PLACE.unpack(place)
        check_file(max(size, packed_size), self._path, name)
        try:
            if flags & _ENCRYPTED:
                raise ValueError("it is encrypted")
            if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                return self._read_rare(offset)
            packed = self._packed(offset, packed_size)
            content = packed if method == zipfile.ZIP_STORED else zlib.decompressobj(-15).decompress(packed, size + 1)
            if len(content) != size or zlib.crc32(content) != checksum:
                raise ValueError("Bad CRC-32, the checksum of its content")
            return content
        except Exception as error:  # a damaged zip can fail in any way
            raise InputError(f"{self._where(name)} cannot be read ({error})") from error

    def _packed(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            signature, name, extra = _LOCAL.unpack(self._file.read(_LOCAL.size))
            if signature != b"PK\3\4":
                raise ValueError("no file begins there")
            self._file.seek(name + extra, os.SEEK_CUR)
            return self._file.read(size)

    def _read_rare(self, offset: int) -> bytes:
        """Reads a file of another compression (bzip2, LZMA, Zstandard), as far as Python knows it."""
        with zipfile.ZipFile(self._path) as archive:
            return archive.read(next(info for info in archive.infolist() if info.header_offset == offset))

    def _where(self, name: str) -> str:
        return f"{self._path}: {shorten(name, 200)}"


def _entries(file: BinaryIO, length: int) -> Iterator[tuple[str, bytes]]:
    """Reads names and places of the files from the directory at the end."""
    start, end, before = _directory(file, length)
    file.seek(start)
    while start < end:
        signature, flags, method, checksum, packed, size, *lengths, offset = _RECORD.unpack(file.read(_RECORD.size))
        if signature != b"PK\1\2":
            raise ValueError("its directory is damaged")
        length, extra, comment = lengths
        text = file.read(length + extra + comment)
        start += _RECORD.size + length + extra + comment
        if 0xFFFFFFFF in (size, packed, offset):
            size, packed, offset = _in_64_bits((size, packed, offset), text[length : length + extra])
        name = text[:length].partition(b"\0")[0].decode("utf-8" if flags & _UTF8 else "cp437").replace("\\", "/")
        if name and not name.endswith("/"):
            yield name, _PLACE.pack(offset + before, packed, size, checksum, method, flags)


def _directory(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Finds start and end of the directory, and the number of bytes that somebody put before the zip."""
    file.seek(max(0, length - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise ValueError("its end is missing")
    *_, size, offset, _ = _END.unpack_from(tail, at)
    end = length - len(tail) + at
    locator = at - _LOCATOR64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        end -= _LOCATOR64.size + _END64.size
        file.seek(end)
        signature, *_, size, offset = _END64.unpack(file.read(_END64.size))
        if signature != b"PK\6\6":
            raise ValueError("its end is damaged")
    if not 0 <= offset <= end - size:
        raise ValueError("its directory is not where it should be")
    return end - size, end, end - size - offset


def _in_64_bits(values: tuple[int, ...], extra: bytes) -> list[int]:
    """Replaces those that are all ones by what the extra field says of them."""
    large = [value == 0xFFFFFFFF for value in values]
    at = 0
    while any(large) and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            stated = iter(struct.unpack_from(f"<{sum(large)}Q", extra, at + 4))
            return [next(stated) if is_large else value for value, is_large in zip(values, large, strict=True)]
        at += 4 + length
    return list(values)
