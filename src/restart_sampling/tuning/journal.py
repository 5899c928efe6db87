"""Optuna's journal of trials, for a run that nobody else writes to."""

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from restart_sampling.base.files import write_bytes


class Journal(JournalFileBackend):
    """Optuna's file without its lock, and without its wait for the disk at every setting of a trial.

    What a process wrote is there after it is killed; the wait, 25 times a trial, is for the machine's own failure.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds a line for each of the logs."""
        with self._path.open("ab") as file:
            file.write("".join(json.dumps(log) + "\n" for log in logs).encode())


def remove_begun(path: Path) -> None:
    """Removes from the end of a file what a killed process left there: a line, or a trial, that was not yet whole.

    Settings that a trial has are not suggested again, and those that follow would be others.

    Args:
        path: of the file; need not exist.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    end = len(lines)
    while end and _is_begun(lines[end - 1]):
        end -= 1
    if end < len(lines):
        write_bytes(path, b"".join(lines[:end]))


def _is_begun(line: bytes) -> bool:
    """Tells half a line, and one of a trial that has no plan yet."""
    if not line.endswith(b"\n"):
        return True
    log = json.loads(line)
    if log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES:
        return bool(log["state"] == TrialState.RUNNING)
    return log["op_code"] in (
        JournalOperation.CREATE_TRIAL,
        JournalOperation.SET_TRIAL_PARAM,
        JournalOperation.SET_TRIAL_SYSTEM_ATTR,
    )
