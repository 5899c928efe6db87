"""`restart-sampling report`: a sweep as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from restart_sampling.base.errors import require_extra
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.options import PAPER


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The .html file to write.")
@click.option("--paper", type=click.Choice(PAPER), help="The published curves beside ours, with notes on them.")
def report(folder: Path, out: Path, paper: str | None) -> None:
    """Write the sweep, or the run of tune, in DIR as a web page. It is one file, and needs no internet.

    \b
      restart-sampling report sweep --out sweep.html
    """
    require_extra("matplotlib", "figures")

    from restart_sampling.pictures.report import report as write_report

    rows = write_report(folder, out, paper)
    click.echo(f"{out}: {counted(rows, 'row')}, {out.stat().st_size / 1e6:.1f} MB", err=True)
