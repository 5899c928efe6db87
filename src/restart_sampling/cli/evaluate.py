"""`restart-sampling evaluate`: images measured, or those of a sampler without writing them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.numbers import with_error
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_rows, print_estimate
from restart_sampling.cli.options import (
    ProcessOptions,
    describe_source,
    drawn_batch_option,
    given,
    json_option,
    print_json,
    print_settings,
    process_options,
)
from restart_sampling.cli.row_options import (
    SetupOptions,
    describe_row,
    describe_setup,
    looked_up,
    metric_columns,
    paired,
    print_new_notes,
    print_notes,
    print_rows,
    setup_options,
    watching,
)
from restart_sampling.cli.sampler_options import SamplerOptions, idle_notes, pick_plan, preset_notes, sampler_options

if TYPE_CHECKING:
    from restart_sampling.comparison.rows import Outcome, Row

_FOR_MODEL = {"plan_texts", "settings", "seeds_text", "dry_run", *(each.name for each in fields(SamplerOptions))}
_FOR_IMAGES = {"max_images"}


@click.command(cls=Command)
@click.argument("sources", nargs=-1, metavar="[IMAGES]...", type=click.Path(path_type=Path))
@click.option(
    "--blocks",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Cut the images into so many blocks, each measured by itself; 3 blocks of 50,000 seeds are the paper's way.",
)
@click.option("--max-images", type=click.IntRange(2), help="Use so many of IMAGES, drawn as EDM does; default: all.")
@click.option("--model", "name", metavar="MODEL", help="Evaluate a sampler of this model instead of IMAGES.")
@click.option("--plan", "plan_texts", multiple=True, metavar="PLAN", help="May be repeated: differences are paired.")
@click.option("--seeds", "seeds_text", metavar="SEEDS", help="Such as 0-49999.")
@setup_options
@sampler_options
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results.jsonl"),
    show_default=True,
    help="A line is added for each set of images, and for each plan whose line is not there yet.",
)
@drawn_batch_option
@process_options
@dry_run_option
@json_option
def evaluate(
    sources: tuple[Path, ...],
    measures: SetupOptions,
    blocks: int,
    max_images: int | None,
    name: str | None,
    plan_texts: tuple[str, ...],
    settings: tuple[str, ...],
    seeds_text: str | None,
    asked: SamplerOptions,
    results: Path,
    batch: int | None,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compare IMAGES, or those of a sampler, with a reference.

    IMAGES are folders, zips and tars. The images of a sampler are the work of hours: after an interruption the same
    command goes on.

    \b
      restart-sampling evaluate images --reference cifar10-32x32.npz
      restart-sampling evaluate --model cifar10-small --plan 22 --plan "18 [3,2,1.09,3.2]" \\
          --seeds 0-49999 --reference cifar10-32x32.npz
    """
    if bool(sources) == (name is not None):
        raise InputError("give either IMAGES, or --model with --seeds")
    if option := given(_FOR_MODEL if sources else _FOR_IMAGES):
        used, other = ("--model, whose images are drawn", "IMAGES") if sources else ("IMAGES", "--model")
        raise InputError(f"{option} is for {used}; leave it out for {other}")
    if name is not None and seeds_text is None:
        raise InputError("--seeds is missing: which images of the model to evaluate, such as 0-49999")
    plans = [] if name is None else [pick_plan(text, settings, name) for text in plan_texts or (None,)]

    from restart_sampling.comparison.evaluate import finished, guidance_notes, net_drawings, plan_rows
    from restart_sampling.comparison.named_plans import NamedPlan
    from restart_sampling.comparison.run import Comparison
    from restart_sampling.evaluation.class_pairs import check_labels
    from restart_sampling.generation.pace import BLOCK
    from restart_sampling.generation.seeds import parse_seeds

    with processes.ranks() as ranks, ExitStack() as held:
        model = None
        with ranks.one_goes_first():
            rows = [_row_of_files(path, max_images) for path in sources]
            if "per-class" in measures.metrics_text:  # before a detector is downloaded
                for row in rows:
                    check_labels(row.labels())
            comparison = Comparison(measures.open(blocks, ranks.device), ranks, batch or BLOCK, results)
            if name is not None and seeds_text is not None:
                seeds = parse_seeds(seeds_text)
                named = list(map(NamedPlan.of, plans))
                model = asked.load(name, ranks.device, batch, ranks.first)
                rows = plan_rows(named, model.drawing, seeds, seeds_text, name)
            there = held.enter_context(looked_up(comparison, rows, results, dry_run)) if ranks.first else {}
        speed = {} if model is None else model.settle_rows(rows, there, ranks, dry_run)
        if ranks.first:
            of_model = {} if model is None else {"model": model.description}
            print_settings({**of_model, **describe_setup(comparison), **speed})
            print_notes({row.name: comparison.notes(row) for row in rows})
            for note in [*preset_notes(plans, name or ""), *idle_notes(net_drawings(rows)), *guidance_notes(rows)]:
                click.echo(f"note: {note}", err=True)
            for row in rows:
                if row.files:
                    print_settings(describe_source(row.files.source))
            for row in rows:
                if row.name in there:
                    click.echo(f"{describe_row(row)}: it is in {results} already", err=True)
        if dry_run:
            print_estimate(results, estimate_rows(rows, there, comparison), as_json, shown=ranks.first)
            return
        with watching(rows, there, ranks.first, announced=True) as watch:
            outcomes = comparison.run(rows, there, watch)
        measured = [each for each in outcomes if each.result]
        if ranks.first and measured:
            if not as_json:
                _print_results(measured)
            print_new_notes(comparison, measured)
            click.echo(f"results: {results.absolute()}", err=True)
        lines = finished(outcomes) if ranks.first else []
        if ranks.first and as_json:
            print_json(lines[0] if len(lines) == 1 else {"results": lines})


def _row_of_files(path: Path, max_images: int | None) -> Row:
    from restart_sampling.comparison.rows import Row
    from restart_sampling.images.image_set import read_images

    images = read_images(path, count=max_images)
    about = {"run": {"images": str(path), "max_images": max_images}, "model": None, "plan": None, "nfe": None}
    name = f"{path}" + (" (JPEG or WebP: its losses move the distance)" if images.lossy else "")
    return Row(name, about, files=images)


def _print_results(outcomes: Sequence[Outcome]) -> None:
    """Prints a table; of several plans, with differences to the first, paired by seed."""
    results = [each.result for each in outcomes if each.result]
    drawn = outcomes[0].row.drawing is not None
    columns = {
        **({"NFE": [str(each.row.cost) for each in outcomes]} if drawn else {}),
        "images": [str(result["images"]) for result in results],
        **metric_columns(outcomes),
        **({"paired difference": paired(outcomes)} if len(outcomes) > 1 and drawn else {}),
        "seconds": [f"{result['seconds']:.1f}" for result in results],
    }
    names = [each.row.name for each in outcomes]
    for what, result in zip(print_rows(names, names, columns), results, strict=True):
        per_class = result.get("frechet_distance_per_class", {})
        errors = result.get("frechet_distance_per_class_error", {})
        if per_class:
            values = (f"{shorten(name, 40)}: {with_error(value, errors[name])}" for name, value in per_class.items())
            click.echo(f"per class, {what}: {', '.join(values)}")
