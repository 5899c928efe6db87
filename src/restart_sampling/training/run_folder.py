"""The folder of a run: what defines it, where it stopped, and what came of it so far."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.errors import InputError, one_line, shorten
from restart_sampling.base.files import check_writable, is_partial, remove_partials, write_bytes, write_json
from restart_sampling.base.lock import lock_in, locked
from restart_sampling.base.numbers import is_finite, is_number
from restart_sampling.base.tensors import load_tensors, save_tensors

FORMAT = "restart-sampling-training/1"
_RUN, _STATE, _LOSS, _MODEL = "run.json", "state.pt", "loss.jsonl", "model.safetensors"
_LENGTHS = ("images", "minutes")
_EARLIER = {"augment": 0.0, "ema_images": 500_000}  # what runs had before these were settings


class RunFolder:
    """A folder that belongs to one run.

    Each file in it appears whole or not at all. The state is written after the model and the losses, and is
    never ahead of them; the pictures come last.

    Args:
        path: of the folder; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """The file of the model."""
        return self.path / _MODEL

    def check(self, run: Mapping[str, Any]) -> None:
        """Makes sure that the folder is new, or holds this run or a shorter one, and that it can be written.

        Args:
            run: JSON of what defines the run, or what of it is known so far.

        Raises:
            InputError: the folder holds another run (the message says what differs) or something else.
        """
        found = self._read_run() or run
        differs = sorted((key for key in run if found.get(key) != run[key]), key=_LENGTHS.__contains__)
        if differs and not _is_longer(run, found, differs):
            old, new = (shorten(json.dumps(each.get(differs[0]))) for each in (found, run))
            longer = "a run goes on for more of what it counts by; " if differs[0] in _LENGTHS else ""
            raise InputError(
                f"{self.path} holds another run, with {differs[0]} {old}, not {new}; {longer}choose another --out"
            )
        check_writable(self.path / _RUN)

    @contextmanager
    def claimed(self, run: Mapping[str, Any]) -> Iterator[None]:
        """Keeps other runs away, after a check and with another: all that follows belongs in here.

        Raises:
            InputError: another run is writing, or as `check`.
        """
        self.check(run)
        with locked(lock_in(self.path), str(self.path)):
            self.check(run)  # another run may have come first
            yield

    def _read_run(self) -> dict[str, Any] | None:
        try:
            if not self.path.exists() or (self.path.is_dir() and all(map(is_partial, self.path.iterdir()))):
                return None
            content = json.loads((self.path / _RUN).read_text("utf-8"))
            if content["format"] != FORMAT or not all(map(is_finite, content.get("extended_from", []))):
                raise ValueError
            return {**_EARLIER, **content["run"]}
        except (OSError, LookupError, TypeError, ValueError, RecursionError):
            raise InputError(
                f"{self.path} exists and is not a run of train (no readable {_RUN}); choose another --out"
            ) from None

    def begin(self, run: Mapping[str, Any]) -> None:
        """Says whose folder it is, and removes what a killed process left half-written."""
        remove_partials(self.path, _RUN, _STATE, _LOSS, _MODEL, "samples-*.png", "loss.png")
        earlier = self.earlier_lengths(run)
        write_json(self.path / _RUN, {"format": FORMAT, "run": run, **({"extended_from": earlier} if earlier else {})})

    def earlier_lengths(self, run: Mapping[str, Any]) -> list[float]:
        """Lists the lengths, in images or minutes, that the run had before it was extended to this one."""
        if not (self.path / _RUN).exists():
            return []
        content = json.loads((self.path / _RUN).read_text("utf-8"))
        lengths = [content["run"][key] for key in _LENGTHS if content["run"].get(key) != run.get(key)]
        return [*content.get("extended_from", []), *lengths]

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """Loads the last state that was saved; None where there is none yet. Nothing in it is run.

        Raises:
            InputError: the file is damaged.
        """
        file = self.path / _STATE
        if not file.exists():
            return None
        try:
            state = load_tensors(file, device)
            if not isinstance(state, dict) or state.get("format") != FORMAT:
                raise ValueError(f"it has no format {FORMAT}")
            return state
        except (MemoryError, torch.OutOfMemoryError):  # of which the file knows nothing
            raise
        except Exception as error:  # a damaged file can fail in any way
            raise self.damaged_state(error) from error

    def damaged_state(self, error: Exception) -> InputError:
        """Makes the error of a state in which something else went wrong."""
        return InputError(
            f"{self.path / _STATE} is damaged ({shorten(one_line(error))}); remove it to begin the run anew, or choose "
            "another --out"
        )

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replaces the last state."""
        save_tensors(self.path / _STATE, {"format": FORMAT, **state})

    def save_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes the values of all rounds so far, one JSON line each."""
        write_bytes(self.path / _LOSS, "".join(f"{json.dumps(line)}\n" for line in history).encode())


def _is_longer(run: Mapping[str, Any], found: Mapping[str, Any], differs: Sequence[str]) -> bool:
    """Tells a run that is like another but goes on for more images or minutes."""
    lengths = [(found.get(key), run[key]) for key in differs if key in _LENGTHS]
    return len(differs) == len(lengths) == 1 and all(
        is_number(old) and is_number(new) and old < new for old, new in lengths
    )
