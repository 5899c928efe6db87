"""Files that are never half-written, their hashes, and what is wrong with files of others."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EISDIR, ENOSPC
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError

LOCK = ".lock.partial"
"""The lock of a folder, in it; that of a file ends so. See `locked`."""


_FULL = {ENOSPC, EDQUOT, EFBIG}
_FREE = 2**26  # unpacked bytes that are allowed whatever the size of the file
_MAX_RATIO = 100
_PARTIAL = "." + "[0-9a-f]" * 16 + ".partial"
"""How temporary names end, as a pattern."""


class FullDiskError(InputError, OSError):
    """There is no room for a file; the message says for which, and how many bytes it takes."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def atomic(path: Path, size: int | None = None) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; renames it to `path` at the end, removes it after an exception.

    Args:
        path: of the file.
        size: its bytes, where they are known before, for the message about a full disk.

    Raises:
        FullDiskError: the disk is full.
        OSError: it could not be written for another reason; its `filename` says which file, also where the system does
            not.
    """
    temporary = _temporary(path)
    try:
        with _room_for(path, temporary, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Does the same for a folder: gives a temporary one beside `path` to fill; `path` must not exist, or be empty."""
    with scratch_folder(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`, for what is to become it; removes what is left of it at the end.

    Raises:
        FullDiskError, OSError: as of `atomic`.
    """
    temporary = _temporary(path)
    try:
        with _room_for(path, temporary):
            temporary.mkdir(parents=True)
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file atomically, as `atomic` does."""
    with atomic(path, len(content)) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: bytes) -> None:
    """Adds a line to a file in one write; a line that a killed process left unfinished is ended first.

    Raises:
        FullDiskError, OSError: as `atomic`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _room_for(path, path, len(line)), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _room_for(path: Path, temporary: Path, size: int | None = None) -> Iterator[None]:
    """Says of a full disk, in one sentence, for which file it has no room and how many bytes that takes."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        if error.errno not in _FULL:
            raise
        parts = temporary.rglob("*") if temporary.is_dir() else [temporary] if temporary.exists() else []
        bytes_ = f"{size:,}" if size else f"more than {sum(part.stat().st_size for part in parts):,}"
        full = FullDiskError(
            f"{path}: {bytes_} bytes cannot be written ({error.strerror}); make room, then the same command goes on "
            "from here"
        )
        full.filename = str(path)
        raise full from error


def _temporary(path: Path) -> Path:
    """Makes up a name that nobody else has, beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def is_partial(path: Path) -> bool:
    """Tells a temporary name, which a process left that ended before it could tidy up, and a lock."""
    return fnmatchcase(path.name, f".*{_PARTIAL}") or (path.name.startswith(".") and path.name.endswith(LOCK))


def remove_partials(folder: Path, *names: str) -> None:
    """Removes from a folder what ended processes left of files or folders there that nobody may be writing.

    Args:
        folder: need not exist.
        names: of those files or folders, as patterns of `glob`.
    """
    for path in [path for name in names for path in folder.glob(f".{name}{_PARTIAL}")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_folder(path: Path) -> None:
    """Removes a folder and all that is in it: at once, as others see it."""
    temporary = _temporary(path)
    path.replace(temporary)
    shutil.rmtree(temporary)


def check_writable(path: Path) -> None:
    """Makes sure, before long work, that a file of this name can be written; makes its folder.

    Raises:
        InputError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another place") from error


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def in_utf16(raw: bytes) -> bool:
    """Tells a text in UTF-16 by its mark."""
    return raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE))


def decode_text(raw: bytes, where: str) -> str:
    """Decodes a text of a user's: UTF-8, or UTF-16 with its mark, as PowerShell and Excel write it; without the mark.

    Args:
        raw: the file.
        where: its name, for messages.

    Raises:
        InputError: it is in another encoding.
    """
    with suppress(UnicodeDecodeError):
        text = raw.decode("utf-16" if in_utf16(raw) else "utf-8-sig")
        if "\0" not in text:  # as UTF-16 without its mark has
            return text
    raise InputError(f"{where} is no text in UTF-8, nor in UTF-16 with its mark; save it as UTF-8")


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_ratio(unpacked: int, packed: int, where: str, what: str = "images") -> None:
    """Checks the size of what a small compressed file holds, before it takes memory or a disk.

    Raises:
        InputError: it is out of all proportion to the file's.
    """
    if unpacked > max(_FREE, _MAX_RATIO * packed):
        raise InputError(
            f"{where} unpacks to {unpacked:,} bytes or more, over {_MAX_RATIO} times its size, which no {what} do; "
            "unpack it yourself if that is right"
        )


def stand_in(path: Path) -> str:
    """Says what a failed download left under the name of a file, as the end of a sentence; "" where it left nothing."""
    with path.open("rb") as file:
        head = file.read(1000).lstrip().lower()
    if not head:
        return "empty; download it again"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, which was saved in its place; download the file itself"
    if head.startswith(b"<?xml"):
        return "the answer of a server, perhaps an error, which was saved in its place; download the file itself"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, which stands for it; fetch the file itself with 'git lfs pull'"
    return ""
