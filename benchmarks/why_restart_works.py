"""Why Restart works, measured without sampling noise: the errors of ODE, SDE and Restart with a denoiser that is wrong.

    python benchmarks/why_restart_works.py [--out docs/why-restart-works.png]

The data are a mixture of four Gaussians in one dimension, whose denoiser is exact, plus an error of known size: the
network of EDM's preconditioning answers F + size * sqrt(2) sin(w c_in x + phase + v ln(sigma)) for F. Each number is
the mean over six such errors.

Nothing is random. A distribution is held as 250 quantiles: a fall moves each by a step of the solver (flows of one
dimension keep their order), a rise replaces them by the quantiles of their mixture of Gaussians. So the 1-Wasserstein
distance is a mean of differences, and the difference of two samplers is theirs and not that of their draws.

Errors are split as the paper does (section 3 and 5.1). A sampler that acts on [t_min, t_max] gets the state that the
ODE with the wrong denoiser has at t_max, or the true one; after it the ODE goes on to 0:

- total: from the state with errors, to the data;
- contracted: between both results, what is left of the errors made above t_max;
- additional: from the true state, to the data, what the sampler adds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from rich.console import Console
from rich.table import Table
from torch import Tensor

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.pictures.style import Style, log_scale, save_figure, style, styles

torch.set_default_dtype(torch.float64)

QUANTILES = (torch.arange(250) + 0.5) / 250
EQUAL = torch.full((250,), 1 / 250)
STD = 0.1
WEIGHTS = torch.tensor([0.35, 0.2, 0.15, 0.3])
CENTRES = torch.tensor([-1.3, -0.4, 0.1, 1.2])
CENTRES = CENTRES - WEIGHTS @ CENTRES
CENTRES = CENTRES / (WEIGHTS @ CENTRES**2 + STD**2).sqrt()  # of variance 1 together with STD
MIXTURE = rs.GaussianMixture(CENTRES[:, None], STD, WEIGHTS.log())

ERRORS = 6
SIZE = 0.1
LEVELS = rs.karras_levels(18)
T_MIN, T_MAX = 11, 9
"""Places in LEVELS of the interval of the first two panels: 0.585 to 1.92."""
INTERVALS = tuple(
    (low, high) for low in range(5, 16) for high in range(3, low) if LEVELS[high] < 40 * LEVELS[low] and high < 15
)
BUDGETS = (11, 15, 19, 25, 35, 43, 59, 79, 99, 127)

Net = Callable[[Tensor, Tensor], Tensor]


def quantiles(centres: Tensor, weights: Tensor, std: float) -> Tensor:
    """Finds the quantiles [250, 1] of a mixture of Gaussians of one std by interpolation of its distribution."""
    y = torch.linspace(centres.min().item() - 6 * std, centres.max().item() + 6 * std, 500)
    below = torch.special.ndtr((y[:, None] - centres) / std) @ weights
    right = torch.searchsorted(below, QUANTILES).clamp(1, len(y) - 1)
    share = (QUANTILES - below[right - 1]) / (below[right] - below[right - 1])
    return (y[right - 1] + share * (y[right] - y[right - 1]))[:, None]


def noised(x: Tensor, low: float, high: float) -> Tensor:
    """Raises a distribution from level low to level high."""
    return quantiles(x[:, 0], EQUAL, (high**2 - low**2) ** 0.5)


def true_state(level: float) -> Tensor:
    """Returns the quantiles of the data with noise of this level."""
    return quantiles(CENTRES, WEIGHTS, (level**2 + STD**2) ** 0.5)


def distance(x: Tensor, y: Tensor) -> float:
    """Returns the 1-Wasserstein distance of two distributions."""
    return (x.sort(0).values - y.sort(0).values).abs().mean().item()


def wrong_denoisers(size: float) -> list[Net]:
    """Makes the denoisers with errors of this root mean square in the network's answer."""

    def make(seed: int) -> Net:
        phase, slope, speed = torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            sigma = sigma[:, None]
            c_in = (sigma**2 + 1).rsqrt()
            wave = (1 + 2 * speed) * c_in * x + 2 * torch.pi * phase + (2 * slope - 1) * sigma.log()
            return MIXTURE(x, sigma[:, 0]) + size * sigma * c_in * 2**0.5 * wave.sin()

        return denoise

    return [make(seed) for seed in range(ERRORS)]


DATA = true_state(0.0)
START = torch.special.ndtri(QUANTILES)[:, None] * LEVELS[0]


def total_error(path: rs.NoisePath, nets: Sequence[Net]) -> float:
    """Returns the distance of a whole sampler to the data, mean over the errors."""
    return sum(distance(rs.follow(net, START, path, perturb=noised), DATA) for net in nets) / len(nets)


@dataclass(frozen=True)
class Split:
    """The errors of a sampler on the interval [t_min, t_max], and its evaluations there."""

    nfe: int
    total: float
    contracted: float
    additional: float


def split_error(path: rs.NoisePath, nets: Sequence[Net]) -> Split:
    """Splits the error of a sampler from LEVELS[T_MAX] to LEVELS[T_MIN], mean over the errors."""
    errors = torch.zeros(3)
    for net in nets:
        states = rs.follow(net, START, rs.ode_path(LEVELS[: T_MAX + 1])), true_state(LEVELS[T_MAX])
        p, q = (
            rs.follow(net, rs.follow(net, state, path, perturb=noised), rs.ode_path(LEVELS[T_MIN:])) for state in states
        )
        errors += torch.tensor([distance(p, DATA), distance(p, q), distance(q, DATA)]) / len(nets)
    return Split(path.nfe(rs.Heun()), *errors.tolist())


def restart_inside(points: int, repeats: int) -> rs.NoisePath:
    low, high = LEVELS[T_MIN], LEVELS[T_MAX]
    grid = rs.power_grid(points, high, low)
    return rs.restart_path(grid, [rs.RestartInterval(points, repeats, low, high)] if repeats else [])


def inside(steps: int, churn: float) -> rs.NoisePath:
    """Makes the path of an ODE (churn 0) or an SDE whose rises are by the factor 1 + churn."""
    return rs.churn_path(rs.power_grid(steps + 1, LEVELS[T_MAX], LEVELS[T_MIN]), churn * steps)


def whole_samplers() -> dict[str, list[tuple[int, rs.NoisePath]]]:
    """Lists the samplers of the sweep over evaluations, by family: (NFE, path)."""

    def grids(most: int) -> list[tuple[float, ...]]:
        return [rs.karras_levels(steps) for steps in range(4, 65) if 2 * steps - 1 <= most]

    def restarted() -> list[rs.NoisePath]:
        paths = []
        choices = product(grids(BUDGETS[-1] // 2), (3, 5, 7), (1, 2, 4), ((0.3, 1.09), (0.59, 1.09), (0.59, 1.92)))
        for levels, points, repeats, (low, high) in choices:
            try:
                path = rs.restart_path(levels, [rs.RestartInterval(points, repeats, low, high)])
            except InputError:  # a grid too coarse for the interval
                continue
            if path.nfe(rs.Heun()) in BUDGETS:
                paths.append(path)
        return paths

    families = {
        "ODE": [rs.ode_path(levels) for levels in grids(BUDGETS[-1])],
        "SDE": [rs.churn_path(levels, churn) for levels in grids(BUDGETS[-1]) for churn in (1, 2, 4, 8, 16)],
        "Restart": restarted(),
    }
    return {
        family: [(nfe, path) for path in paths if (nfe := path.nfe(rs.Heun())) in BUDGETS]
        for family, paths in families.items()
    }


def best_by_nfe(samplers: list[tuple[int, rs.NoisePath]], nets: Sequence[Net]) -> dict[int, float]:
    """Returns the least error of a family at each number of evaluations."""
    best: dict[int, float] = {}
    for nfe, path in samplers:
        best[nfe] = min(best.get(nfe, float("inf")), total_error(path, nets))
    return dict(sorted(best.items()))


def gains(nets: Sequence[Net]) -> dict[tuple[int, int], float]:
    """Returns, of each interval, the share of the ODE's error that `18 [3,1,t_min,t_max]` takes away."""
    ode = total_error(rs.ode_path(LEVELS), nets)
    return {
        (low, high): 1
        - total_error(rs.restart_path(LEVELS, [rs.RestartInterval(3, 1, LEVELS[low], LEVELS[high])]), nets) / ode
        for low, high in INTERVALS
    }


def plot_repeats(axes: Axes, restarts: dict[int, Split]) -> None:
    for name, line in (("total", "-"), ("additional", "--"), ("contracted", ":")):
        axes.plot(
            list(restarts),
            [getattr(each, name) for each in restarts.values()],
            line,
            color=styles(["Restart"])["Restart"].colour,
            marker="o",
            markersize=3,
            label=name,
        )
    log_scale(axes, "y", (1e-4, 0.2))
    axes.set(xlabel="K (repeats of the restart)", ylabel="1-Wasserstein distance", ylim=(7e-5, 0.2))
    axes.legend(loc="lower left")
    axes.set_title(f"a  One interval, [{LEVELS[T_MIN]:.2g}, {LEVELS[T_MAX]:.2g}]", loc="left", fontsize=8)


def plot_pareto(axes: Axes, families: dict[str, list[Split]], looks: dict[str, Style]) -> None:
    for family, splits in families.items():
        look = looks[family]
        axes.plot(
            [each.additional for each in splits],
            [each.contracted for each in splits],
            look.marker,
            color=look.colour,
            markersize=3.5,
            label=family,
        )
    log_scale(axes, "y", (1e-4, 0.2))
    axes.set(xlabel="additional error", ylabel="contracted error", ylim=(2e-4, 0.06))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="upper right")
    axes.set_title("b  What is added, what is left", loc="left", fontsize=8)


def plot_nfe(axes: Axes, families: dict[str, dict[int, float]], looks: dict[str, Style]) -> None:
    for family, points in families.items():
        look = looks[family]
        axes.plot(
            list(points), list(points.values()), color=look.colour, marker=look.marker, markersize=3, label=family
        )
    log_scale(axes, "x", BUDGETS)
    axes.set(xlabel="evaluations (NFE)", ylabel="1-Wasserstein distance", ylim=(0.05, 0.13))
    axes.legend(loc="upper right")
    axes.set_title("c  Whole samplers, best of a sweep", loc="left", fontsize=8)


def plot_map(figure: Figure, axes: Axes, found: dict[tuple[int, int], float]) -> None:
    low, high = (sorted({pair[end] for pair in found}) for end in (0, 1))
    picture = torch.full((len(high), len(low)), torch.nan)
    for (t_min, t_max), gain in found.items():
        picture[high.index(t_max), low.index(t_min)] = 100 * gain
    image = axes.imshow(picture.numpy(), cmap="RdBu", vmin=-20, vmax=20, aspect="auto")
    for axis, places in ((axes.xaxis, low), (axes.yaxis, high)):
        axis.set_ticks(range(0, len(places), 2), [f"{LEVELS[place]:.2g}" for place in places[::2]])
        axis.set_minor_locator(NullLocator())
    axes.grid(visible=False)
    axes.set(xlabel="t_min", ylabel="t_max")
    bar = figure.colorbar(image, ax=axes, extend="min", format=FuncFormatter(lambda value, _: f"{value:+g} %"))
    bar.ax.tick_params(labelsize=7)
    axes.set_title("d  Gain of 18 [3,1,t_min,t_max] over 18", loc="left", fontsize=8)


def print_tables(restarts: dict[int, Split], by_nfe: dict[str, dict[int, float]]) -> None:
    console = Console(width=100)
    table = Table("K", "NFE", "total", "contracted", "additional", box=None)
    for repeats, split in restarts.items():
        errors = f"{split.total:.4f}", f"{split.contracted:.4f}", f"{split.additional:.4f}"
        table.add_row(str(repeats), str(split.nfe), *errors)
    console.print(table)
    table = Table("NFE", *by_nfe, box=None)
    for nfe in BUDGETS:
        table.add_row(str(nfe), *(f"{points[nfe]:.4f}" if nfe in points else "" for points in by_nfe.values()))
    console.print(table)


def print_sizes(samplers: dict[str, list[tuple[int, rs.NoisePath]]]) -> None:
    """Prints what Restart gains at 43 evaluations by the size of the denoiser's error."""
    table = Table("size of the error", "ODE", "SDE", "Restart", "K of the best", box=None)
    for size in (0.0, 0.02, 0.05, 0.1, 0.2):
        nets = wrong_denoisers(size)[: ERRORS if size else 1]
        errors = {
            family: min((total_error(path, nets), len(path.rises)) for nfe, path in paths if nfe == 43)
            for family, paths in samplers.items()
            if any(nfe == 43 for nfe, _ in paths)
        }
        repeats = str(errors["Restart"][1])
        table.add_row(f"{size:g}", *(f"{errors[family][0]:.4f}" for family in ("ODE", "SDE", "Restart")), repeats)
    Console(width=100).print(table)


@click.command()
@click.option("--out", default="docs/why-restart-works.png", show_default=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Print and plot the errors of ODE, SDE and Restart with a denoiser that is wrong by a known amount."""
    nets = wrong_denoisers(SIZE)
    restarts = {repeats: split_error(restart_inside(5, repeats), nets) for repeats in (0, 1, 2, 3, 4, 6, 8)}
    inner = {
        "ODE": [split_error(inside(steps, 0), nets) for steps in (4, 5, 6, 8, 12, 16)],
        "SDE": [split_error(inside(*choice), nets) for choice in product((6, 8, 12, 16), (0.02, 0.05, 0.1, 0.2, 0.4))],
        "Restart": [
            split_error(restart_inside(points, repeats), nets)
            for points, repeats in ((4, 1), (5, 1), (6, 1), (7, 1), (9, 1), (4, 2), (5, 2), (6, 2), (7, 2), (5, 3))
        ],
    }
    samplers = whole_samplers()
    by_nfe = {family: best_by_nfe(paths, nets) for family, paths in samplers.items()}
    found = gains(nets)
    print_tables(restarts, by_nfe)
    for low, high in (*sorted(found, key=found.__getitem__)[:2], *sorted(found, key=found.__getitem__)[-4:]):
        print(f"18 [3,1,{LEVELS[low]:.2g},{LEVELS[high]:.2g}]: gain {found[low, high]:+.1%}")
    for split in sorted(inner["SDE"], key=lambda split: split.additional)[:8]:
        print(f"SDE on the interval: NFE {split.nfe}, {split.contracted:.4f} contracted, {split.additional:.4f} added")
    print_sizes(samplers)

    looks = styles(list(inner))
    with style():
        figure = Figure(figsize=(7.2, 5.2), facecolor="white", layout="constrained")
        (a, b), (c, d) = figure.subplots(2, 2)
        plot_repeats(a, restarts)
        plot_pareto(b, inner, looks)
        plot_nfe(c, by_nfe, looks)
        plot_map(figure, d, found)
    save_figure(figure, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
