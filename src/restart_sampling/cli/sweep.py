"""`restart-sampling sweep`: many plans of one model measured, a line of a results file each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.logbook import Logbook, open_logbook, require_logbook
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_rows, print_estimate
from restart_sampling.cli.options import (
    PAPER,
    ProcessOptions,
    drawn_batch_option,
    json_option,
    log_option,
    print_json,
    print_settings,
    process_options,
)
from restart_sampling.cli.row_options import (
    SetupOptions,
    describe_rows,
    describe_setup,
    looked_up,
    metric_columns,
    paired,
    per_result,
    print_end,
    print_notes,
    print_rows,
    setup_options,
    watching,
)
from restart_sampling.cli.sampler_options import MODEL_HELP, SamplerOptions, idle_notes, preset_notes, sampler_options

if TYPE_CHECKING:
    from restart_sampling.comparison.named_plans import NamedPlan
    from restart_sampling.comparison.rows import Outcome


@click.command(cls=Command)
@click.option("--model", "name", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--plans",
    "plan_sources",
    multiple=True,
    metavar="FILE|PRESETS",
    help="A plan a line, .csv, .toml, presets such as 'cifar10-vp-*', or a plan; may be repeated.",
)
@click.option("--paper", type=click.Choice(PAPER), help="The rows of the paper's tables, with its FID beside ours.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(2), help="Seeds of each block.")
@click.option(
    "--blocks", default=2, show_default=True, type=click.IntRange(1), help="Blocks of seeds, each measured by itself."
)
@click.option(
    "--first-seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Of the first block; 'tune' uses those from 0 up, so for plans that it found give one far above, 200000.",
)
@setup_options
@sampler_options
@drawn_batch_option
@process_options
@log_option
@dry_run_option
@json_option
def sweep(
    name: str,
    plan_sources: tuple[str, ...],
    paper: str | None,
    measures: SetupOptions,
    out: Path,
    images: int,
    blocks: int,
    first_seed: int,
    settings: tuple[str, ...],
    asked: SamplerOptions,
    batch: int | None,
    processes: ProcessOptions,
    log_kind: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare many plans of a model on the same seeds. The same command goes on after an interruption.

    \b
      restart-sampling sweep --model cifar10-small --plans plans.txt --reference cifar10-32x32.npz --out sweep
      restart-sampling sweep --model baseline-cifar10-32x32-uncond-vp --paper cifar10-vp \\
          --reference cifar10-32x32.npz --images 50000 --blocks 3 --out paper
    """
    require_logbook(log_kind)
    plans = _plans(plan_sources, paper, settings)

    from restart_sampling.comparison.evaluate import guidance_notes, net_drawings, plan_rows
    from restart_sampling.comparison.named_plans import script_settings
    from restart_sampling.comparison.published import CHECKPOINTS, NOTES
    from restart_sampling.comparison.run import Comparison
    from restart_sampling.evaluation.metrics import check_count
    from restart_sampling.evaluation.results_file import RESULTS
    from restart_sampling.generation.pace import BLOCK

    check_count(images * blocks, blocks)
    with processes.ranks() as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            model = asked.load(name, ranks.device, batch, ranks.first)
            seeds = range(first_seed, first_seed + images * blocks)
            rows = plan_rows(plans, model.drawing, seeds, f"{seeds[0]}-{seeds[-1]}", name)
            comparison = Comparison(measures.open(blocks, ranks.device), ranks, batch or BLOCK, out / RESULTS, out)
            there = held.enter_context(looked_up(comparison, rows, out, dry_run)) if ranks.first else {}
        speed = model.settle_rows(rows, there, ranks, dry_run)
        if ranks.first:
            print_settings(
                {
                    "model": f"{model.description}, network in {rows[0].about['run']['arithmetic']}",
                    **{
                        Path(source).name: f"{passed}, as the original's sweep script passes them; a line's own hold"
                        for source in plan_sources
                        if (passed := script_settings(source))
                    },
                    "rows": describe_rows(rows, f"NFE {sum(row.cost for row in rows)}", there),
                    "images": f"{blocks} x {images} of each row, the same seeds",
                    **describe_setup(comparison),
                    **speed,
                }
            )
            print_notes({row.name: comparison.notes(row) for row in rows})
            of_plans = [
                *preset_notes([each.plan for each in plans], name),
                *idle_notes(net_drawings(rows)),
                *guidance_notes(rows),
            ]
            for note in [*of_plans, *_paper_notes(paper, name, images)]:
                click.echo(f"note: {note}", err=True)
        if dry_run:
            print_estimate(out, estimate_rows(rows, there, comparison), as_json, shown=ranks.first)
            return 0
        kind = log_kind if ranks.first else None
        config = {**rows[0].about["run"], **comparison.about()}
        with (
            open_logbook(kind, out, "nfe", config) as log,
            watching(rows, there, ranks.first, ended=partial(_log_row, log, out)) as watch,
        ):
            outcomes = comparison.run(rows, there, watch)
        if ranks.first:
            if as_json:
                print_json({"results": [each.result for each in outcomes if each.result]})
            else:
                _print_table(plans, outcomes)
            notes = []
            if paper:
                notes = [f"published FIDs are those of {CHECKPOINTS[paper]}, with Inception; notes on them:"]
                notes += [f"  - {note}" for note in NOTES[paper]]
            print_end(comparison, outcomes, notes)
    return 0 if all(each.result for each in outcomes) else 1


def _plans(sources: Sequence[str], paper: str | None, settings: Sequence[str]) -> list[NamedPlan]:
    """Reads all plans, with the settings over them. What can be wrong without the model comes first."""
    from restart_sampling.comparison.named_plans import check_different, read_rows
    from restart_sampling.comparison.published import paper_rows

    if not (sources or paper):
        raise InputError("--plans is missing: which plans to compare; or give --paper for the rows of the paper")
    plans = [plan for source in sources for plan in read_rows(source)] + (paper_rows(paper) if paper else [])
    if settings:  # a plan with others may take another NFE than its row says
        plans = [replace(each, plan=each.plan.set(*settings), nfe=None) for each in plans]
    check_different(plans)
    return plans


def _log_row(log: Logbook, out: Path, outcome: Outcome) -> None:
    """Writes the values of a row, by its family, at its NFE."""
    from PIL import Image

    from restart_sampling.evaluation.results_file import TITLES

    result = outcome.result
    if result is None:
        return
    keys = [key for key in TITLES if key in result]
    log.values(result["nfe"], {f"{key}/{result['family']}": result[key] for key in (*keys, "seconds")})
    with Image.open(out / result["samples"]) as picture:
        log.picture(result["nfe"], f"samples/{outcome.row.name}", picture)


def _paper_notes(paper: str | None, model: str, images: int) -> list[str]:
    """Says what keeps our values from being compared with the published ones; presets speak for themselves."""
    from restart_sampling.comparison.published import CHECKPOINTS, IMAGES
    from restart_sampling.sampling.presets import suits

    if paper is None:
        return []
    notes = []
    if not suits(CHECKPOINTS[paper], model):
        notes.append(f"the published FIDs are those of {CHECKPOINTS[paper]}, and this model is {model}")
    if images < IMAGES:
        notes.append(
            f"the published FIDs are of {IMAGES} images, and a distance of {images} is higher; give --images {IMAGES}"
        )
    return notes


def _print_table(plans: Sequence[NamedPlan], outcomes: Sequence[Outcome]) -> None:
    """Prints every row, its values and its difference to the first row, paired by seed."""
    columns = {
        "family": [plan.family for plan in plans],
        "NFE": [str(each.row.cost) for each in outcomes],
        **metric_columns(outcomes),
        "published FID": ["" if plan.published is None else f"{plan.published:.2f}" for plan in plans],
        "paired difference to the first": paired(outcomes),
        "seconds": per_result(outcomes, lambda result: f"{result['seconds']:.1f}"),
    }
    if not any(columns["published FID"]):
        del columns["published FID"]
    print_rows([plan.name for plan in plans], [plan.plan.with_guidance for plan in plans], columns)
