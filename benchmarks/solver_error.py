"""Error against evaluations for every solver on exact denoisers: no network, no weights, nothing random.

    python benchmarks/solver_error.py [--out docs/solver-error.png]

Two measures, because a stochastic sampler has no path to compare with:

- **Path.** The data are a mixture of three Gaussians (std 0.3) in three dimensions. The probability-flow ODE carries
  each start at sigma = 80 to one image; the error is the root mean square distance to where the exact flow leads
  (DPM-Solver-3 with 3,000 steps), over that of the images themselves. For ODE solvers, on EDM's grid.
- **Distribution.** The data are Gaussian with standard deviations from 1 down to 0.02, as the spectrum of images falls.
  Every sampler is then linear in its start and in each of its draws of noise, so its output is exactly Gaussian, and
  following one basis vector for each draw gives its covariance without sampling. The error is the 2-Wasserstein
  distance to the data, over the norm of the data: one number for ODE, SDE and Restart alike. Its floor, about 1e-4, is
  the Euler step to level 0.

Restart here is one pass between 0.1 and 1 with about a quarter of the evaluations. With an exact denoiser there is no
error of a network to contract, only that of the steps, so that this shows what Restart costs and not what it gains.
"""

from collections.abc import Callable
from pathlib import Path

import click
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

import restart_sampling as rs

BUDGETS = (6, 8, 10, 14, 20, 28, 40, 56, 80, 112, 160)
SHOWN = (10, 20, 40, 80)
SINGLE = ("euler", "heun", "midpoint", "dpm2", "dpm3")
MULTI = ("ab", "ipndm", "deis", "dpmpp_2m", "dpmpp_3m", "unipc")
STOCHASTIC = ("ddpm", "ddim:eta=0.5", "sde_dpmpp_2m", "sa", "heun churn=8")
RESTARTED = ("euler", "heun", "dpm3", "dpmpp_2m", "dpmpp_3m", "unipc", "sde_dpmpp_2m")
# Okabe and Ito's, which the colour-blind can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
PURPLE, BLUE, RED = "#CC79A7", "#0072B2", "#D55E00"
STYLES = {  # colour, line, marker: the same in every panel
    "euler": (BLACK, "-", "o"),
    "heun": (ORANGE, "-", "s"),
    "midpoint": (BLUE, "-", "P"),
    "dpm2": (GREEN, "-", "D"),
    "dpm3": (SKY, "-", "^"),
    "ab": (BLACK, "--", "o"),
    "ipndm": (BLUE, "--", "P"),
    "deis": (SKY, "--", "^"),
    "dpmpp_2m": (GREEN, "-", "D"),
    "dpmpp_3m": (PURPLE, "-", "v"),
    "unipc": (RED, "-", "X"),
    "ddpm": (BLACK, "--", "o"),
    "ddim:eta=0.5": (BLUE, "--", "P"),
    "sde_dpmpp_2m": (GREEN, "--", "D"),
    "sa": (RED, "--", "X"),
    "heun churn=8": (ORANGE, "--", "s"),
}

STDS = torch.logspace(0, -1.7, 24, dtype=torch.float64)
MIXTURE = rs.GaussianMixture(
    torch.tensor([[1.0, 0.5, -0.8], [-1.0, 0.2, 0.4], [0.3, -1.2, 0.9]], dtype=torch.float64),
    0.3,
    torch.tensor([0.1, -0.3, 0.4], dtype=torch.float64),
)


def plan_within(budget: int, solver: str, restart: bool = False) -> rs.Plan | None:
    """The longest plan of this solver (and its settings) that takes at most `budget` evaluations; None: none does."""
    longest = None
    for steps in range(2, budget + 2):
        points = max(3, steps // 3 + 1)
        plan = rs.Plan.parse(f"{steps} {f'[{points},1,0.1,1]' * restart} solver={solver}")
        try:
            nfe = plan.path().nfe(*plan.solvers)
        except rs.InputError:  # a grid too short for the interval
            continue
        if nfe <= budget:
            longest = plan
    return longest


def path_error(exact: Tensor, start: Tensor) -> Callable[[rs.Plan], float]:
    def error(plan: rs.Plan) -> float:
        out = rs.follow(MIXTURE, start, plan.path(), *plan.solvers)
        return ((out - exact).norm() / exact.norm()).item()

    return error


def distribution_error(plan: rs.Plan) -> float:
    """2-Wasserstein distance of the sampler's Gaussian to the data's, over the norm of the data.

    The state [1, S, D] has the coefficient of each draw (D of them, the start first) in each of S directions.
    """
    path, solvers = plan.path(), plan.solvers
    draws = 1 + len(path.rises) + len(path.moves)  # at most one for each fall
    variance = STDS[None, :, None] ** 2
    x = torch.zeros(1, len(STDS), draws, dtype=torch.float64)
    x[..., 0] = (variance[..., 0] + path.levels[0] ** 2).sqrt()
    used = 0

    def perturb(x: Tensor, low: float, high: float) -> Tensor:
        nonlocal used
        used += 1
        x = x.clone()
        x[..., used] += (high**2 - low**2) ** 0.5
        return x

    out = rs.follow(lambda x, sigma: x * variance / (variance + sigma[0] ** 2), x, path, *solvers, perturb=perturb)
    return ((out[0].norm(dim=1) - STDS).norm() / STDS.norm()).item()


def curve(solver: str, error: Callable[[rs.Plan], float], restart: bool = False) -> dict[int, float]:
    """Evaluations that were used: error."""
    points = {}
    for budget in BUDGETS:
        if plan := plan_within(budget, solver, restart):
            points[plan.path().nfe(*plan.solvers)] = error(plan)
    return points


def plot(panel: Axes, title: str, curves: dict[str, dict[int, float]]) -> None:
    for name, points in curves.items():
        colour, line, marker = STYLES[name]
        panel.plot(
            list(points), list(points.values()), line, color=colour, marker=marker, markersize=4.5, lw=1.3, label=name
        )
    panel.set_title(title, fontsize=10.5, loc="left")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks([6, 10, 20, 40, 80, 160], labels=["6", "10", "20", "40", "80", "160"])
    panel.minorticks_off()
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, loc="lower left")


def show(title: str, curves: dict[str, dict[int, float]]) -> None:
    table = Table("solver", *(f"NFE {budget}" for budget in SHOWN), title=title, title_justify="left", box=None)
    for name, points in curves.items():
        cells = []
        for budget in SHOWN:
            nfe = max((nfe for nfe in points if budget * 0.8 <= nfe <= budget), default=None)
            cells.append("" if nfe is None else f"{points[nfe]:.1e}" + (f" ({nfe})" if nfe != budget else ""))
        table.add_row(name, *cells)
    Console(width=120).print(table)


@click.command()
@click.option("--out", default="docs/solver-error.png", show_default=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Print the error of every solver at some numbers of evaluations, and plot it (this is the picture of the docs)."""
    start = MIXTURE.draw(512, 80.0, torch.Generator().manual_seed(0))
    fine = rs.Plan.parse("3000 solver=dpm3 sigma_min=0.0002")
    path = path_error(rs.follow(MIXTURE, start, fine.path(), *fine.solvers), start)

    panels = {
        "Single-step ODE solvers: error of the path": {name: curve(name, path) for name in SINGLE},
        "Multistep ODE solvers: error of the path": {name: curve(name, path) for name in MULTI},
        "Stochastic samplers: error of the distribution": {
            name: curve(name, distribution_error) for name in (*STOCHASTIC, "heun", "unipc")
        },
        "Restart around them: error of the distribution": {
            name: curve(name, distribution_error, restart=True) for name in RESTARTED
        },
    }
    everything = (*SINGLE, *MULTI, *STOCHASTIC)
    for title, curves in list(panels.items())[:2]:
        show(title, curves)
    show("Error of the distribution", {name: curve(name, distribution_error) for name in everything})
    show("Error of the distribution, with Restart", {n: curve(n, distribution_error, restart=True) for n in everything})

    figure = Figure(figsize=(11, 8.2), dpi=150, facecolor="white", layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for panel, (title, curves) in zip(grid.flat, panels.items(), strict=True):
        plot(panel, title, curves)
    for row, measure in zip(grid, ("relative error of the images", "relative 2-Wasserstein distance"), strict=True):
        row[0].set_ylabel(measure, fontsize=9)
        row[0].set_ylim(4e-6, 9)
    for panel in grid[1]:
        panel.set_xlabel("evaluations (NFE)", fontsize=9)
    figure.savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
