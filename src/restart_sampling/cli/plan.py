"""`restart-sampling plan`: what a plan will do, and the presets."""

from __future__ import annotations

from dataclasses import asdict
from shutil import get_terminal_size
from textwrap import wrap

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli import Command
from restart_sampling.cli.options import given, json_option, print_json, set_option
from restart_sampling.cli.sampler_options import any_model_option, open_net


@click.command(cls=Command)
@click.argument("words", metavar="PLAN", nargs=-1)
@set_option
@click.option(
    "--model", "source", metavar="MODEL", help="Explain it for this model: its levels, its rounding, its noise."
)
@click.option("--list", "list_presets", is_flag=True, help="List the presets.")
@any_model_option
@json_option
def plan(
    words: tuple[str, ...],
    settings: tuple[str, ...],
    source: str | None,
    list_presets: bool,
    any_model: bool,
    as_json: bool,
) -> None:
    """Explain PLAN: grid, restarts, noise of each rise, NFE.

    PLAN is a number of steps, restart intervals [N_restart,K,t_min,t_max] and key=value settings, or a preset, or the
    .json of a plan that 'tune' found.

    \b
      restart-sampling plan "18 [3,2,0.06,0.30]"
      restart-sampling plan imagenet64-edm-203
      restart-sampling plan --list
    """
    if list_presets:
        if other := "PLAN" if words else given({"settings", "source", "any_model"}):
            raise InputError(f"{other} is for a plan; leave it out with --list, which shows the presets")
        _list_presets(as_json)
        return
    if not words:
        raise click.UsageError('give a plan, such as "18 [3,2,0.06,0.30]", or --list for the presets')
    if any_model and source is None:
        raise InputError("--any-model is for the --model that a plan is explained for; give that too, or leave it out")

    from restart_sampling.sampling.net_plan import check_made_for, levels_of
    from restart_sampling.sampling.plan import Plan

    parsed = Plan.parse(" ".join(words)).set(*settings)
    net = None if source is None else open_net(source)
    if net and not any_model:
        check_made_for(net, parsed)
    model = levels_of(net) if net else ()
    if as_json:
        path = parsed.path(*model[:3])
        scale = {} if parsed.guidance is None else {"guidance": parsed.guidance}
        print_json({"plan": str(parsed), **scale, "nfe": path.nfe(*parsed.solvers), "levels": path.levels})
    else:
        if parsed.guidance is not None:
            click.echo(f"guidance   {parsed.guidance:g}, which goes with the plan")
        click.echo(parsed.explain(*model))


def _list_presets(as_json: bool) -> None:
    from restart_sampling.sampling.presets import PRESETS

    if as_json:
        print_json({"presets": [asdict(preset) for preset in PRESETS.values()]})
        return
    names, width = max(map(len, PRESETS)), get_terminal_size().columns
    click.echo(f"{'preset':{names}}   NFE   FID  for\n    plan")
    for preset in PRESETS.values():
        fid = "" if preset.fid is None else f"{preset.fid:.2f}"
        click.echo(f"{preset.name:{names}}  {preset.nfe:4}  {fid:>4}  {preset.checkpoint}")
        for line in wrap(preset.plan, max(width - 4, 1), break_long_words=False, break_on_hyphens=False):
            click.echo(f"    {line}")
    click.echo(
        "FID: of 50,000 images, the best of three draws. -code: with the churn that the authors' script leaves on."
    )
