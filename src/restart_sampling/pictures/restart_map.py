"""`plot_map`: what one restart does at each pair of levels, and where the ODE's errors come from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.style import SECONDARY, WIDTH, log_scale, style

_GAIN, _DRIFT = "#0072b2", "#d55e00"


@style()
def plot_map(content: Mapping[str, Any]) -> Figure:
    """Plots the gain by t_min and t_max, and beside it the ODE's drift and the additional error of a pass by level.

    Args:
        content: of the file that `tune --map` wrote.

    Raises:
        InputError: there is no restart in it.
    """
    cells = content["cells"]
    if not cells:
        raise InputError("the map has no restart; make it again")
    panels = 2 if "drift" in content else 1
    figure = Figure(
        figsize=((1.35 + 0.8 * (panels - 1)) * WIDTH, 1.15 * WIDTH), facecolor="white", layout="constrained"
    )
    side = figure.subplots(1, panels, squeeze=False, width_ratios=(1.35, 0.8)[:panels])[0]
    _plot_gain(figure, side[0], cells, content["base"])
    if panels == 2:
        _plot_drift(side[1], content)
    return figure


def _plot_gain(figure: Figure, axes: Any, cells: list[dict[str, float]], base: str) -> None:
    lows = sorted({cell["t_min"] for cell in cells})
    highs = sorted({cell["t_max"] for cell in cells})
    gains = np.full((len(highs), len(lows)), np.nan)
    # Where restarts harm they harm a hundred times more than they help: the colours tell apart what may be worth it.
    most = max(*(cell["gain"] + cell["error"] for cell in cells), 1e-9)
    for cell in cells:
        x, y = lows.index(cell["t_min"]), highs.index(cell["t_max"])
        gains[y, x] = cell["gain"]
        known = abs(cell["gain"]) > 2 * cell["error"]
        colour = ("white" if cell["gain"] < -0.6 * most else "black") if known else SECONDARY
        look = {"ha": "center", "color": colour, "fontweight": "bold" if known else "normal"}
        axes.text(x, y + 0.03, _two_digits(100 * cell["gain"]), fontsize=5.8, va="bottom", **look)
        axes.text(x, y - 0.08, f"± {100 * cell['error']:.1f}", fontsize=4.8, va="top", **look)
    shown = axes.imshow(
        gains, cmap="RdBu", norm=TwoSlopeNorm(0, -most, most), origin="lower", aspect="auto", alpha=0.75
    )
    axes.set_xticks(range(len(lows)), [f"{low:.2g}" for low in lows], rotation=45)
    axes.set_yticks(range(len(highs)), [f"{high:.2g}" for high in highs])
    axes.grid(visible=False)
    axes.set_xlabel("$t_\\mathrm{min}$", parse_math=True)
    axes.set_ylabel("$t_\\mathrm{max}$", parse_math=True)
    extend = "min" if np.nanmin(gains) < -most else "neither"
    bar = figure.colorbar(shown, ax=axes, location="top", aspect=40, pad=0.02, extend=extend)
    bar.set_label(f"what one restart takes off the distance of plan {base} (numbers: in hundredths)", fontsize=7)


def _plot_drift(axes: Any, content: Mapping[str, Any]) -> None:
    levels = [point["level"] for point in content["drift"]]
    values = [point["value"] for point in content["drift"]]
    floors = [point["floor"] for point in content["drift"]]
    (drift,) = axes.plot(levels, values, color=_DRIFT, marker="o", markersize=3, label="the ODE's states")
    (floor,) = axes.plot(levels, floors, color=SECONDARY, linestyle=":", label="other true data")
    least = {level: min(p["value"] for p in content["passes"] if p["t_min"] == level) for level in levels[1:]}
    (passed,) = axes.plot(
        *zip(*least.items(), strict=True), color=_GAIN, marker="s", markersize=3, label="true data after the best pass"
    )
    ends = [(each["t_min"], each["value"]) for each in content["passes"]]
    others = axes.scatter(*zip(*ends, strict=True), s=3, color=_GAIN, alpha=0.4, label="after other passes")
    log_scale(axes, "x", levels)
    log_scale(axes, "y", [*values, *(p["value"] for p in content["passes"])])
    axes.set_xlabel("noise level")
    axes.set_ylabel("distance to true data")
    axes.legend(handles=[drift, passed, others, floor], loc="upper right", handlelength=2.2)


def _two_digits(value: float) -> str:
    """Writes a number with its sign, and without digits that the error would not bear."""
    return f"{value:+.1f}" if abs(value) < 10 else f"{value:+.0f}"
