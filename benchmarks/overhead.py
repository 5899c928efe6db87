"""What the sampler costs beside the network: microseconds a move with a free denoiser, and as a share of the network.

    python benchmarks/overhead.py [--device cuda] [--batch 64] [--repeats 7]

The denoiser is free (it returns its input), so all that is timed is the loop, the solver's arithmetic, and the
noise. The network's call is timed in the same run, on the same batch.
"""

import platform
import time
from collections.abc import Callable
from statistics import median

import click
import torch
from rich.console import Console
from rich.table import Table

import restart_sampling as rs

PLANS = {"ODE": "18", "SDE": "18 churn=8 s_min=0.5 s_max=20", "Restart": "cifar10-small-43"}


def timed(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each repeat, after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


@click.command()
@click.option("--device", "device_name", default="cpu", show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--repeats", default=7, show_default=True)
def main(device_name: str, batch: int, repeats: int) -> None:
    device = torch.device(device_name)
    model = rs.load_model("cifar10-small", device=device)
    shape = (model.channels, model.resolution, model.resolution)
    noise = rs.GaussianNoise(range(batch), device=device)
    x = noise.start(shape, 80.0)
    sigma = torch.full((batch,), 1.0, dtype=torch.float64, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    with torch.no_grad():
        network = timed(lambda: model(x, sigma, labels), device, repeats)
    call = median(network)
    rise = timed(lambda: noise(x, 1.0, 2.0), device, repeats)
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{chip}; torch {torch.__version__}; Python {platform.python_version()}; batch {batch}, {repeats} repeats")
    print(f"network call (float32): median {1e3 * call:.2f} ms, {1e3 * min(network):.2f} to {1e3 * max(network):.2f}")
    print(f"one rise: median {1e6 * median(rise):.0f} us")

    table = Table("sampler", "moves", "rises", "NFE", "us a move", "spread", "share of the network", box=None)
    for name, text in PLANS.items():
        plan = rs.Plan.parse(text)
        path = plan.path()

        def run(path: rs.NoisePath = path) -> None:
            rs.follow(lambda state, level: state, noise.start(shape, 80.0), path, perturb=noise)

        seconds = timed(run, device, repeats)
        moves, nfe = len(path.moves), path.nfe(*plan.solvers)
        table.add_row(
            name,
            str(moves),
            str(len(path.rises)),
            str(nfe),
            f"{1e6 * median(seconds) / moves:.0f}",
            f"{1e6 * min(seconds) / moves:.0f} to {1e6 * max(seconds) / moves:.0f}",
            f"{median(seconds) / (nfe * call):.2%}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
