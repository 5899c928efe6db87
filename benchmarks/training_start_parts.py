"""Runs `train`, and notes when its parts were done, and how fast its steps are.

STARTED=$(date +%s.%N) VARIANT=kernels NOTES=notes python benchmarks/training_start_parts.py train DATA ...

Notes of rank N are appended to NOTES/N.jsonl. Nothing is saved and no pictures are drawn. See training_start.py.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = float(os.environ.get("STARTED", "0"))
RANK = os.environ.get("RANK", "0")
NOTES = Path(os.environ.get("NOTES", "."))
VARIANTS = {"kernels": "--compile", "whole": "--compile", "plain": "--no-compile"}
"""What the network runs by, and the option: kernels of the package, torch.compile, or nothing."""
WARM = 100  # steps before those whose time counts


def note(**values: Any) -> None:
    with (NOTES / f"{RANK}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def done(what: str) -> None:
    note(part=what, seconds=round(time.time() - STARTED, 2))


def after(owner: Any, name: str, then: Callable[[], None]) -> None:
    """Has `then` called after each call of a function."""
    function = getattr(owner, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        then()
        return found

    setattr(owner, name, run)


class Steps:
    """Times and losses of the steps."""

    def __init__(self, torch: Any, trainer: Any) -> None:
        self.torch = torch
        self.cuda = False
        self.times: list[Any] = []
        self.losses: list[Any] = []
        take, count = trainer.step, trainer._count

        def timed(training: Any, progress: float) -> None:
            self.cuda = training.ranks.device.type == "cuda"
            take(training, progress)
            number = len(self.times) + 1
            if number <= 3:
                if self.cuda:
                    torch.cuda.synchronize()
                done(f"step {number}")
            self.times.append(self.now())

        def counted(training: Any, loss: Any) -> None:
            self.losses.append(loss.clone())
            count(training, loss)

        trainer.step, trainer._count = timed, counted

    def now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def summary(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()
            note(memory=round(self.torch.cuda.max_memory_reserved() / 2**30, 2))
        pairs = list(zip(self.times, self.times[1:], strict=False))[min(WARM, len(self.times) // 2) :]
        steps = sorted(first.elapsed_time(last) if self.cuda else 1000 * (last - first) for first, last in pairs)
        losses = [loss.item() for loss in self.losses]
        note(
            steps=len(losses),
            median=round(statistics.median(steps), 3),
            tenth=round(steps[len(steps) // 10], 3),
            ninetieth=round(steps[-1 - len(steps) // 10], 3),
            first=losses[:5],
            early=statistics.fmean(losses[10:30] or losses),
            late=statistics.fmean(losses[-100:]),
        )


def main() -> None:
    done("Python")
    import torch

    done("torch imported")
    from restart_sampling.base.meeting import Meeting
    from restart_sampling.cli import main as command_line
    from restart_sampling.models import fast
    from restart_sampling.training import run, training_set
    from restart_sampling.training.trainer import Trainer

    done("package imported")
    if os.environ["VARIANT"] == "kernels":
        from restart_sampling.models import gradient_kernels

        after(gradient_kernels, "compile_kernels", lambda: done("kernels compiled"))
    else:
        fast.kernels_serve = lambda *_: False
    after(Meeting, "__init__", lambda: done("processes met"))
    after(torch.distributed, "init_process_group", lambda: done("process group"))
    after(training_set, "read_training_set", lambda: done("data there"))
    after(Trainer, "prepare", lambda: done("trainer prepared"))
    after(run.Run, "__init__", lambda: done("run begun"))
    run.Run._save = lambda *_, **__: None  # type: ignore[method-assign]
    steps = Steps(torch, Trainer)
    try:
        command_line()
    finally:
        if steps.times:
            steps.summary()
        done("end")
        if "torch._dynamo.utils" in sys.modules:
            from torch._dynamo.utils import compile_times

            times = dict(zip(*compile_times(repr="csv", aggregate=True), strict=False))
            top = sorted(((float(str(value)), name) for name, value in times.items()), reverse=True)[:40]
            (NOTES / f"{RANK}-compiling.txt").write_text(
                "\n".join(f"{value:8.2f} s  {name}" for value, name in top), "utf-8"
            )


if __name__ == "__main__":
    main()
