"""`restart-sampling plan`: what a plan will do, and the presets."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.cli.options import json_option, print_json, set_option

if TYPE_CHECKING:
    from restart_sampling.sampling.presets import Preset


@click.command()
@click.argument("text", metavar="PLAN", required=False)
@set_option
@click.option(
    "--model", "source", metavar="MODEL", help="Explain it for this model: its range of levels, its rounding."
)
@click.option("--list", "list_presets", is_flag=True, help="List the presets.")
@json_option
def plan(text: str | None, settings: tuple[str, ...], source: str | None, list_presets: bool, as_json: bool) -> None:
    """Explain PLAN: grid, restarts, noise of each rise, NFE.

    PLAN is a number of steps, restart intervals [N_restart,K,t_min,t_max] and key=value settings, or a preset.

    \b
      restart-sampling plan "18 [3,2,0.06,0.30]"
      restart-sampling plan imagenet64-edm-203
      restart-sampling plan --list
    """
    if list_presets:
        _list_presets(as_json)
        return
    if text is None:
        raise click.UsageError('give a plan, such as "18 [3,2,0.06,0.30]", or --list for the presets')
    from restart_sampling.sampling.plan import Plan

    parsed = Plan.parse(text).set(*settings)
    limits: tuple[Any, ...] = ()
    if source is not None:
        from restart_sampling.generation.generate import level_range
        from restart_sampling.models.checkpoint import load_model

        limits = level_range(load_model(source))
    click.echo(parsed.explain(*limits))
    if as_json:
        path = parsed.path(*limits)
        print_json({"plan": str(parsed), "nfe": path.nfe(*parsed.solvers), "levels": path.levels})


def _list_presets(as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from restart_sampling.sampling.presets import PRESETS

    if as_json:
        print_json({"presets": [asdict(preset) | {"needs": _missing_solver(preset)} for preset in PRESETS.values()]})
        return
    table = Table("preset", "NFE", "published FID", "for", "plan", box=None, pad_edge=False)
    for preset in PRESETS.values():
        needs = _missing_solver(preset)
        fid = "" if preset.fid is None else f"{preset.fid:.2f}"
        table.add_row(
            preset.name,
            str(preset.nfe),
            fid,
            preset.checkpoint,
            escape(preset.plan) + (f" (needs solver {needs})" if needs else ""),
        )
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _missing_solver(preset: Preset) -> str | None:
    from restart_sampling.sampling.solvers import SOLVERS

    named = re.search(r"solver=(\w+)", preset.plan)
    return named[1] if named and named[1] not in SOLVERS else None
