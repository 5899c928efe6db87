"""Weak scaling of `generate`: the same number of images for each process, on one GPU, two, and so on.

    python benchmarks/scaling.py [--processes 1,2] [--images 20000] [--zip] [--device cuda]

Runs the command under torchrun as a user would; its seconds are of drawing and writing, without start-up. A zip is put
together by one process at the end, a folder by all of them on the way.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table


def seconds(processes: int, images: int, name: str, options: list[str]) -> float:
    """Of one run of `images` for each process, to a folder or zip of this name."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / name)
        seeds = f"0-{processes * images - 1}"
        command = [sys.executable, "-m", *torchrun, "restart_sampling", "generate", "--seeds", seeds, "--out", out]
        done = subprocess.run([*command, "--json", *options], stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


@click.command()
@click.option("--processes", default="1,2", show_default=True)
@click.option("--images", default=20_000, show_default=True, help="For each process.")
@click.option("--model", default="cifar10-small", show_default=True)
@click.option("--plan", default="18", show_default=True)
@click.option("--batch", default=1000, show_default=True)
@click.option("--zip", "to_zip", is_flag=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(
    processes: str, images: int, model: str, plan: str, batch: int, to_zip: bool, device: str, repeats: int
) -> None:
    name = "images.zip" if to_zip else "images"
    options = ["--model", model, "--plan", plan, "--batch", str(batch), "--device", device]
    table = Table("processes", "images/s", "spread", "times one", "efficiency", box=None)
    one = 0.0
    for count in map(int, processes.split(",")):
        rates = [count * images / seconds(count, images, name, options) for _ in range(repeats)]
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
