"""Making a dataset: files a second and memory, against a plain loop of one thread.

    python benchmarks/dataset.py [--files 20000] [--side 256] [--workers 1,2]

Makes JPEG files of 256 x 192 pixels in a temporary folder, in 1000 class folders, and converts them to 64 x 64 with
center-crop. The plain loop is what a script would do: open, crop, resize, save to a zip. Each run is a process of its
own; its memory is the most that it and its workers had, as the system counts it.
"""

import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

CLASSES = 1000
SIZE = (64, 64)


def make_files(folder: Path, count: int, side: int) -> None:
    """JPEG files of smooth noise: 16 pictures, over and over."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(16):
        coarse = rng.integers(0, 256, (side // 16, side // 12, 3), dtype=np.uint8)
        path = folder.parent / f"{number}.jpg"
        Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(path, quality=90)
        pictures.append(path.read_bytes())
    for number in range(count):
        path = folder / f"n{number % CLASSES:08d}" / f"{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number % 16])


def plain(folder: Path, out: Path) -> None:
    """One thread, nothing ahead."""
    with zipfile.ZipFile(out, "w") as archive:
        for number, path in enumerate(sorted(folder.rglob("*.JPEG"))):
            with Image.open(path) as image:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                small = image.convert("RGB").crop((left, top, left + side, top + side))
                with archive.open(f"{number:08d}.png", "w") as file:
                    small.resize(SIZE, Image.Resampling.LANCZOS).save(file, "png", compress_level=0)


def ours(folder: Path, out: Path, workers: int) -> None:
    from restart_sampling.images.dataset import make_dataset, plan_dataset
    from restart_sampling.images.sources import open_source
    from restart_sampling.images.transforms import Transform

    make_dataset(plan_dataset(open_source(folder), out, Transform("center-crop", SIZE)), workers)


def measure(how: str, folder: Path, out: Path) -> list[float]:
    """Of a run in a fresh process: seconds; then of it, and of its workers, seconds of a core and MiB.

    Of several workers the seconds are the sum, the memory that of the largest.
    """
    command = [sys.executable, __file__, "--run", how, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(figure) for figure in done.stdout.split()]


def run(how: str, folder: Path, out: Path) -> None:
    start = time.perf_counter()
    if how == "plain":
        plain(folder, out)
    else:
        ours(folder, out, int(how))
    seconds = time.perf_counter() - start
    print(seconds)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@click.command()
@click.option("--files", default=20_000, show_default=True)
@click.option("--side", default=256, show_default=True, help="Width of the files; their height is three quarters.")
@click.option("--workers", default="1,2", show_default=True)
def main(files: int, side: int, workers: str) -> None:
    table = Table(
        "converter", "seconds", "files a second", "core s", "MiB", "core s of workers", "MiB of a worker", box=None
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        make_files(folder, files, side)
        for how in ("plain", *workers.split(",")):
            seconds, *usage = measure(how, folder, Path(name) / f"{how}.zip")
            label = "plain loop" if how == "plain" else f"dataset, workers {how}"
            table.add_row(label, f"{seconds:.1f}", f"{files / seconds:.0f}", *(f"{figure:.1f}" for figure in usage))
    Console(width=100).print(f"{files} JPEG files of {side}x{side * 3 // 4} to 64x64, center-crop")
    Console(width=100).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
