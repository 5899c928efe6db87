"""What the schedulers for diffusers pipelines cost: microseconds a call of `step`, beside diffusers' own schedulers.

    python benchmarks/scheduler_overhead.py [--device cuda] [--dtype float16] [--batch 1] [--steps 50] [--repeats 15]

The model's output is a fixed tensor, so all that is timed is the scheduler. A repeat is a whole run over `timesteps`,
and ours have a generator on the device, as pipelines pass it.
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

from restart_sampling.base.machine import describe_device
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

RESTART, FLOW_RESTART = [[10, 2, 0.1, 2.0]], [[4, 2, 0.3, 0.6]]


def our_rows(scheduler: Any, solver: str, restart: list[list[float]] | None = None) -> list[tuple[str, Any]]:
    """Ours with a solver, and with restarts where there are any."""
    rows = [(f"{scheduler.__name__}, {solver}", scheduler(solver=solver))]
    return rows + ([("with restarts", scheduler(solver=solver, restart=restart))] if restart else [])


PAIRS: list[tuple[str, list[tuple[str, Any]]]] = [
    ("EulerDiscreteScheduler", our_rows(RestartScheduler, "euler", RESTART)),
    ("HeunDiscreteScheduler", our_rows(RestartScheduler, "heun", RESTART)),
    ("DPMSolverMultistepScheduler", our_rows(RestartScheduler, "dpmpp_2m", RESTART)),
    ("UniPCMultistepScheduler", our_rows(RestartScheduler, "unipc:p=2", RESTART)),
    ("DDIMScheduler", our_rows(RestartScheduler, "euler")),
    ("DDPMScheduler", our_rows(RestartScheduler, "ddpm")),
    ("FlowMatchEulerDiscreteScheduler", our_rows(FlowMatchRestartScheduler, "euler", FLOW_RESTART)),
    ("FlowMatchHeunDiscreteScheduler", our_rows(FlowMatchRestartScheduler, "heun", FLOW_RESTART)),
]


def microseconds(scheduler: Any, x: torch.Tensor, output: torch.Tensor, steps: int) -> tuple[float, float]:
    """A call of set_timesteps, and one of `step`, the mean of a whole run."""
    start = time.perf_counter()
    scheduler.set_timesteps(steps, device=x.device)
    setting = 1e6 * (time.perf_counter() - start)
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, scheduler.timesteps[0])  # EulerDiscreteScheduler warns without it
    scheduler.generator = torch.Generator(x.device)  # ours draw from it
    start = time.perf_counter()
    for timestep in scheduler.timesteps:
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return setting, 1e6 * (time.perf_counter() - start) / len(scheduler.timesteps)


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--steps", default=50, show_default=True)
@click.option("--repeats", default=15, show_default=True)
@torch.no_grad()
def main(device: str, dtype: str, batch: int, steps: int, repeats: int) -> None:
    x = torch.randn(batch, 4, 64, 64, device=device, dtype=getattr(torch, dtype))
    output = torch.randn_like(x)
    print(
        f"{describe_device(torch.device(device))}, {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"diffusers {diffusers.__version__}; Python {platform.python_version()}; latents {list(x.shape)} {dtype}, "
        f"{steps} steps, {repeats} repeats"
    )
    table = Table("scheduler", "us a step", "spread", "of diffusers'", "us set_timesteps", box=None)
    for name, ours in PAIRS:
        schedulers = [(name, getattr(diffusers, name)()), *ours]
        runs: list[list[tuple[float, float]]] = [[] for _ in schedulers]
        for _ in range(repeats + 1):  # in turns, so that a busy machine slows all of them
            for (_, scheduler), times in zip(schedulers, runs, strict=True):
                times.append(microseconds(scheduler, x, output, steps))
        base = median(step for _, step in runs[0][1:])
        for (label, _), (_, *times) in zip(schedulers, runs, strict=True):
            settings, calls = zip(*times, strict=True)
            spread = f"{min(calls):.0f} to {max(calls):.0f}"
            relative = f"{median(calls) / base:.2f}"
            table.add_row(label, f"{median(calls):.0f}", spread, relative, f"{median(settings):.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
