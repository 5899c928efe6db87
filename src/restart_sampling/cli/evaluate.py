"""`restart-sampling evaluate`: figures of images, or of a sampler without writing its images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import (
    Progress,
    batch_option,
    describe_device,
    device_option,
    json_option,
    pick_device,
    pick_plan,
    print_json,
    print_settings,
)
from restart_sampling.cli.reference import DETECTOR_HELP
from restart_sampling.cli.sampler import Asked, read_source, sampler_options, versions

if TYPE_CHECKING:
    from restart_sampling.base.ranks import Ranks
    from restart_sampling.evaluation.measure import Batches
    from restart_sampling.sampling.plan import Plan

_COLUMNS = {
    "frechet_distance": "Fréchet distance",
    "frechet_distance_min": "minimum",
    "frechet_distance_infinity": "at infinity",
    "kernel_distance": "KID",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Job:
    """One figure to make.

    Attributes:
        label: for the user.
        about: what defines it, for the results file.
        images: how many.
        batches: this process's share of the images whose places are not done.
    """

    label: str
    about: dict[str, Any]
    images: int
    batches: Callable[[frozenset[int]], Batches]

    @property
    def streamed(self) -> bool:
        """Whether the images are a sampler's, and cost enough for their sums to be saved on the way."""
        return self.about["model"] is not None


@click.command()
@click.argument("sources", nargs=-1, metavar="[IMAGES]...", type=click.Path(path_type=Path))
@click.option("--reference", "reference_name", required=True, metavar="NPZ", help="Statistics: a file or an https URL.")
@click.option("--detector", "detector_name", default="inception", show_default=True, help=DETECTOR_HELP)
@click.option(
    "--metrics",
    "metrics_text",
    default="fd",
    show_default=True,
    help="With commas between: fd, kid, pr (precision and recall), fd-infinity, per-class.",
)
@click.option(
    "--blocks",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Cut the images into so many blocks, each a figure; 3 blocks of 50,000 seeds are the paper's protocol.",
)
@click.option("--max-images", type=click.IntRange(2), help="Use so many of IMAGES, drawn as EDM does; default: all.")
@click.option("--model", "name", metavar="MODEL", help="Evaluate a sampler of this model instead of IMAGES.")
@click.option("--plan", "plan_texts", multiple=True, metavar="PLAN", help="May be repeated: differences are paired.")
@click.option("--seeds", "seeds_text", metavar="SEEDS", help="Such as 0-49999.")
@sampler_options
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results.jsonl"),
    show_default=True,
    help="A line is added for each figure.",
)
@batch_option
@device_option
@json_option
def evaluate(
    sources: tuple[Path, ...],
    reference_name: str,
    detector_name: str,
    metrics_text: str,
    blocks: int,
    max_images: int | None,
    name: str | None,
    plan_texts: tuple[str, ...],
    settings: tuple[str, ...],
    seeds_text: str | None,
    asked: Asked,
    results: Path,
    batch: int,
    device: str,
    as_json: bool,
) -> None:
    """Compare IMAGES (folders, zips, tars), or the images of a sampler, with a reference.

    The figures of a sampler are the work of hours: after an interruption the same command goes on.

    \b
      restart-sampling evaluate images --reference cifar10-32x32.npz
      restart-sampling evaluate --model cifar10-small --plan 22 --plan "18 [3,2,1.09,3.2]" \\
          --seeds 0-49999 --reference cifar10-32x32.npz
    """
    if bool(sources) == (name is not None):
        raise InputError("give either IMAGES, or --model with --seeds")
    if name is not None and seeds_text is None:
        raise InputError("--seeds is missing: which images of the model to evaluate, such as 0-49999")
    plans = [] if name is None else [pick_plan(text, settings, name) for text in plan_texts or (None,)]
    for plan in plans:
        plan.path()  # what can be wrong with it without the model comes before any work
    chip = pick_device(device)
    metrics = tuple(metric.strip() for metric in metrics_text.split(","))

    from restart_sampling.base.files import check_writable
    from restart_sampling.base.ranks import distributed
    from restart_sampling.evaluation.measure import measure
    from restart_sampling.evaluation.results import append_result
    from restart_sampling.evaluation.setup import open_setup

    with distributed(chip) as ranks:
        with ranks.one_goes_first():
            setup = open_setup(reference_name, detector_name, metrics, blocks, ranks.device)
            if name is not None and seeds_text is not None:
                jobs = _sampler_jobs(name, plans, seeds_text, asked, batch, ranks)
            else:
                jobs = _image_jobs(sources, max_images, batch, ranks)
            check_writable(results)
        common = {
            **setup.about,
            "device": f"{ranks.size} x {describe_device(ranks.device)}",
            "arithmetic": "float32 without TF32",
            "versions": versions(),
        }
        if ranks.first:
            print_settings(
                {
                    "reference": f"{reference_name} ({setup.reference.statistics.count or 'unknown number of'} images)",
                    "detector": f"{detector_name} ({setup.detector.identity[:32]}), float32 without TF32",
                    "metrics": ", ".join(metrics),
                    "device": common["device"],
                    **({"note": setup.note} if setup.note else {}),
                }
            )
        finished = []
        for job in jobs:
            sums = None
            done: frozenset[int] = frozenset()
            if job.streamed:
                folder = results.with_name(f"{results.name}.partial")
                sums = setup.partial(folder, job.about["run"], batch, common["versions"], ranks.rank)
                done = sums.load(ranks.gather)
            if ranks.first:
                click.echo(f"{job.label}, {job.images} images", err=True)
                if done:
                    click.echo(f"{len(done)} images from an earlier start", err=True)
            with Progress("images", job.images, ranks.first) as advance:
                advance(len(done))
                figures = measure(
                    job.batches(done),
                    job.images,
                    setup.detector,
                    setup.reference,
                    ranks,
                    metrics=metrics,
                    blocks=blocks,
                    partial=sums,
                    advance=lambda count, advance=advance: advance(count * ranks.size),  # type: ignore[misc]
                )
            now = datetime.now(UTC).isoformat(timespec="seconds")
            drawn = {"drawn": job.images - len(done)} if job.streamed else {}
            finished.append({**job.about, **common, **figures, **drawn, "time": now})
            if ranks.first:
                append_result(results, finished[-1])
                if sums:
                    sums.remove()
        if ranks.first:
            if not as_json:
                _report(jobs, finished)
            click.echo(f"results: {results}", err=True)
            if as_json:
                print_json(finished[0] if len(finished) == 1 else {"results": finished})


def _sampler_jobs(
    name: str, plans: Sequence[Plan], seeds_text: str, asked: Asked, batch: int, ranks: Ranks
) -> list[Job]:
    from restart_sampling.generation.generate import level_range, network_evaluations
    from restart_sampling.generation.sampler_batches import sampler_batches
    from restart_sampling.generation.seeds import parse_seeds

    seeds = parse_seeds(seeds_text)
    source = read_source(name, asked, ranks.device)
    model = source.build(ranks.device)

    def job(plan: Plan) -> Job:
        draw = partial(
            sampler_batches,
            model,
            plan,
            seeds,
            ranks,
            batch_size=batch,
            **source.options,
        )
        draw()  # refuses what does not fit the model, and draws nothing yet
        nfe = plan.path(*level_range(model)).nfe(*plan.solvers)
        about = {
            "run": source.run(plan, seeds_text),
            "model": name,
            "plan": str(plan),
            "nfe": nfe,
            "network_evaluations": network_evaluations(nfe, asked.guidance),
        }
        return Job(f"{plan} on {name}: NFE {nfe}", about, len(seeds), lambda done: draw(done=done))

    return [job(plan) for plan in plans]


def _image_jobs(sources: tuple[Path, ...], max_images: int | None, batch: int, ranks: Ranks) -> list[Job]:
    from restart_sampling.evaluation.measure import image_batches
    from restart_sampling.images.image_set import read_images

    def job(path: Path) -> Job:
        images = read_images(path, count=max_images)
        about = {"run": {"images": str(path), "max_images": max_images}, "model": None, "plan": None, "nfe": None}
        label = f"{path}" + (" (JPEG or WebP: its losses move the distance)" if images.lossy else "")
        return Job(label, about, len(images), lambda done: image_batches(images, ranks, batch))

    return [job(path) for path in sources]


def _report(jobs: list[Job], finished: list[dict[str, Any]]) -> None:
    """A table on standard output; of several plans, differences to the first, paired by seed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from restart_sampling.evaluation.metrics import paired_difference

    shown = {key: title for key, title in _COLUMNS.items() if any(key in result for result in finished)}
    paired = len(finished) > 1 and finished[0]["plan"] is not None
    table = Table("what", "images", *shown.values(), *(["paired difference"] if paired else []), "seconds", box=None)
    for job, result in zip(jobs, finished, strict=True):
        cells = [_figure(result, key) for key in shown]
        if paired:
            difference, error = paired_difference(result, finished[0])
            cells.append("" if result is finished[0] else f"{difference:+.4f} +- {error:.4f}")
        table.add_row(escape(job.label), str(result["images"]), *cells, f"{result['seconds']:.1f}")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for result in finished:
        per_class = result.get("frechet_distance_per_class", {})
        errors = result.get("frechet_distance_per_class_error", {})
        if per_class:
            figures = (f"{label}: {value:.4f} +- {errors[label]:.2g}" for label, value in per_class.items())
            click.echo(f"per class: {', '.join(figures)}")


def _figure(result: dict[str, Any], key: str) -> str:
    spread = result.get(f"{key}_error", result.get(f"{key}_std"))
    return f"{result[key]:.6g}" if spread is None else f"{result[key]:.6g} +- {spread:.2g}"
