"""`restart-sampling tune`: the plan that suits a model, found and defended with figures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.logbook import open_logbook, require_logbook
from restart_sampling.cli.dry_run import dry_run_option, estimate_tuning, leaving_no_folder, print_estimate
from restart_sampling.cli.options import (
    describe_device,
    detector_option,
    device_option,
    drawn_batch_option,
    json_option,
    log_option,
    pick_device,
    print_json,
    print_settings,
    rank_timeout_option,
    trust_option,
)
from restart_sampling.cli.sampler_options import MODEL_HELP, SamplerOptions, net_options

if TYPE_CHECKING:
    from restart_sampling.generation.drawing import NetDrawing


@click.command()
@click.option("--model", "name", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option(
    "--nfe", "nfe_text", metavar="NFE", help="Evaluations of an image, such as 20 or 10,20,40; with --map, none at all."
)
@click.option("--reference", metavar="NPZ", help="Statistics that plans are judged by: a file or an https URL.")
@detector_option
@trust_option
@click.option(
    "--confirm-detector",
    "confirm_detectors",
    multiple=True,
    help="Another detector, which the search never sees; may be repeated, each with a --confirm-reference.",
)
@click.option("--confirm-reference", "confirm_references", multiple=True, metavar="NPZ", help="Its reference.")
@click.option("--without-reference", is_flag=True, help="Tune the grid and the solver only, by a fine ODE.")
@click.option("--map", "with_map", is_flag=True, help="First the map of the model: one restart at each pair of levels.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="True images (and classes), for the drift of the ODE in the map.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@click.option("--minutes", default=10.0, show_default=True, help="For each NFE, with all stages.")
@click.option("--trials", type=click.IntRange(1), help="At most so many plans are searched for each NFE.")
@click.option("--images", default=1000, show_default=True, help="Of a trial; twice as many more for a good one.")
@click.option("--race-images", "race", default=10_000, show_default=True, help="Of each plan of the race.")
@click.option(
    "--confirm-images",
    "confirm",
    default=10_000,
    show_default=True,
    help="Of each of the three blocks of the confirmation.",
)
@click.option(
    "--search",
    "sampler",
    default="tpe",
    show_default=True,
    type=click.Choice(["tpe", "cma-es", "random"]),
    help="Who suggests plans; random is for comparison.",
)
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="Another one is another search.")
@click.option("--no-rises", is_flag=True, help="Without restarts and other noise, for comparison.")
@net_options
@log_option
@drawn_batch_option
@device_option
@rank_timeout_option
@dry_run_option
@json_option
def tune(
    name: str,
    nfe_text: str | None,
    reference: str | None,
    detector_name: str,
    trust: bool | str,
    confirm_detectors: tuple[str, ...],
    confirm_references: tuple[str, ...],
    without_reference: bool,
    with_map: bool,
    data: Path | None,
    out: Path,
    minutes: float,
    trials: int | None,
    images: int,
    race: int,
    confirm: int,
    sampler: str,
    start: int,
    no_rises: bool,
    asked: SamplerOptions,
    log_kind: str | None,
    batch: int | None,
    device: str,
    rank_timeout: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find the plan that suits a model: usual plans, search, race, and a confirmation on seeds that nothing used.

    The same command goes on after an interruption; also under torchrun. OUT/plan-20.json is then a plan.

    \b
      restart-sampling tune --model cifar10-small --reference cifar10-32x32.npz --nfe 10,20,40 --out tuned
      restart-sampling generate --model cifar10-small --plan tuned/plan-20.json --seeds 0-63 --out images
      restart-sampling report tuned --out tuned.html
    """
    require_extra("optuna", "tune")
    require_logbook(log_kind)
    if nfe_text is None and not with_map:
        raise InputError("--nfe is missing: the evaluations of an image, such as 20 or 10,20,40")
    nfes = [] if nfe_text is None else _numbers(nfe_text)
    if without_reference == (reference is not None):
        raise InputError(
            "give either --reference, by which plans are judged, or --without-reference, for the grid only"
        )
    if dry_run and (without_reference or minutes == inf):
        given = "--without-reference" if without_reference else f"--minutes {minutes}"
        raise InputError(f"--dry-run is for a search of so many minutes, and this has {given}; leave one of them out")
    if data and not with_map:
        raise InputError("--data is for the map; give --map too, or leave it out")
    if with_map and without_reference:
        raise InputError("--map needs --reference, by which restarts are judged")
    if len(confirm_detectors) != len(confirm_references):
        raise InputError(
            f"--confirm-detector is given {len(confirm_detectors)} times and --confirm-reference "
            f"{len(confirm_references)} times; give a reference for each detector"
        )
    chip = pick_device(device)

    from restart_sampling.base.lock import lock_in, locked
    from restart_sampling.base.ranks import distributed
    from restart_sampling.evaluation.setup import open_setup
    from restart_sampling.generation.drawing import check_channels, check_identity
    from restart_sampling.images.image_set import read_images
    from restart_sampling.sampling.plan import Plan
    from restart_sampling.tuning.objective import Distance, by_name
    from restart_sampling.tuning.restart_map import BASE, Marginals
    from restart_sampling.tuning.run import Run
    from restart_sampling.tuning.settings import Settings
    from restart_sampling.tuning.space import LEAST_NFE
    from restart_sampling.tuning.tune import begin_drawing

    settings = Settings(minutes, trials, images, race, confirm, sampler, start, not no_rises)
    batch = None if batch is None else settings.even(batch)
    pairs = [(detector_name, reference), *zip(confirm_detectors, confirm_references, strict=True)]
    with distributed(chip, rank_timeout) as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            setups = [
                open_setup(each, detector, ("fd",), 1, ranks.device, trust_detector=trust)
                for detector, each in pairs
                if each is not None
            ]
            model = asked.load(name, ranks.device, batch, ranks.first)

            def draw(text: str) -> NetDrawing:
                return model.drawing(Plan.parse(text))

            first = draw(f"{LEAST_NFE} solver=euler")
            check_identity(first.about)
            check_channels(first)
            objective = Distance(draw, by_name(setups))
            say = partial(click.echo, err=True) if ranks.first else _say_nothing
            marginals = None
            if data:
                true = read_images(data)

                def draw_classes(classes: Mapping[int, int] | None) -> NetDrawing:
                    options = {**model.options, **({"classes": classes} if getattr(model.net, "label_dim", 0) else {})}
                    return replace(model, options=options).drawing(Plan.parse(BASE))

                marginals = Marginals(draw_classes, setups[0], true, 3 * settings.images)
            run = Run(model.net, name, objective, settings, ranks, out, begin_drawing(draw), first.batch, say)
            if dry_run:
                held.enter_context(leaving_no_folder(out))
                run.check(nfes)
            elif ranks.first:
                held.enter_context(locked(lock_in(out), str(out)))
                run.begin_folder(nfes)
        speed = model.settle(first, ranks, seconds=60 * minutes * max(1, len(nfes)), dry_run=dry_run)
        if ranks.first:
            notes = [setup.note for setup in setups if setup.note]
            print_settings(
                {
                    "model": f"{model.description}, network in {first.about['arithmetic']}",
                    "NFE": ", ".join(map(str, nfes)) or "none: the map only",
                    "judged by": ", ".join(objective.setups) or "a fine ODE: the grid only",
                    "time": f"{minutes:g} minutes for each NFE" + (f", at most {trials} trials" if trials else ""),
                    "device": f"{ranks.size} x {describe_device(ranks.device)}",
                    **speed,
                    "out": out,
                    **({"note": notes[0]} if notes else {}),
                }
            )
        if dry_run:
            estimate = estimate_tuning(run, first, setups, nfes, with_map)
            if ranks.first:
                print_estimate(out, estimate, as_json)
            return
        if with_map:
            run.map(marginals)
        if without_reference:
            found = {nfe: run.tune_grid(nfe) for nfe in nfes}
        else:
            grids = run.grids(nfes or [LEAST_NFE])
            kind = log_kind if ranks.first else None
            with open_logbook(kind, out, "plans", {**run.about, "nfe": nfes}) as log:
                found = {nfe: replace(run, log=log).tune(nfe, grids) for nfe in nfes}
        if ranks.first:
            for nfe, content in found.items():
                click.echo(f"{out / f'plan-{nfe}.json'}: {content['plan']}", err=as_json)
            if as_json:
                print_json({"plans": {str(nfe): content for nfe, content in found.items()}})


def _say_nothing(text: str) -> None:
    pass


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"--nfe {text}: give different whole numbers with commas between, such as 10,20,40")
    return numbers
