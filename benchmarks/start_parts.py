"""Runs the command line, and says of each part of its start when it began and ended; see start.py.

STARTED=$(date +%s.%N) python benchmarks/start_parts.py generate --model ...
"""

import functools
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import Any

PARTS = {
    "read the file": ("restart_sampling.models.read_checkpoint", "read_checkpoint"),
    "build the model": ("restart_sampling.models.checkpoint", "Checkpoint.build"),
    "make it fast": ("restart_sampling.models.fast", "fast"),
    "find the images at a time": ("restart_sampling.generation.pace", "Pace.measure"),
    "start a batch": ("restart_sampling.generation.net_drawing", "NetDrawing._start_batch"),
    "capture the graph": ("restart_sampling.models.graphed", "GraphedNetwork._capture"),
    "write a block": ("restart_sampling.generation.store", "BlockStore.write"),
}
TRITONS = {
    "compile a kernel, or read it": ("triton.compiler", "compile"),
    "compile a launcher": ("triton.runtime.build", "_build"),
}
MOST = 20  # times that a part is shown
STARTED = float(os.environ["STARTED"])


def say(what: str, began: float) -> None:
    print(f"  {began - STARTED:6.2f} to {time.time() - STARTED:6.2f}: {what}", file=sys.stderr, flush=True)


def imported(module: str) -> Any:
    began = time.time()
    found = importlib.import_module(module)
    say(f"import {module}", began)
    return found


def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    times = 0

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        began, times = time.time(), times + 1
        try:
            return function(*args, **kwargs)
        finally:
            if times <= MOST:
                say(what, began)

    return run


def main() -> None:
    say("start Python", STARTED)
    imported("torch")
    command_line = imported("restart_sampling.cli")
    began = time.time()
    for what, (module, name) in {**PARTS, **(TRITONS if importlib.util.find_spec("triton") else {})}.items():
        *owner, name = name.split(".")
        place = functools.reduce(getattr, owner, importlib.import_module(module))
        setattr(place, name, timed(what, getattr(place, name)))
    say("import the rest", began)
    command_line.main()


if __name__ == "__main__":
    main()
