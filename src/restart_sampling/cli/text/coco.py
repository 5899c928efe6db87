"""`restart-sampling text coco`: the captions of the paper's text-to-image experiment, and their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.options import json_option, print_json, print_settings
from restart_sampling.cli.progress import ProgressBar

RESOLUTION = 512


@click.command(cls=Command)
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Where to write."
)
@click.option(
    "--images", "count", default=5000, show_default=True, type=click.IntRange(1), help="How many captions to draw."
)
@click.option(
    "--unique-images",
    is_flag=True,
    help="One caption an image; without it some captions share an image, as in the paper.",
)
@click.option(
    "--source",
    "source_path",
    metavar="COCO",
    type=click.Path(path_type=Path),
    help="COCO's images, such as val2014.zip or its folder: also write those of the captions, for 'reference'.",
)
@click.option(
    "--resolution",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --source: the square in the middle of each image is scaled to NxN; default: {RESOLUTION}.",
)
@json_option
def coco(
    annotations: Path,
    out: Path,
    count: int,
    unique_images: bool,
    source_path: Path | None,
    resolution: int | None,
    as_json: bool,
) -> None:
    """Draw the captions of the paper's text-to-image experiment. They are from COCO's captions_val2014.json.

    \b
      restart-sampling text coco annotations/captions_val2014.json --out coco --source val2014.zip
      restart-sampling reference coco/subset.zip --out coco.npz

    DIR/subset.csv is the original's, byte for byte. DIR/subset.zip has each image of the captions once: the largest
    square in its middle, scaled with Lanczos. DIR/subset.json says how both were made.
    """
    if resolution is not None and source_path is None:
        raise InputError("--resolution is for the images, and --source, where they are, is missing")

    from restart_sampling.base.files import check_writable, sha256, write_json
    from restart_sampling.base.lock import alone, lock_beside, remove_lock
    from restart_sampling.base.parallel import available_cores
    from restart_sampling.images.coco import SEED, caption_images, draw_captions, write_captions
    from restart_sampling.images.dataset import make_dataset, plan_dataset
    from restart_sampling.images.sources import open_source
    from restart_sampling.images.transforms import Transform

    table, archive = out / "subset.csv", out / "subset.zip"
    if table.exists():
        for path in (table, archive, out / "subset.json"):
            remove_lock(lock_beside(path))
        raise InputError(f"{table} exists; remove it, or choose another place")
    captions = draw_captions(annotations, count, unique_images=unique_images)
    about: dict[str, Any] = {
        "annotations": str(annotations),
        "annotations_sha256": sha256(annotations),
        "captions": len(captions),
        "images": len({each.file_name for each in captions}),
        "unique_images": unique_images,
        "seed": SEED,
        "transform": None,
    }
    plan = None
    if source_path is not None:
        side = resolution or RESOLUTION
        chosen = Transform("center-crop", (side, side))
        plan = plan_dataset(caption_images(open_source(source_path), captions), archive, chosen)
        about["transform"] = f"center-crop, Lanczos to {side}x{side}"
    check_writable(table)
    print_settings(
        {
            "captions": f"{about['captions']} of {counted(about['images'], 'image')}, drawn with seed {SEED} from "
            f"{annotations}",
            "images": f"{about['transform']}, from {source_path}" if plan else "not written: no --source",
            "out": out,
        }
    )
    if plan:
        with ProgressBar("images", plan.count) as advance:
            make_dataset(plan, available_cores(), advance)
    with alone(out / "subset.json"), alone(table):
        write_json(out / "subset.json", about)
        write_captions(captions, table)
    click.echo(f"written: {table}{f', {archive}' if plan else ''}", err=True)
    if as_json:
        print_json({**about, "out": str(out)})
