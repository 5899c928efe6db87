"""`restart-sampling dataset`: images of any source as a dataset in EDM's format."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_writable
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_dataset, leaving_no_folder, print_estimate
from restart_sampling.cli.options import describe_source, json_option, print_json, print_settings
from restart_sampling.cli.progress import ProgressBar

if TYPE_CHECKING:
    import numpy as np

    from restart_sampling.images.transforms import Crop


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--resolution", "resolution_text", metavar="WxH", help="Size of the images, such as 64x64; default: as they are."
)
@click.option(
    "--transform",
    type=click.Choice(["center-crop", "center-crop-wide"]),
    help="What to keep of each image; default: all of it, scaled without regard to its proportions.",
)
@click.option("--max-images", type=click.IntRange(1), metavar="N", help="Only the first N images by name.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; default: one a core.")
@dry_run_option
@json_option
def dataset(
    source: Path,
    out: Path,
    resolution_text: str | None,
    transform: Crop | None,
    max_images: int | None,
    workers: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a dataset in EDM's format of SOURCE. DEST is a file that ends in .zip, or a folder.

    SOURCE is a folder, a zip, a tar (plain, gz, bz2, xz), or a folder of a WebDataset's tars (with .cls files, or .json
    files with a label); CIFAR-10's cifar-10-python.tar.gz (nothing in it is run); MNIST's train-images-idx3-ubyte.gz
    with its labels beside it (28x28 gets a border to 32x32); an .npz of samples (arr_0, and classes in arr_1); or
    Parquet of a Hugging Face data set: one file, a folder of them, or a part of a folder, FOLDER/train.

    \b
      restart-sampling dataset cifar-10-python.tar.gz cifar10-32x32.zip
      restart-sampling dataset ILSVRC/Data/CLS-LOC/train imagenet-64x64.zip \\
          --resolution 64x64 --transform center-crop

    Labels are those of SOURCE's dataset.json, or of Hugging Face's metadata.csv or metadata.jsonl, else the folders of
    the classes in the order of their names as text: 10 comes before 2. The names are kept in dataset.json, and a model
    that is trained with --cond knows them.

    Images have to become squares, of one size that is a power of two. center-crop takes the square in the middle;
    center-crop-wide takes rows in the middle, scales them to WxH, adds black bars to a square, and leaves out images
    that are too small. Both make all images RGB; without them grey stays grey. Transparent images are laid on white;
    of 16 bits the upper 8 are kept. Scaling is Lanczos. The same SOURCE makes the same bytes.
    """
    size = None if resolution_text is None else _size(resolution_text)

    from restart_sampling.base.parallel import available_cores
    from restart_sampling.images.dataset import make_dataset, plan_dataset
    from restart_sampling.images.sources import open_source
    from restart_sampling.images.transforms import Transform

    chosen = Transform(transform, size)
    opened = open_source(source)
    plan = plan_dataset(opened, out, chosen, max_images)
    workers = workers or available_cores()
    channels, height, width = plan.shape
    only = ""
    if opened.labels is not None and plan.count < len(opened):
        only = f", of {_classes(opened.labels[: plan.count])}, for they are the first by name"
    print_settings(
        {
            "source": f"{source} ({counted(len(opened), 'image')}, {_classes(opened.labels)})",
            **describe_source(opened, with_classes=True),
            "images": f"{plan.count} of {width}x{height}, {'grey' if channels == 1 else 'RGB'}{only}",
            "transform": transform or ("none" if size is None else "scaled"),
            "workers": workers,
            "out": out,
        }
    )
    if dry_run:
        with leaving_no_folder(out.parent):
            check_writable(out.parent / f"{out.name}.part")
        print_estimate(out, estimate_dataset(plan, workers), as_json, by="images")
        return
    start = time.perf_counter()
    with ProgressBar("images", plan.count) as advance:
        made = make_dataset(plan, workers, advance)
    seconds = time.perf_counter() - start
    skipped = f", {made.skipped} too small and left out" if made.skipped else ""
    rate = plan.count / seconds
    click.echo(f"{counted(made.images, 'image')} in {seconds:.1f} s ({rate:.0f} a second){skipped}: {out}", err=True)
    if as_json:
        print_json(
            {
                "images": made.images,
                "skipped": made.skipped,
                "classes": made.classes,
                "shape": made.shape,
                "seconds": round(seconds, 3),
                "out": str(out),
            }
        )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})[x,]([1-9]\d{0,4})", text)
    if match is None:
        raise InputError(f"--resolution {text}: give width and height, such as 64x64")
    return int(match[1]), int(match[2])


def _classes(labels: np.ndarray | None) -> str:
    if labels is None:
        return "no labels"
    return counted(len(set(labels.tolist())), "class")
