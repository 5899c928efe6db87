"""`--dry-run`: how long a command would take and how much disk it would need, before anything is drawn or written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.numbers import counted
from restart_sampling.cli.options import print_json, print_settings
from restart_sampling.cli.progress import days_note, describe_seconds

if TYPE_CHECKING:
    from restart_sampling.comparison.rows import Row
    from restart_sampling.comparison.run import Comparison
    from restart_sampling.evaluation.setup import EvaluationSetup
    from restart_sampling.generation.drawing import Drawing
    from restart_sampling.generation.store import BlockStore
    from restart_sampling.images.dataset import Conversion
    from restart_sampling.training.progress import Progress
    from restart_sampling.training.trainer import Trainer
    from restart_sampling.tuning.run import Run
    from restart_sampling.tuning.search import Candidates

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check all that is asked, estimate time and disk, and stop; nothing is written."
)
_RECORD = 300
"""Bytes beside the pixels of an image, at most: the frame of its PNG, its record, its place in a zip."""
_BESIDE_A_MODEL = 2_000_000
"""Bytes of the pictures, the losses and the headers of a training run, at most."""
_OF_AN_NFE = 5_000_000
"""Bytes that a run of tune writes for an NFE, or for a map, at most: a line for each plan, and a few images."""
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@contextmanager
def leaving_no_folder(path: Path) -> Iterator[None]:
    """Removes the folders that a check makes on the way to a file or folder, where it leaves them empty."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def estimate_images(drawing: Drawing, store: BlockStore, processes: int) -> dict[str, Any]:
    """Estimates what `print_estimate` says of images that are written to a folder or a zip."""
    from restart_sampling.generation.timing import seconds_per_image

    left = sum(len(block) for number, block in enumerate(store.blocks) if not store.intact(number))
    seconds = left * seconds_per_image(drawing, store.blocks[0]) / processes if left else 0.0
    size = _png_bytes(drawing, left)
    # A zip is made of the files, which go when it is finished.
    return {"images": left, "seconds": seconds, "bytes": size and size * (2 if store.out.suffix == ".zip" else 1)}


def estimate_rows(rows: Sequence[Row], there: Mapping[str, Any], comparison: Comparison) -> dict[str, Any]:
    """Estimates the same of rows that are measured, without those that the first process finds there.

    Their bytes are those of the sums of one at a time, and of the images of prompts.
    """
    from restart_sampling.comparison.text_comparison import TextComparison
    from restart_sampling.generation.timing import detector_seconds, seconds_per_image

    finished = comparison.ranks.gather(list(there))[0]
    missing = [(row, row.drawing) for row in rows if row.name not in finished and row.drawing]
    images = sum(row.images for row, _ in missing)
    if not missing:
        return {"images": 0, "seconds": 0.0, "bytes": 0}
    first, drawing = missing[0]
    one = seconds_per_image(drawing, first.seeds) / drawing.network_evaluations
    work = sum(row.images * each.network_evaluations for row, each in missing)
    seconds = work * one + images * detector_seconds(comparison.setup, drawing)
    kept = 0
    if isinstance(comparison, TextComparison):
        kept = images if comparison.keep else max(row.images for row, _ in missing)
    pictures = _png_bytes(drawing, kept)
    size = None if kept and pictures is None else _bytes_of_sums(comparison, first.images) + (pictures or 0)
    return {"images": images, "seconds": seconds / comparison.ranks.size, "bytes": size}


def estimate_dataset(plan: Conversion, workers: int) -> dict[str, Any]:
    """Estimates the same of a data set."""
    from restart_sampling.images.dataset import seconds_per_image

    size = plan.count * _bytes_of_png(plan.shape)
    return {"images": plan.count, "seconds": plan.count * seconds_per_image(plan) / workers, "bytes": size}


def estimate_training(trainer: Trainer, progress: Progress) -> dict[str, Any]:
    """Estimates the same of a training run, of which there may be a part already."""
    from restart_sampling.training.timing import seconds_per_step

    pace = seconds_per_step(trainer)
    if progress.all_steps is None:
        seconds = max((progress.all_seconds or 0.0) - progress.seconds, 0.0)
        steps = seconds / pace
    else:
        steps = progress.all_steps - progress.steps
        seconds = steps * pace
    weights = sum(parameter.numel() for parameter in trainer.ema.model.parameters())
    # The model, and a state of four of its size; each new beside the old while it is saved.
    return {
        "images": round(steps * trainer.settings.batch),
        "seconds": seconds,
        "bytes": 2 * 4 * 5 * weights + _BESIDE_A_MODEL,
    }


def estimate_tuning(
    run: Run, first: Drawing, setups: Sequence[EvaluationSetup], spaces: Sequence[Candidates], map_evaluations: int = 0
) -> dict[str, Any]:
    """Estimates the same of a run of tune, without the NFE whose plans are there.

    Args:
        run: that would begin.
        first: of any plan of it.
        setups: detectors with their references.
        spaces: one for each NFE.
        map_evaluations: of the map before; 0: without one.

    Raises:
        InputError: the time does not suffice for one of the NFE, as the run would find out after a while.
    """
    from restart_sampling.tuning.ahead import check_times, first_speed

    left = [space for space in spaces if not run.plan_file(space.nfe).exists()]
    nfes = [space.nfe for space in left]
    speed = first_speed(first, setups, nfes[0] if nfes else first.nfe, run.ranks)
    check_times(run.settings, left, speed)
    seconds = 60 * run.settings.minutes * len(nfes) + map_evaluations / speed
    return {"nfe": nfes, "seconds": seconds, "bytes": _OF_AN_NFE * (len(nfes) + (map_evaluations > 0))}


def print_estimate(
    out: Path, estimate: Mapping[str, Any], as_json: bool, *, shown: bool = True, by: str = "evaluations"
) -> None:
    """Says how long it would take, how much disk it would need, and what is wrong with either.

    Args:
        out: what would be written.
        estimate: `seconds`, `bytes` (None: that depends on the size of the images) and, where it is known, `images`.
        as_json: whether to end with JSON.
        shown: whether this process speaks to the user.
        by: of what the first ones were measured.
    """
    if not shown:
        return
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free, size = shutil.disk_usage(there).free, estimate["bytes"]
    needed = "depends on the size of the images" if size is None else f"at most {_describe_bytes(size)}"
    print_settings(
        {
            "time": f"about {describe_seconds(estimate['seconds'])}"
            + (f" for {counted(estimate['images'], 'image')}, from the first {by}" if "images" in estimate else ""),
            "disk": f"{needed}; {_describe_bytes(free)} are free",
        }
    )
    if note := days_note(estimate["seconds"]):
        click.echo(note, err=True)
    if size is not None and size > free:
        click.echo(f"note: the disk of {out} has too little room", err=True)
    click.echo("nothing was drawn or written (--dry-run)", err=True)
    if as_json:
        print_json({"dry_run": True, **estimate, "seconds": round(estimate["seconds"], 3), "free_bytes": free})


def _png_bytes(drawing: Drawing, images: int) -> int | None:
    """Counts the bytes of images, at most, as pixels may not compress; None: their size is not known."""
    return None if drawing.shape is None else images * _bytes_of_png(drawing.shape)


def _bytes_of_png(shape: Sequence[int]) -> int:
    return prod(shape) + shape[1] + _RECORD


def _bytes_of_sums(comparison: Comparison, images: int) -> int:
    """Counts the bytes, at most, that a row keeps until it is finished, the new beside the old while it is saved."""
    from restart_sampling.evaluation.metrics import NEED_FEATURES, check_count

    setup = comparison.setup
    width, groups = setup.reference.width, setup.blocks * check_count(images, setup.blocks)
    features = 4 * width if NEED_FEATURES & set(setup.metrics) else 0
    return 2 * (comparison.ranks.size * 8 * groups * width * (width + 1) + images * (features + _RECORD))


def _describe_bytes(count: int) -> str:
    return next((f"{count / size:.1f} {unit}" for unit, size in _UNITS if count >= size), f"{count} bytes")
