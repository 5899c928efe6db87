"""What a change of plan does for each of several models, from their sweeps: a table and a figure.

    python benchmarks/restart_by_model.py NAME=RESULTS.jsonl ... [--base 18] [--out PICTURE.png]

Differences are to the row `--base` of the same model, paired by block of seeds.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import read_results
from restart_sampling.pictures.style import SECONDARY, detector_note, save_figure, stacked, style

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
MARKERS = "osD^"


@dataclass(frozen=True)
class Change:
    """The distance of a row, by its detector, its difference to the base, and the standard error of that."""

    detector: str
    distance: float
    difference: float
    error: float


def changes(results: Path, base: str) -> dict[str, Change]:
    """By the name of the row."""
    rows = {row["name"]: row for row in read_results(results)}
    return {
        name: Change(row["detector_name"], row["frechet_distance"], *paired_difference(row, rows[base]))
        for name, row in rows.items()
    }


def draw(models: dict[str, dict[str, Change]], rows: list[str], base: str, out: Path) -> None:
    with style():
        figure, (axes,) = stacked(1, 0.4 + 0.27 * len(rows))
        figure.set_figwidth(1.6 * figure.get_figwidth())  # the names of the rows are long
        axes.axvline(0, color=SECONDARY, linewidth=0.8)
        for index, (model, found) in enumerate(models.items()):
            y = [place + 0.22 * (index - (len(models) - 1) / 2) for place in range(len(rows))]
            axes.errorbar(
                [found[row].difference for row in rows],
                y,
                xerr=[found[row].error for row in rows],
                color=COLOURS[index],
                marker=MARKERS[index],
                markersize=3.5,
                linewidth=0,
                elinewidth=0.9,
                label=model,
            )
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        notes = {detector_note(found[row].detector) for found in models.values() for row in rows}
        axes.set_xlabel(f"change of the Fréchet distance {' '.join(sorted(notes))} against {base}")
        figure.legend(loc="outside upper center", ncols=len(models), columnspacing=1, handletextpad=0.2)
    save_figure(figure, out)


@click.command()
@click.argument("sweeps", nargs=-1, required=True, metavar="NAME=RESULTS.jsonl ...")
@click.option("--base", default="18", show_default=True, help="Row that the others are compared with.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Picture.")
def main(sweeps: tuple[str, ...], base: str, out: Path | None) -> None:
    models = {}
    for sweep in sweeps:
        name, _, results = sweep.partition("=")
        models[name] = changes(Path(results), base)
    shared = set.intersection(*(set(found) for found in models.values()))
    rows = [row for row in next(iter(models.values())) if row in shared]
    print("| plan |" + "".join(f" {name} | to `{base}` |" for name in models))
    print("|---|" + "---|---|" * len(models))
    for row in rows:
        cells = ""
        for found in models.values():
            change = found[row]
            to_base = "" if row == base else f"{change.difference:+.3f} +- {change.error:.3f}"
            cells += f" {change.distance:.3f} | {to_base} |"
        print(f"| `{row}` |{cells}")
    if out is not None:
        draw(models, [row for row in rows if row != base], base, out)


if __name__ == "__main__":
    main()
