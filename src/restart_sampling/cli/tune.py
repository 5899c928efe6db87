"""`restart-sampling tune`: the plan that suits a model, found and defended with figures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.logbook import open_logbook
from restart_sampling.base.machine import describe_device
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_tuning, print_estimate
from restart_sampling.cli.options import (
    ProcessOptions,
    detector_option,
    drawn_batch_option,
    given,
    json_option,
    print_settings,
    process_options,
    read_list,
)
from restart_sampling.cli.sampler_options import MODEL_HELP, SamplerOptions, net_options
from restart_sampling.cli.tune_options import SearchOptions, read_nfes, search_options, told_by
from restart_sampling.tuning.allowed import LEAST_NFE

if TYPE_CHECKING:
    from restart_sampling.generation.net_drawing import NetDrawing

_JUDGED = {"detector_name", "solvers", "from_scratch", "tune_guidance", "with_map", "data"}
_JUDGED |= {each.name for each in fields(SearchOptions)} - {"out", "minutes"}
"""What does nothing where only the grid is tuned, which takes all the time that it is given."""


@click.command(cls=Command)
@click.option("--model", "name", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--nfe",
    "nfe_text",
    metavar="NFE",
    help=f"Evaluations of an image, at least {LEAST_NFE}, such as 20 or 10,20,40; with --map, none at all.",
)
@click.option("--reference", metavar="NPZ", help="Statistics that plans are judged by: a file or an https URL.")
@detector_option
@search_options
@click.option(
    "--solvers", metavar="NAMES", help="Only these, such as heun or heun,unipc; default: all that are searched."
)
@click.option(
    "--from-scratch",
    is_flag=True,
    help="Do not begin with the plans that were found for the bundled models, for comparison.",
)
@click.option(
    "--tune-guidance",
    is_flag=True,
    help="Search the guidance scale too, around --guidance; the plan's file has the one that goes with the plan.",
)
@click.option("--without-reference", is_flag=True, help="Tune the grid and the solver only, by a fine ODE.")
@click.option("--map", "with_map", is_flag=True, help="First the map of the model: one restart at each pair of levels.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="True images (and classes), for the drift of the ODE in the map.",
)
@net_options
@drawn_batch_option
@process_options
@dry_run_option
@json_option
def tune(
    name: str,
    nfe_text: str | None,
    reference: str | None,
    detector_name: str,
    search: SearchOptions,
    solvers: str | None,
    from_scratch: bool,
    tune_guidance: bool,
    without_reference: bool,
    with_map: bool,
    data: Path | None,
    asked: SamplerOptions,
    batch: int | None,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find the plan that suits a model.

    It takes usual plans, a search, a polish of the best plans' numbers, a race, and a confirmation on seeds that
    nothing used. The same command goes on after an interruption; also under torchrun. OUT/plan-20.json is then a plan.
    For text-to-image pipelines there is text tune.

    \b
      restart-sampling tune --model cifar10-small --reference cifar10-32x32.npz --nfe 10,20,40 --out tuned
      restart-sampling generate --model cifar10-small --plan tuned/plan-20.json --seeds 0-63 --out images
      restart-sampling report tuned --out tuned.html
    """
    search.check(dry_run)
    if nfe_text is None and not with_map:
        raise InputError("--nfe is missing: the evaluations of an image, such as 20 or 10,20,40")
    nfes = [] if nfe_text is None else read_nfes(nfe_text)
    if without_reference == (reference is not None):
        raise InputError(
            "give either --reference, by which plans are judged, or --without-reference, for the grid only"
        )
    if without_reference and (option := given(_JUDGED)):
        raise InputError(f"{option} needs --reference, by which plans are judged; leave it out, or give that")
    if dry_run and without_reference:
        raise InputError(
            "--dry-run is for a search of so many minutes, and this has --without-reference; leave one of them out"
        )
    if data and not with_map:
        raise InputError("--data is for the map; give --map too, or leave it out")

    from restart_sampling.generation.net_drawing import check_channels, check_identity
    from restart_sampling.images.image_set import read_images
    from restart_sampling.sampling.net_plan import image_traits
    from restart_sampling.sampling.plan import Plan
    from restart_sampling.tuning.distance import Distance, by_name
    from restart_sampling.tuning.net_run import NetRun
    from restart_sampling.tuning.restart_map import BASE, Marginals, count_map_evaluations
    from restart_sampling.tuning.tune import begin_drawing, of_all

    only = None if solvers is None else read_list(str.strip, solvers)
    settings = replace(search.settings(), solvers=only, known=not from_scratch, tune_guidance=tune_guidance)
    out = search.out
    batch = None if batch is None else settings.even(batch)
    with processes.ranks() as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            setups = search.setups(detector_name, reference, ranks.device)
            model = asked.load(name, ranks.device, batch, ranks.first)

            def draw(text: str) -> NetDrawing:
                plan = Plan.parse_found(text)
                own = {} if plan.guidance is None else {"guidance": plan.guidance}
                return replace(model, options={**model.options, **own}).drawing(plan)

            first = draw(f"{LEAST_NFE} solver=euler")
            check_identity(first.about)
            check_channels(first)
            objective = Distance(draw, by_name(setups, first.shape), images=of_all(first))
            marginals = None
            if data:
                true = read_images(data)

                def draw_classes(classes: Mapping[int, int] | None) -> NetDrawing:
                    options = {**model.options, **({"classes": classes} if image_traits(model.net).label_dim else {})}
                    return replace(model, options=options).drawing(Plan.parse(BASE))

                marginals = Marginals(draw_classes, setups[0], true, 3 * settings.images)
            run = NetRun(
                model=name,
                identity=model.net.identity,
                objective=objective,
                settings=settings,
                ranks=ranks,
                folder=out,
                tell=told_by(ranks),
                net=model.net,
                begin=begin_drawing(first),
                batch=first.batch,
                guidance=first.guidance,
            )
            spaces = [run.space(nfe) for nfe in nfes]
            if ranks.first:
                held.enter_context(search.begun(run, spaces, dry_run))
        seconds = 60 * settings.minutes * max(1, len(nfes))
        speed = model.settle(first, ranks, seconds=seconds, dry_run=dry_run)
        if ranks.first:
            notes = [setup.note for setup in setups if setup.note]
            if tune_guidance and all(each.reference.labels is None for each in setups):
                notes.append(
                    "no reference here has features with classes ('reference --features'), by which images are seen "
                    "not to fit their class"
                )
            print_settings(
                {
                    "model": f"{model.description}, network in {first.about['arithmetic']}",
                    "NFE": ", ".join(map(str, nfes)) or "none: the map only",
                    **({"guidance": f"{first.guidance:g}, and searched around it"} if tune_guidance else {}),
                    "judged by": ", ".join(objective.setups) or "a fine ODE: the grid only",
                    "time": search.time,
                    "device": f"{ranks.size} x {describe_device(ranks.device)}",
                    **speed,
                    "out": out,
                    **({"note": "; ".join(notes)} if notes else {}),
                }
            )
        if dry_run:
            of_map = count_map_evaluations(model.net, settings.seeds[1].stop) if with_map else 0
            print_estimate(out, estimate_tuning(run, first, setups, spaces, of_map), as_json, shown=ranks.first)
            return
        if with_map:
            run.map(marginals)
        if without_reference:
            found = {nfe: run.tune_grid(nfe) for nfe in nfes}
        else:
            grids = run.grids(nfes or [LEAST_NFE])
            kind = search.log_kind if ranks.first else None
            with open_logbook(kind, out, "plans", {**run.about, "nfe": nfes}) as log:
                found = {nfe: replace(run, log=log).tune_plan(nfe, grids) for nfe in nfes}
        if ranks.first:
            search.print_found(found, as_json)
