"""`restart-sampling sweep`: figures of many plans of one model, a line of a results file each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import (
    batch_option,
    describe_device,
    device_option,
    json_option,
    pick_device,
    print_json,
    print_settings,
)
from restart_sampling.cli.reference import DETECTOR_HELP
from restart_sampling.cli.rows import Finished, distance, measure_missing, print_failures
from restart_sampling.cli.sampler import Asked, Source, read_source, sampler_options, versions

if TYPE_CHECKING:
    from restart_sampling.comparison.rows import Row
    from restart_sampling.comparison.sweep import Job, Sweep

PAPER = ("cifar10-vp", "cifar10-edm", "cifar10-pfgmpp", "imagenet64")


@click.command()
@click.option("--model", "name", required=True, metavar="MODEL", help="A bundled or published name, URL or file.")
@click.option(
    "--plans",
    "plan_sources",
    multiple=True,
    metavar="FILE|PRESETS",
    help="A plan a line, .csv, .toml, or presets such as 'cifar10-vp-*'; may be repeated.",
)
@click.option("--paper", type=click.Choice(PAPER), help="The rows of the paper's tables, with its FID beside ours.")
@click.option("--reference", "reference_name", required=True, metavar="NPZ", help="Statistics: a file or an https URL.")
@click.option("--detector", "detector_name", default="inception", show_default=True, help=DETECTOR_HELP)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(2), help="Seeds of each block.")
@click.option("--blocks", default=2, show_default=True, type=click.IntRange(1), help="Blocks of seeds, a figure each.")
@click.option(
    "--metrics",
    "metrics_text",
    default="fd",
    show_default=True,
    help="With commas between: fd, kid, pr (precision and recall), fd-infinity, per-class.",
)
@sampler_options
@batch_option
@device_option
@json_option
def sweep(
    name: str,
    plan_sources: tuple[str, ...],
    paper: str | None,
    reference_name: str,
    detector_name: str,
    out: Path,
    images: int,
    blocks: int,
    metrics_text: str,
    settings: tuple[str, ...],
    asked: Asked,
    batch: int,
    device: str,
    as_json: bool,
) -> int:
    """Compare many plans of a model on the same seeds. The same command goes on after an interruption.

    \b
      restart-sampling sweep --model cifar10-small --plans plans.txt --reference cifar10-32x32.npz --out sweep
      restart-sampling sweep --model baseline-cifar10-32x32-uncond-vp --paper cifar10-vp \\
          --reference cifar10-32x32.npz --images 50000 --blocks 3 --out paper
    """
    rows = _rows(plan_sources, paper, settings)
    chip = pick_device(device)

    from restart_sampling.base.files import check_writable
    from restart_sampling.base.ranks import distributed
    from restart_sampling.comparison.sweep import Sweep
    from restart_sampling.evaluation.metrics import GROUPS
    from restart_sampling.evaluation.setup import open_setup

    if blocks == 1 and images < 2 * GROUPS:
        raise InputError(f"--images {images} is too few for a spread from one block; give at least {2 * GROUPS}")
    with distributed(chip) as ranks:
        with ranks.one_goes_first():
            source = read_source(name, asked, ranks.device)
            model = source.build(ranks.device)
            metrics = [metric.strip() for metric in metrics_text.split(",")]
            setup = open_setup(reference_name, detector_name, metrics, blocks, ranks.device)
            made = Sweep(out, model, setup, images * blocks, batch, versions(), replace(ranks, forgiving=True))
            jobs = _jobs(made, rows, source)
            check_writable(made.results)
            finished = made.take_up(jobs) if ranks.first else {}
        finished = ranks.gather(finished)[0]
        if ranks.first:
            there = sum(job.key in finished for job in jobs)
            print_settings(
                {
                    "model": f"{source.describe()}, network in {source.arithmetic}",
                    "rows": f"{len(jobs)}, NFE {sum(job.nfe for job in jobs)} in all"
                    + f"; {there} are there" * (there > 0),
                    "images": f"{blocks} x {images} of each row, the same seeds",
                    "reference": f"{reference_name} ({setup.reference.statistics.count or 'unknown number of'} images)",
                    "detector": f"{detector_name} ({setup.detector.identity[:32]}), float32 without TF32",
                    "metrics": ", ".join(metrics),
                    "device": f"{ranks.size} x {describe_device(ranks.device)}",
                    **({"note": setup.note} if setup.note else {}),
                }
            )
        failed = measure_missing(jobs, finished, made.measure, images * blocks, ranks.first)
        if ranks.first:
            if as_json:
                print_json({"results": [finished[job.key] for job in jobs if job.key in finished]})
            else:
                _print_table(jobs, finished)
            _print_end(made.results, jobs, failed, paper)
    return 1 if failed else 0


def _rows(sources: Sequence[str], paper: str | None, settings: Sequence[str]) -> list[Row]:
    """All rows, with the settings over their plans. What can be wrong without the model comes first."""
    from restart_sampling.comparison.published import paper_rows
    from restart_sampling.comparison.rows import check_different, read_rows

    if not (sources or paper):
        raise InputError("--plans is missing: which plans to compare; or give --paper for the rows of the paper")
    rows = [row for source in sources for row in read_rows(source)] + (paper_rows(paper) if paper else [])
    rows = [replace(row, plan=row.plan.set(*settings)) for row in rows]
    check_different(rows)
    return rows


def _jobs(made: Sweep, rows: Sequence[Row], source: Source) -> list[Job]:
    from restart_sampling.comparison.sweep import Job
    from restart_sampling.generation.generate import level_range, network_evaluations
    from restart_sampling.generation.sampler_batches import sampler_batches

    model, asked = made.model, source.asked

    def job(row: Row) -> Job:
        draw = partial(
            sampler_batches,
            model,
            row.plan,
            range(made.images),
            made.ranks,
            batch_size=made.batch,
            **source.options,
        )
        try:
            draw()  # refuses what does not fit the model, and draws nothing yet
        except InputError as error:
            raise InputError(f"row '{row.name}': {error}") from None
        nfe = row.plan.path(*level_range(model)).nfe(*row.plan.solvers)
        about = {
            "run": source.run(row.plan, f"0-{made.images - 1}"),
            "name": row.name,
            "family": row.family,
            "model": source.name,
            "plan": str(row.plan),
            "nfe": nfe,
            "network_evaluations": network_evaluations(nfe, asked.guidance),
            "sigma_min": model.sigma_min,
            "sigma_max": model.sigma_max if isfinite(model.sigma_max) else None,
            "published_fid": row.published,
            **made.setup.about,
            "device": f"{made.ranks.size} x {describe_device(made.ranks.device)}",
            "versions": made.versions,
        }
        return Job(row, about, lambda done: draw(done=done))

    return [job(row) for row in rows]


def _print_table(jobs: Sequence[Job], finished: Finished) -> None:
    """On standard output: every row, its figures and its difference to the first row, paired by seed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    columns: dict[str, Callable[[Job, dict[str, Any] | None], str]] = {
        "row": lambda job, _: escape(job.row.name),
        "plan": lambda job, _: escape(str(job.row.plan)),
        "family": lambda job, _: job.row.family,
        "NFE": lambda job, _: str(job.nfe),
        "Fréchet distance": lambda _, result: distance(result) if result else "failed",
        "minimum": lambda _, result: f"{result['frechet_distance_min']:.6g}" if result else "",
        "published FID": lambda job, _: "" if job.row.published is None else f"{job.row.published:.2f}",
        "paired difference to the first": lambda _, result: _difference(result, finished.get(jobs[0].key)),
        "seconds": lambda _, result: f"{result['seconds']:.1f}" if result else "",
    }
    if jobs[0].about["blocks"] == 1:
        del columns["minimum"]
    if all(job.row.name == str(job.row.plan) for job in jobs):
        del columns["plan"]
    if all(job.row.published is None for job in jobs):
        del columns["published FID"]
    table = Table(*columns, box=None, pad_edge=False)
    for job in jobs:
        table.add_row(*(cell(job, finished.get(job.key)) for cell in columns.values()))
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _difference(result: dict[str, Any] | None, base: dict[str, Any] | None) -> str:
    from restart_sampling.evaluation.metrics import paired_difference

    if result is None or base is None or result is base:
        return ""
    return "{:+.4f} +- {:.4f}".format(*paired_difference(result, base))


def _print_end(results: Path, jobs: Sequence[Job], failed: dict[str, str], paper: str | None) -> None:
    from restart_sampling.comparison.published import CHECKPOINTS, NOTES

    if paper:
        click.echo(f"published FIDs are those of {CHECKPOINTS[paper]}, with Inception; notes on them:", err=True)
        for note in NOTES[paper]:
            click.echo(f"  - {note}", err=True)
    print_failures(jobs, failed)
    click.echo(f"results: {results}", err=True)
