"""Files that are never half-written, and their hashes."""

import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EISDIR
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; renames it to `path` at the end, removes it after an exception.

    Raises:
        OSError: it could not be written; its `filename` says which file, also where the system does not.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Does the same for a folder: gives a temporary one beside `path` to fill; `path` must not exist, or be empty."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """Makes up a name that nobody else has, beside `path`; makes the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def is_partial(path: Path, name: str = "") -> bool:
    """Tells a temporary name, of the file `name` or of any: its process ended before it could tidy up."""
    return path.name.startswith(f".{name}") and path.suffix == ".partial"


def remove_partials(folder: Path, name: str = "") -> None:
    """Removes from a folder what ended processes left there, of the file `name` or of all; nobody may be writing it."""
    for path in [path for path in folder.iterdir() if is_partial(path, name)]:
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
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stand_in(path: Path) -> str:
    """Says what a failed download left under the name of a file, as the end of a sentence; "" where it left nothing."""
    with path.open("rb") as file:
        head = file.read(1000).lstrip().lower()
    if not head:
        return "empty; download it again"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, which was saved in its place; download the file itself"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, which stands for it; fetch the file itself with 'git lfs pull'"
    return ""
