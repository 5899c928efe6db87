"""`plot_map`: what one restart does at each pair of levels, and where the ODE's errors come from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.style import SECONDARY, WIDTH, legend_below, log_scale, style

_GAIN, _DRIFT = "#0072b2", "#d55e00"


@style()
def plot_map(content: Mapping[str, Any]) -> Figure:
    """Plots the gain by t_min and t_max, and below it the drift of the ODE and the additional error of a pass by level.

    Args:
        content: of the file that `tune --map` wrote.

    Raises:
        InputError: there is no restart in it.
    """
    cells = content["cells"]
    if not cells:
        raise InputError("the map has no restart; make it again")
    panels = 2 if "drift" in content else 1
    heights = (WIDTH + 0.1, 2.0)[:panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), facecolor="white", layout="constrained")
    stack = figure.subplots(panels, 1, squeeze=False, height_ratios=heights)[:, 0]
    _plot_gain(figure, stack[0], cells, content["base"])
    if panels == 2:
        _plot_drift(figure, stack[1], content)
    return figure


def _plot_gain(figure: Figure, axes: Any, cells: list[dict[str, float]], base: str) -> None:
    lows = sorted({cell["t_min"] for cell in cells})
    highs = sorted({cell["t_max"] for cell in cells})
    gains = np.full((len(highs), len(lows)), np.nan)
    for cell in cells:
        x, y = lows.index(cell["t_min"]), highs.index(cell["t_max"])
        gains[y, x] = cell["gain"]
        sure = abs(cell["gain"]) > 2 * cell["error"]
        text = f"{cell['gain']:+.2g}\n± {cell['error']:.1g}"
        axes.text(x, y, text, fontsize=3.6, ha="center", va="center", color="black" if sure else SECONDARY)
    most = np.nanmax(np.abs(gains)) or 1.0
    shown = axes.imshow(
        gains, cmap="RdBu", norm=TwoSlopeNorm(0, -most, most), origin="lower", aspect="auto", alpha=0.75
    )
    axes.set_xticks(range(len(lows)), [f"{low:.2g}" for low in lows], rotation=45)
    axes.set_yticks(range(len(highs)), [f"{high:.2g}" for high in highs])
    axes.grid(visible=False)
    axes.set_xlabel("$t_\\mathrm{min}$", parse_math=True)
    axes.set_ylabel("$t_\\mathrm{max}$", parse_math=True)
    bar = figure.colorbar(shown, ax=axes, location="top", aspect=40, pad=0.02)
    bar.set_label(f"distance of {base} less that with one restart: blue is better", fontsize=7)


def _plot_drift(figure: Figure, axes: Any, content: Mapping[str, Any]) -> None:
    levels = [point["level"] for point in content["drift"]]
    values = [point["value"] for point in content["drift"]]
    floors = [point["floor"] for point in content["drift"]]
    (drift,) = axes.plot(levels, values, color=_DRIFT, marker="o", markersize=3, label="the ODE's states")
    (floor,) = axes.plot(levels, floors, color=SECONDARY, linestyle=":", label="other true data")
    least = {level: min(p["value"] for p in content["passes"] if p["t_min"] == level) for level in levels[1:]}
    (passed,) = axes.plot(
        *zip(*least.items(), strict=True), color=_GAIN, marker="s", markersize=3, label="true data after the best pass"
    )
    axes.scatter(
        [p["t_min"] for p in content["passes"]], [p["value"] for p in content["passes"]], s=3, color=_GAIN, alpha=0.4
    )
    log_scale(axes, "x", levels)
    log_scale(axes, "y", [*values, *(p["value"] for p in content["passes"])])
    axes.set_xlabel("noise level")
    axes.set_ylabel("distance to true data")
    legend_below(figure, [drift, floor, passed])
