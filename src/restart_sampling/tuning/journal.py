"""Optuna's journal of trials, for a run that nobody else writes to."""

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend


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
