"""`restart-sampling figure`: a figure for print from a results file."""

from __future__ import annotations

from pathlib import Path

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.cli import Command
from restart_sampling.cli.options import PAPER

PAPER_TEXT = "stable-diffusion"


@click.command(cls=Command)
@click.argument("results", metavar="RESULTS.jsonl", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=".pdf, .svg or .png; else .pdf and .png.",
)
@click.option(
    "--kind",
    type=click.Choice(["nfe", "K", "interval", "paths", "text"]),
    default="nfe",
    show_default=True,
    help="Distance against NFE, against K, or against t_min and length of the interval; noise paths; text: distance "
    "against the scores of 'text compare'.",
)
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="NAME",
    help="Plot this row, or all of this family or text-to-image sampler; may be repeated; default: all.",
)
@click.option(
    "--paper",
    type=click.Choice([*PAPER, PAPER_TEXT]),
    help=f"With nfe, or with text {PAPER_TEXT}: the published curves beside ours.",
)
def figure(results: Path, out: Path, kind: str, rows: tuple[str, ...], paper: str | None) -> None:
    """Plot the rows of a sweep or of 'text compare', a column wide.

    \b
      restart-sampling figure sweep/results.jsonl --out nfe.pdf
      restart-sampling figure sweep/results.jsonl --kind interval --out interval
      restart-sampling figure table/results.jsonl --kind text --paper stable-diffusion --out scores.pdf
    """
    require_extra("matplotlib", "figures")
    of_paper = "text" if paper == PAPER_TEXT else "nfe"
    if paper and kind != of_paper:
        raise InputError(f"--paper {paper} is for --kind {of_paper}, and this is {kind}; leave it out")

    from restart_sampling.base.files import check_writable
    from restart_sampling.comparison.comparable import read_sweep, read_text_rows
    from restart_sampling.evaluation.results_file import describe_damage
    from restart_sampling.pictures.kinds import left_out, plot
    from restart_sampling.pictures.style import FORMATS, save_figure

    if out.suffix and out.suffix[1:].lower() not in FORMATS:
        raise InputError(f"--out {out}: the suffix can be {', '.join(f'.{kind}' for kind in FORMATS)}, or none")
    check_writable(out)
    found = read_text_rows(results) if kind == "text" else read_sweep(results)
    for path in save_figure(plot(kind, found, paper, rows), out):
        click.echo(path, err=True)
    if note := left_out(kind, found, rows):
        click.echo(note, err=True)
    if found.damaged:
        click.echo(f"{results}: {describe_damage(found.damaged)}", err=True)
