"""`PartialSums`: an unfinished evaluation on the disk, so that it goes on after a kill."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.files import remove_partials
from restart_sampling.base.tensors import load_tensors, save_tensors
from restart_sampling.evaluation.collect import Gather, State, merged

_SHARE = 1 / 50  # of the time, at most, for saving


class PartialSums:
    """Keeps the sums of all processes, a file each.

    A file is trusted only where its checksums hold, and no two with the same images: what is then missing is drawn
    again.

    Sums of floats depend on their order in the last digits. So each process goes on with its own where there are as
    many as before, and the result is that of an undisturbed run, to the bit; for another number they are added up.

    Args:
        folder: where the files are; other evaluations may have theirs there too.
        about: JSON, all that determines the sums; those of an earlier start are taken up where it is equal.
        rank: of this process.
        size: how many processes there are.

    Attributes:
        earlier: sums of an earlier start that this process goes on with, after `load`; None: there are none.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], rank: int, size: int) -> None:
        self._folder = folder
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self._as_many = f"-of-{size}.pt"
        self._own = folder / f"{key}.{rank}{self._as_many}"
        self._names = f"{key}.*.pt"  # of all processes
        self._first = rank == 0
        self._next_save = 0.0
        self._unsaved = False
        self.earlier: State | None = None

    def load(self, gather: Gather) -> frozenset[int]:
        """Takes up what an earlier start left, of however many processes. All processes call this.

        Returns:
            Places of the images that are in `earlier` of any process.
        """
        if self._first and self._folder.exists():
            remove_partials(self._folder, self._names)
            files = self._files()
            kept = _disjoint({file: state for file in files if (state := _read(file)) is not None})
            if not all(file.name.endswith(self._as_many) for file in kept):
                kept = {self._own: merged([*kept.values()])}
                save_tensors(self._own, kept[self._own])
            for file in files:
                if file not in kept:
                    file.unlink()
        gather(torch.empty(0))  # the first process is done
        self.earlier = _read(self._own)
        done = torch.empty(0, dtype=torch.int64) if self.earlier is None else self.earlier["places"]
        return frozenset(torch.cat(gather(done)).tolist())

    def save_if_due(self, state: Callable[[], State]) -> None:
        """Saves the sums of this process after a batch, where the last time is long enough ago for what it took."""
        self._unsaved = True
        if time.monotonic() >= self._next_save:
            self.save_rest(state)

    def save_rest(self, state: Callable[[], State]) -> None:
        """Saves what came after the last time, before work that adds no images and may take long."""
        if self._unsaved:
            start = time.monotonic()
            save_tensors(self._own, state())
            end = time.monotonic()
            self._next_save = end + (end - start) / _SHARE
            self._unsaved = False

    def remove(self) -> None:
        """Removes the files of all processes, when they are needed no more."""
        for file in self._files():
            file.unlink()
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        return list(self._folder.glob(self._names))


def _disjoint(states: Mapping[Path, State]) -> dict[Path, State]:
    """Chooses those that share no image, the largest first: one that holds the others makes them needless."""
    done: set[int] = set()
    chosen = {}
    for file, state in sorted(states.items(), key=lambda item: (-len(item[1]["places"]), item[0])):
        places = set(state["places"].tolist())
        if len(places) == len(state["places"]) and done.isdisjoint(places):
            done |= places
            chosen[file] = state
    return chosen


def _read(path: Path) -> State | None:
    """Reads sums; None where there are none, or the file is damaged."""
    try:
        state: State = load_tensors(path)
    except Exception:  # a damaged file can fail in any way
        return None
    return state
