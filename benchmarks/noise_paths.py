"""Plots the noise paths of four plans, as the page on samplers shows them.

python benchmarks/noise_paths.py [--out docs/noise-paths.png]
"""

from pathlib import Path

import click
from matplotlib.figure import Figure
from PIL import Image

import restart_sampling as rs
from restart_sampling.pictures.noise_paths import plot_schedules
from restart_sampling.pictures.style import save_figure, style, styles

PLANS = {  # by the family that gives each its colour
    "ODE (heun)": "18",
    "SDE (heun, churn)": "32 churn=30 s_min=0.01 s_max=1 s_noise=1.007",
    "Restart (heun)": "18 [3,2,0.06,0.30]",
    "Restart (dpmpp_2m)": "18 [4,1,1.09,10] [3,3,0.06,0.30]",
}


@click.command()
@click.option("--out", default="docs/noise-paths.png", show_default=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Plot the noise paths."""
    looks = styles(list(PLANS))
    plans = {family: rs.Plan.parse(text) for family, text in PLANS.items()}
    paths = [(str(plan), plan.path().schedule(*plan.solvers), looks[family].colour) for family, plan in plans.items()]
    with style():
        figure = Figure(figsize=(4.6, 4.6), facecolor="white", layout="constrained")
        panels = figure.subplots(len(paths), 1).tolist()
        plot_schedules(panels, max(schedule[-1][0] for _, schedule, _ in paths), paths)
        for axes, (name, schedule, colour) in zip(panels, paths, strict=True):
            axes.set_title(f"{name}   ({schedule[-1][0]} evaluations)", loc="left", fontsize=7, color=colour, pad=2)
        figure.supylabel("noise level", fontsize=8)
        save_figure(figure, out)
    Image.open(out).convert("RGB").quantize(32).save(out, optimize=True)  # a quarter of the bytes


if __name__ == "__main__":
    main()
