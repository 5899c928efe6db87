"""What the diffusers schedulers cost: microseconds a call of `step`, beside diffusers' own of the same order.

    python benchmarks/scheduler_overhead.py [--device cuda] [--batch 1] [--steps 50] [--repeats 15]

The model's output is a fixed tensor, so all that is timed is the scheduler. A repeat is a whole run over `timesteps`.
"""

import platform
import time
from statistics import median
from typing import Any

import click
import diffusers
import torch
from rich.console import Console
from rich.table import Table

from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

RESTART, FLOW_RESTART = [[10, 2, 0.1, 2.0]], [[4, 2, 0.3, 0.6]]
PAIRS: list[tuple[str, list[tuple[str, Any]]]] = [
    (
        "EulerDiscreteScheduler",
        [
            ("RestartScheduler, euler", RestartScheduler(solver="euler")),
            ("with restarts", RestartScheduler(solver="euler", restart=RESTART)),
        ],
    ),
    (
        "HeunDiscreteScheduler",
        [
            ("RestartScheduler, heun", RestartScheduler()),
            ("with restarts", RestartScheduler(restart=RESTART)),
        ],
    ),
    (
        "FlowMatchEulerDiscreteScheduler",
        [
            ("FlowMatchRestartScheduler, euler", FlowMatchRestartScheduler(solver="euler")),
            ("with restarts", FlowMatchRestartScheduler(solver="euler", restart=FLOW_RESTART)),
        ],
    ),
    (
        "FlowMatchHeunDiscreteScheduler",
        [
            ("FlowMatchRestartScheduler, heun", FlowMatchRestartScheduler()),
            ("with restarts", FlowMatchRestartScheduler(restart=FLOW_RESTART)),
        ],
    ),
]


def microseconds(scheduler: Any, x: torch.Tensor, output: torch.Tensor, steps: int) -> float:
    """A call of `step`, the mean of a whole run."""
    scheduler.set_timesteps(steps, device=x.device)
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, scheduler.timesteps[0])  # EulerDiscreteScheduler warns without it
    start = time.perf_counter()
    for timestep in scheduler.timesteps:
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return 1e6 * (time.perf_counter() - start) / len(scheduler.timesteps)


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--steps", default=50, show_default=True)
@click.option("--repeats", default=15, show_default=True)
@torch.no_grad()
def main(device: str, batch: int, steps: int, repeats: int) -> None:
    x = torch.randn(batch, 4, 64, 64, device=device)
    output = torch.randn_like(x)
    print(
        f"{device}, {torch.get_num_threads()} threads; torch {torch.__version__}; diffusers {diffusers.__version__}; "
        f"Python {platform.python_version()}; latents {list(x.shape)}, {repeats} repeats"
    )
    table = Table("scheduler", "us a step", "spread", "of diffusers'", box=None)
    for name, ours in PAIRS:
        schedulers = [(name, getattr(diffusers, name)()), *ours]
        runs: list[list[float]] = [[] for _ in schedulers]
        for _ in range(repeats + 1):  # in turns, so that a busy machine slows all of them
            for (_, scheduler), times in zip(schedulers, runs, strict=True):
                times.append(microseconds(scheduler, x, output, steps))
        base = median(runs[0][1:])
        for (label, _), (_, *times) in zip(schedulers, runs, strict=True):
            spread = f"{min(times):.0f} to {max(times):.0f}"
            table.add_row(label, f"{median(times):.0f}", spread, f"{median(times) / base:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
