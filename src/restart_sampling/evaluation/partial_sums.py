"""`PartialSums`: an unfinished evaluation on the disk, so that it goes on after a kill."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
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

    Args:
        folder: where the files are; other evaluations may have theirs there too.
        about: JSON, all that determines the sums; those of an earlier start are taken up where it is equal.
        rank: of this process.

    Attributes:
        earlier: sums of an earlier start, after `load`. Rank 0 has those of all processes, the others None.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], rank: int) -> None:
        self._folder = folder
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self._own = folder / f"{key}.{rank}.pt"
        self._names = f"{key}.*.pt"  # of all processes
        self._first = rank == 0
        self._next_save = 0.0
        self.earlier: State | None = None

    def load(self, gather: Gather) -> frozenset[int]:
        """Takes up what an earlier start left, of however many processes. All processes call this.

        Returns:
            Places of the images that are in `earlier`.
        """
        if self._first and self._folder.exists():
            remove_partials(self._folder, self._names)
            files = self._files()
            self.earlier = _union([state for state in map(_read, files) if state is not None])
            if self.earlier is not None:
                save_tensors(self._own, self.earlier)
            for file in files:
                if self.earlier is None or file != self._own:
                    file.unlink()
        done = torch.empty(0, dtype=torch.int64) if self.earlier is None else self.earlier["places"]
        return frozenset(gather(done)[0].tolist())

    def save_if_due(self, state: Callable[[], State]) -> None:
        """Saves the sums of this process, where the last time is long enough ago for what it took."""
        start = time.monotonic()
        if start >= self._next_save:
            save_tensors(self._own, state())
            end = time.monotonic()
            self._next_save = end + (end - start) / _SHARE

    def remove(self) -> None:
        """Removes the files of all processes, when they are needed no more."""
        for file in self._files():
            file.unlink()
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        return list(self._folder.glob(self._names))


def _union(states: Sequence[State]) -> State | None:
    """Adds up those that share no image, the largest first: one that holds the others makes them needless."""
    done: set[int] = set()
    chosen = []
    for state in sorted(states, key=lambda state: -len(state["places"])):
        places = set(state["places"].tolist())
        if len(places) == len(state["places"]) and done.isdisjoint(places):
            done |= places
            chosen.append(state)
    return merged(chosen) if chosen else None


def _read(path: Path) -> State | None:
    """Reads sums; None where the file is damaged."""
    try:
        state: State = load_tensors(path)
    except Exception:  # a damaged file can fail in any way
        return None
    return state
