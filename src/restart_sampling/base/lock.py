"""`locked`: an output belongs to one run at a time."""

import glob
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import LOCK, remove_partials

_PATIENCE = 2.0  # seconds: a run that was just ended may still be on its way out


@contextmanager
def locked(path: Path, what: str, option: str = "--out", patience: float = _PATIENCE) -> Iterator[None]:
    """Keeps other runs from an output, until the end of the body.

    The operating system holds the lock, so that nothing of it outlives the process, however that ends; other machines
    respect it on a filesystem that they share, as NFS. Where a filesystem has no such locks, a file with the process in
    it stands for one.

    Args:
        path: of the lock, from `lock_in` or `lock_beside`.
        what: is written, for the message.
        option: with which the user can choose another.
        patience: seconds to wait for another run.

    Raises:
        InputError: another run has it.
    """
    lock: BaseFileLock = FileLock(path, timeout=patience)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{what} is being written by {_owner(path)}; wait for its end, or choose another {option}"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{what} cannot be locked ({error.strerror}): make sure that no other run writes it", stacklevel=2
        )
    try:
        if lock.is_locked and not isinstance(lock, SoftFileLock):  # which says this by itself
            now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            with suppress(OSError):  # it is a courtesy to the others, which a full disk may prevent
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n{now}\n", "utf-8")
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows keeps an open file
                path.unlink()  # before the release: who waits for it sees that it is gone, and makes a new one
            lock.release()


@contextmanager
def alone(path: Path, option: str = "--out", patience: float = _PATIENCE) -> Iterator[None]:
    """Keeps other runs from a file, or a folder that has to be new, and removes what an ended run left of it.

    Args:
        path: is written in the body.
        option, patience: as of `locked`.

    Raises:
        InputError: another run has it.
    """
    with locked(lock_beside(path), str(path), option, patience):
        remove_partials(path.parent, glob.escape(path.name))
        yield


def remove_lock(path: Path) -> None:
    """Removes a lock that an ended run left, where nothing is left to be done; one that is held stays."""
    if path.exists():
        with suppress(Timeout, OSError), FileLock(path, timeout=0):
            path.unlink()


def lock_in(folder: Path) -> Path:
    """Returns the lock of a folder, which is in it, because what is above may be closed to writers."""
    return folder / LOCK


def lock_beside(path: Path) -> Path:
    """Returns the lock of a file, or of a folder that has to be new."""
    return path.with_name(f".{path.name}{LOCK}")


def _owner(path: Path) -> str:
    """Says who wrote a lock."""
    try:
        process, host, *more = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):  # it was given up or made just now
        return "another run"
    since = f" since {more[0]}" if more and not more[0].isdigit() else ""
    return f"process {process} on {host}{since}"
