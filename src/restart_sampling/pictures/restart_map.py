"""`plot_map` and `plot_maps`: what one restart does at each pair of levels, and where the ODE's errors come from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.style import SECONDARY, WIDTH, detector_note, log_scale, style

_GAIN, _DRIFT = "#0072b2", "#d55e00"
_PALE = "#dcdcdc"


@style()
def plot_map(content: Mapping[str, Any]) -> Figure:
    """Plots the gain by t_min and t_max, and beside it the ODE's drift and the additional error of a pass by level.

    Args:
        content: of the file that `tune --map` wrote.

    Raises:
        InputError: there is no restart in it.
    """
    panels = 2 if "drift" in content else 1
    figure = Figure(
        figsize=((1.35 + 0.8 * (panels - 1)) * WIDTH, 1.15 * WIDTH), facecolor="white", layout="constrained"
    )
    side = figure.subplots(1, panels, squeeze=False, width_ratios=(1.35, 0.8)[:panels])[0]
    _plot_gains(figure, [side[0]], [content])
    if panels == 2:
        _plot_drift(side[1], content)
    return figure


@style()
def plot_maps(maps: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plots the maps of several models side by side, with one scale of colours, and below them what `plot_map` has.

    Args:
        maps: contents of files that `tune --map --data` wrote, by the title of the model.

    Raises:
        InputError: a map has no restart, not the drift, or another detector.
    """
    for title, content in maps.items():
        if "drift" not in content:
            raise InputError(f"the map of {title} has no drift; make it with --data")
    if len({content.get("detector") for content in maps.values()}) > 1:
        raise InputError("the maps are of different detectors, whose distances cannot be compared; make them with one")
    figure = Figure(figsize=(0.95 * WIDTH * len(maps), 1.9 * WIDTH), facecolor="white", layout="constrained")
    gains, drifts = figure.subplots(2, len(maps), squeeze=False, height_ratios=(1.15, 0.75))
    for axes in drifts[1:]:
        axes.sharey(drifts[0])
    _plot_gains(figure, gains, list(maps.values()))
    for axes, title in zip(gains, maps, strict=True):
        axes.set_title(title, fontsize=8)
    for axes, content in zip(drifts, maps.values(), strict=True):
        _plot_drift(axes, content)
    for axes in (*gains[1:], *drifts[1:]):
        axes.set_ylabel("")
    for axes in drifts[1:]:
        axes.get_legend().remove()
    return figure


def _plot_gains(figure: Figure, panels: Sequence[Any], maps: Sequence[Mapping[str, Any]]) -> None:
    """Plots maps with one bar of colours above them."""
    if not all(content["cells"] for content in maps):
        raise InputError("the map has no restart; make it again")
    # Where restarts harm they harm a hundred times more than they help: the colours tell apart what may be worth it.
    every = [cell for content in maps for cell in content["cells"]]
    most = max(*(cell["gain"] + cell["error"] for cell in every), 1e-9)
    for axes, content in zip(panels, maps, strict=True):
        shown = _plot_gain(axes, content["cells"], most)
    extend = "min" if min(cell["gain"] for cell in every) < -most else "neither"
    bar = figure.colorbar(shown, ax=list(panels), location="top", aspect=40 * len(maps), pad=0.02, extend=extend)
    bar.set_label(
        f"what one restart takes off the Fréchet distance of plan {maps[0]['base']} (numbers: in hundredths)\n"
        f"{_note(maps[0])}".rstrip(),
        fontsize=7,
    )


def _plot_gain(axes: Any, cells: list[dict[str, float]], most: float) -> Any:
    """Plots a map; `most` is the gain of the deepest colour."""
    lows = sorted({cell["t_min"] for cell in cells})
    highs = sorted({cell["t_max"] for cell in cells})
    gains = np.full((len(highs), len(lows)), np.nan)
    for cell in cells:
        x, y = lows.index(cell["t_min"]), highs.index(cell["t_max"])
        gains[y, x] = cell["gain"]
        known = abs(cell["gain"]) > 2 * cell["error"]
        dark = cell["gain"] < -0.6 * most
        colour = ("white" if dark else "black") if known else (_PALE if dark else SECONDARY)
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
    return shown


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
    axes.set_ylabel(f"Fréchet distance to true data\n{_note(content)}".rstrip())
    axes.legend(handles=[drift, passed, others, floor], loc="upper right", handlelength=2.2)


def _note(content: Mapping[str, Any]) -> str:
    """Names the detector in brackets; maps of before 0.2.0 do not know theirs."""
    return detector_note(content["detector"]) if "detector" in content else ""


def _two_digits(value: float) -> str:
    """Writes a number with its sign, and without digits that the error would not bear."""
    return f"{value:+.1f}" if abs(value) < 10 else f"{value:+.0f}"
