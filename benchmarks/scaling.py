"""Weak scaling of `generate`: the same number of images for each process, on one GPU, two, and so on.

    python benchmarks/scaling.py [--processes 1,2] [--network cifar10] [--images 4096] [--zip]

Each process is one of torchrun's, warms up with two blocks, and then draws and writes as `generate` does; all wait for
one another before and after, so the slowest counts. A zip is put together by one process at the end, a folder by all
on the way. The network is that of throughput.py (float16 and compiled on CUDA), with random weights.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import torch
from rich.console import Console
from rich.table import Table

import restart_sampling as rs
from restart_sampling.base.ranks import Ranks, distributed
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.seeds import cut
from restart_sampling.generation.store import BlockStore
from restart_sampling.generation.write import write_missing
from restart_sampling.models.denoiser import Denoiser
from throughput import NETWORKS, build


def worker(network: str, plan: rs.Plan, batch: int, images: int, name: str, repeats: int, device: str) -> None:
    """What each process does; the first one prints the seconds of each repeat."""
    with distributed(torch.device(device)) as ranks:
        model = build(network, ranks.device)
        if device == "cuda":
            model = rs.fast(model, compiled=True)
        with tempfile.TemporaryDirectory() as own:
            place = Path(ranks.gather(own)[0])
            run(model, plan, batch, 2 * batch * ranks.size, place / f"warm-up-{name}", ranks)
            times = [
                run(model, plan, batch, images * ranks.size, place / f"{number}-{name}", ranks)
                for number in range(repeats)
            ]
        if ranks.first:
            print(json.dumps(times))


def run(model: Denoiser, plan: rs.Plan, batch: int, images: int, out: Path, ranks: Ranks) -> float:
    """Seconds from where all processes are ready to where all are done."""
    store = BlockStore(out, cut(range(images), batch), {})
    draw = NetDrawing(model, plan, batch=batch).draw
    if ranks.first:
        store.check(batch)
    ranks.wait()
    start = time.perf_counter()
    write_missing(store, {"run": {}, "batch": batch}, draw, ranks)
    ranks.wait()
    return time.perf_counter() - start


def seconds(processes: int) -> list[float]:
    """Of each repeat of this command with so many processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run([*torchrun, *sys.argv], stdout=subprocess.PIPE, text=True, check=True)
    return [float(each) for each in json.loads(done.stdout)]


@click.command()
@click.option("--processes", default="1,2", show_default=True)
@click.option("--network", type=click.Choice(list(NETWORKS)), default="cifar10", show_default=True)
@click.option("--plan", "plan_text", default="18", show_default=True)
@click.option("--batch", default=512, show_default=True)
@click.option("--images", default=4096, show_default=True, help="For each process.")
@click.option("--zip", "to_zip", is_flag=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--device", default="cuda", show_default=True)
def main(
    processes: str, network: str, plan_text: str, batch: int, images: int, to_zip: bool, repeats: int, device: str
) -> None:
    """Images a second of one process, of two, and so on, each with as many images."""
    if "RANK" in os.environ:  # one of torchrun's
        plan, name = rs.Plan.parse(plan_text), "images.zip" if to_zip else "images"
        worker(network, plan, batch, images, name, repeats, device)
        return
    table = Table("processes", "images/s", "spread", "times one", "efficiency", box=None)
    one = 0.0
    for count in map(int, processes.split(",")):
        rates = [count * images / each for each in seconds(count)]
        one = one or median(rates) / count
        table.add_row(
            str(count),
            f"{median(rates):.1f}",
            f"{min(rates):.1f} to {max(rates):.1f}",
            f"{median(rates) / one:.3f}",
            f"{median(rates) / one / count:.1%}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
