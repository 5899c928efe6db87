"""`restart-sampling reference`: statistics of a set of images to compare others with."""

from __future__ import annotations

import time
from pathlib import Path

import click

from restart_sampling.base.machine import describe_device
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.options import (
    ProcessOptions,
    batch_option,
    check_suffix,
    describe_source,
    detector_option,
    json_option,
    print_json,
    print_settings,
    process_options,
    trust_option,
)
from restart_sampling.cli.progress import ProgressBar


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The .npz file to write.")
@detector_option
@trust_option
@click.option("--features", "keep_features", is_flag=True, help="Keep the features: kid, pr and per-class need them.")
@click.option("--max-images", type=click.IntRange(2), help="Use so many, drawn as EDM does; default: all.")
@batch_option
@process_options
@json_option
def reference(
    data: Path,
    out: Path,
    detector_name: str,
    trust: bool | str,
    keep_features: bool,
    max_images: int | None,
    batch: int,
    processes: ProcessOptions,
    as_json: bool,
) -> None:
    """Write the statistics of the images in DATA. It is a folder, a zip or a tar.

    \b
      restart-sampling reference cifar10-32x32.zip --out cifar10-32x32.npz
    """
    check_suffix(out, "reference", ".npz")

    from restart_sampling.base.files import check_writable
    from restart_sampling.base.lock import alone
    from restart_sampling.evaluation.detectors import load_detector
    from restart_sampling.evaluation.measure import image_batches, make_reference
    from restart_sampling.evaluation.reference import save_reference
    from restart_sampling.images.image_set import read_images

    with processes.ranks() as ranks:
        with ranks.one_goes_first():
            images = read_images(data, count=max_images)
            check_writable(out)
            detector = load_detector(detector_name, ranks.device, trust=trust)
            detector.try_on(images.shape)
        if ranks.first:
            print_settings(
                {
                    "images": f"{len(images)} from {data}",
                    **describe_source(images.source, with_classes=keep_features),
                    "detector": f"{detector_name} ({detector.identity[:32]}), float32 without TF32",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}",
                    "out": out,
                }
            )
        start = time.perf_counter()
        with ProgressBar("images", len(images), ranks.first) as advance:
            made = make_reference(
                image_batches(images, ranks, batch),
                len(images),
                detector,
                ranks,
                classes=images.classes,
                name=images.where,
                keep_features=keep_features,
                advance=lambda count: advance(count * ranks.size),
            )
        seconds = time.perf_counter() - start
        if ranks.first:
            with alone(out):
                save_reference(made, out)
            click.echo(
                f"{counted(len(images), 'image')} in {seconds:.1f} s ({len(images) / seconds:.1f} a second): {out}",
                err=True,
            )
            if as_json:
                print_json(
                    {
                        "images": len(images),
                        "detector": made.detector,
                        "source": made.source,
                        "seconds": round(seconds, 3),
                        "out": str(out),
                    }
                )
