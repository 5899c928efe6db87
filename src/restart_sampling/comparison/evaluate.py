"""`evaluate` and `sweep`: plans of one net, compared on the same seeds."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.named_plans import NamedPlan, check_different, read_rows
from restart_sampling.comparison.rows import Outcome, Row
from restart_sampling.comparison.run import Comparison
from restart_sampling.evaluation.results_file import RESULTS
from restart_sampling.evaluation.setup import EvaluationSetup, open_setup
from restart_sampling.generation.generate import classes_of_seeds
from restart_sampling.generation.net_drawing import NetDrawing, check_channels
from restart_sampling.generation.pace import BLOCK, own_pace
from restart_sampling.generation.seeds import as_integers, format_seeds
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import levels_of, require_net
from restart_sampling.sampling.plan import Plan, as_plan

_OPTIONS = ("classes", "guidance", "noise", "exact", "shape")  # of `NetDrawing`

Draw = Callable[[Plan], NetDrawing]
"""Makes the drawing of a plan."""


def plan_rows(plans: Sequence[NamedPlan], draw: Draw, seeds: Sequence[int], seeds_text: str, model: str) -> list[Row]:
    """Makes rows of plans of one net.

    Args:
        plans: with different names.
        draw: makes the drawing of a plan.
        seeds: of the images of each row.
        seeds_text: the same as the user wrote them.
        model: the net as the user names it.

    Raises:
        InputError: a plan does not fit the net; of several, the message names it. Or there is none, or two are alike,
            or their guidance scales differ.
    """
    if not plans:
        raise InputError("there are no plans; give at least one, such as '18 [3,2,0.06,0.30]'")

    def row(named: NamedPlan) -> Row:
        try:
            drawing = draw(named.plan)
            check_channels(drawing)
            named.check_nfe(drawing.nfe)
        except InputError as error:
            raise InputError(f"row '{named.name}': {error}" if len(plans) > 1 else str(error)) from None
        net = drawing.net
        about = {
            "run": {**drawing.about, "seeds": seeds_text},
            "name": named.name,
            "family": named.family,
            "model": model,
            "plan": str(named.plan),
            "nfe": drawing.nfe,
            "network_evaluations": drawing.network_evaluations,
            "sigma_min": net.sigma_min,
            "sigma_max": net.sigma_max if isfinite(net.sigma_max) else None,
            "published_fid": named.published,
        }
        return Row(named.name, about, drawing, seeds)

    rows = [row(named) for named in plans]
    scales = dict.fromkeys(row.about["run"]["guidance"] for row in rows)
    if len(scales) > 1:
        raise InputError(
            f"the plans are drawn at guidance {' and '.join(f'{scale:g}' for scale in scales)}; compare plans of one "
            f"scale, and write those of another into results of their own"
        )
    levels = levels_of(net_drawings(rows)[0].net)
    check_different(plans, lambda plan: plan.effect(levels))
    return rows


def guidance_notes(rows: Sequence[Row]) -> list[str]:
    """Says what has to be known of the plans of rows with the guidance that they are drawn at, each sentence once."""
    return [*dict.fromkeys(each.note for each in net_drawings(rows) if each.note)]


def net_drawings(rows: Sequence[Row]) -> list[NetDrawing]:
    """Lists the drawings of rows that are drawn."""
    return [row.drawing for row in rows if isinstance(row.drawing, NetDrawing)]


def evaluate(
    net: Net,
    plans: Plan | str | Sequence[Plan | str],
    *,
    reference: str | Path,
    seeds: Sequence[int],
    detector: str = "inception",
    trust_detector: bool | str = False,
    metrics: Sequence[str] = ("fd",),
    blocks: int = 1,
    results: str | Path | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Measures the images of plans against a reference, in this process and without writing images.

    Args:
        net: from `load_model`, `from_eps` and the like, of images whose values are -1 to 1, on the device to use.
        plans: one, or several that are compared on the same seeds.
        reference: statistics, as `restart-sampling reference` makes them: a file or an https URL.
        seeds: one for each image.
        detector: "inception", "dinov2-hf", or the path of a TorchScript file; the one of the reference.
        trust_detector: whether a TorchScript file that is not published may be loaded, which can do all that the user
            can; a SHA-256 trusts the file that has it.
        metrics: of fd, kid, pr, fd-infinity and per-class.
        blocks: runs of neighbouring seeds that are measured by themselves.
        results: a file to which a line is added for each plan; a plan whose line is there is not drawn again, and one
            that was interrupted goes on. The net must have an `identity`. None: nothing is kept.
        batch_size: images at a time; default: as many as pay.
        **options: classes, guidance, noise, exact and shape, as of `generate`.

    Returns:
        For each plan what its line holds, such as `frechet_distance` and `frechet_distance_error`.

    Raises:
        InputError: what is given does not fit together (before any work), or a plan failed (after the others).
    """
    require_net(net)
    path = None if results is None else Path(results)
    setup = partial(open_setup, str(reference), detector, metrics, blocks, net.device, trust_detector=trust_detector)
    return _compare(net, _named(plans), setup, seeds, blocks, path, None, batch_size, options)


def sweep(
    net: Net,
    plans: str | Sequence[Plan | str],
    *,
    reference: str | Path,
    out: str | Path,
    images: int = 10_000,
    blocks: int = 2,
    first_seed: int = 0,
    detector: str = "inception",
    trust_detector: bool | str = False,
    metrics: Sequence[str] = ("fd",),
    batch_size: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Compares many plans of a net on the same seeds, in this process; a later call goes on where one was interrupted.

    Args:
        net: as of `evaluate`; it must have an `identity`.
        plans: several, or the name of a file or a pattern of presets, as the command `sweep` takes it.
        reference: as of `evaluate`.
        out: a folder for the results file and the first images of each row, from which `report` makes a page.
        images: seeds of each block.
        blocks: of seeds, each measured by itself.
        first_seed: the others follow; `tune` uses those from 0 up, so for plans that it found give one far above.
        detector, trust_detector, metrics, batch_size: as of `evaluate`.
        **options: classes, guidance, noise, exact and shape, as of `generate`.

    Returns:
        As `evaluate`.

    Raises:
        InputError: as of `evaluate`.
    """
    require_net(net)
    named = read_rows(plans) if isinstance(plans, str) else _named(plans)
    first = whole_number("first_seed", first_seed)
    seeds = range(first, first + whole_number("images", images) * whole_number("blocks", blocks))
    folder = Path(out)
    setup = partial(open_setup, str(reference), detector, metrics, blocks, net.device, trust_detector=trust_detector)
    return _compare(net, named, setup, seeds, blocks, folder / RESULTS, folder, batch_size, options)


def finished(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Lists the lines of rows that were all measured.

    Raises:
        InputError: one failed.
    """
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed and len(outcomes) > 1:
        raise InputError("; ".join(f"row '{each.row.name}' failed: {each.error}" for each in failed))
    if failed:
        raise InputError(failed[0].error)
    return [outcome.result for outcome in outcomes if outcome.result is not None]


def _named(plans: Plan | str | Sequence[Plan | str]) -> list[NamedPlan]:
    several = plans if isinstance(plans, Iterable) and not isinstance(plans, str) else [plans]
    return [NamedPlan.of(as_plan(plan)) for plan in several]


def _compare(
    net: Net,
    named: Sequence[NamedPlan],
    setup: Callable[[], EvaluationSetup],
    seeds: Sequence[int],
    blocks: int,
    results: Path | None,
    folder: Path | None,
    batch_size: int | None,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    if whole_number("blocks", blocks) < 1:
        raise InputError(f"there are {blocks} blocks; give at least 1")
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: no such option; there are {', '.join(_OPTIONS)}")
    seeds = as_integers(seeds)
    options = {**options, "classes": classes_of_seeds(options.get("classes"), seeds)}

    pace = own_pace(batch_size, options.get("exact", False))

    def draw(plan: Plan) -> NetDrawing:
        return NetDrawing(net, plan, batch=batch_size, pace=pace, **options)

    rows = plan_rows(named, draw, seeds, format_seeds(seeds), "own")
    for note in guidance_notes(rows):
        warnings.warn(note, stacklevel=3)
    comparison = Comparison(setup(), Ranks(0, 1, net.device), batch_size or BLOCK, results, folder)
    with comparison.claimed(rows) as there:
        return finished(comparison.run(rows, there))
