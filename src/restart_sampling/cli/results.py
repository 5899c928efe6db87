"""`restart-sampling results`: tables of what was measured."""

from pathlib import Path

import click

from restart_sampling.cli import Group


@click.group(cls=Group)
def results() -> None:
    """Tables of what was measured, for papers and programs."""


@results.command()
@click.argument("path", metavar="RESULTS.jsonl", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex"]),
    default="md",
    show_default=True,
    help="Markdown; CSV with all digits; LaTeX with the rules of booktabs.",
)
def table(path: Path, form: str) -> None:
    """Print the rows of a results file as a table. The folder of a sweep will do.

    \b
      restart-sampling results table sweep --format latex > table.tex
    """
    from restart_sampling.comparison.table import FORMATS, results_table
    from restart_sampling.evaluation.results_file import RESULTS, describe_damage, read_results

    if path.is_dir():
        path = path / RESULTS
    found = read_results(path)
    click.echo(FORMATS[form](results_table(found.lines)), nl=False)
    if found.damaged:
        click.echo(f"{path}: {describe_damage(found.damaged)}", err=True)
