"""`restart-sampling figure`: a figure for print from a results file."""

from __future__ import annotations

from pathlib import Path

import click

from restart_sampling.cli.sweep import PAPER
from restart_sampling.errors import InputError, require_extra


@click.command()
@click.argument("results", metavar="RESULTS.jsonl", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=".pdf, .svg or .png; else .pdf and .png.",
)
@click.option(
    "--kind",
    type=click.Choice(["nfe", "K", "interval", "paths"]),
    default="nfe",
    show_default=True,
    help="Distance against NFE, against K, or against t_min and length of the interval; noise paths.",
)
@click.option("--row", "rows", multiple=True, metavar="NAME", help="Draw this row; may be repeated; default: all.")
@click.option("--paper", type=click.Choice(PAPER), help="With nfe: the published curves beside ours.")
def figure(results: Path, out: Path, kind: str, rows: tuple[str, ...], paper: str | None) -> None:
    """Draw the rows of a sweep, one column wide.

    \b
      restart-sampling figure sweep/results.jsonl --out nfe.pdf
      restart-sampling figure sweep/results.jsonl --kind interval --out interval
    """
    require_extra("matplotlib", "figures")
    if paper and kind != "nfe":
        raise InputError(f"--paper is for --kind nfe, and this is {kind}; leave it out")

    from restart_sampling.experiments.figure import draw
    from restart_sampling.experiments.figure_style import FORMATS, save_figure
    from restart_sampling.experiments.sweep_results import read_sweep
    from restart_sampling.files import check_writable

    if out.suffix and out.suffix[1:].lower() not in FORMATS:
        raise InputError(f"--out {out}: the suffix can be {', '.join(f'.{kind}' for kind in FORMATS)}, or none")
    check_writable(out)
    for path in save_figure(draw(kind, read_sweep(results), paper, rows), out):
        click.echo(path, err=True)
