"""The map of a model: what one restart does at each pair of levels, and where the ODE's errors come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, format_number
from restart_sampling.evaluation.distances import frechet_distances
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.evaluation.statistics import statistics_of
from restart_sampling.generation.net_drawing import NetDrawing, as_pixels
from restart_sampling.generation.seeds import cut
from restart_sampling.images.image_set import ImageSet
from restart_sampling.sampling.follow import follow, walk
from restart_sampling.sampling.levels import power_grid
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.noise import Noise
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.restart_path import ode_path
from restart_sampling.sampling.solvers.protocol import Denoise
from restart_sampling.sampling.solvers.single_step import Heun
from restart_sampling.tuning.allowed import GROUPS
from restart_sampling.tuning.bench import LOOK, Bench
from restart_sampling.tuning.score import difference

BASE = "18"
"""The plan that each restart is added to."""
LEVELS = 0.05, 20.0
"""The lowest and the highest noise-to-data ratio."""
POINTS = 3
"""Of a pass, which has two steps."""
BEST = 5
"""Pairs of levels that a search begins with."""


def map_levels(net: Net) -> list[float]:
    """Returns the levels of the base plan between which restarts are tried, falling."""
    levels = Plan.parse(BASE).levels(net.sigma_min, net.sigma_max)
    return [float(f"{level:.4g}") for level in levels[1:] if LEVELS[0] <= net.process.ratio(level) <= LEVELS[1]]


def count_map_evaluations(net: Net, seeds: int) -> int:
    """Counts the evaluations of a map with so many seeds."""
    plans = map(Plan.parse, [BASE, *_map_plans(net).values()])
    return seeds * sum(plan.path(net.sigma_min, net.sigma_max).nfe(*plan.solvers) for plan in plans)


def _map_plans(net: Net) -> dict[tuple[float, float], str]:
    """Writes the base plan with one restart, by its t_min and t_max."""
    pairs = [(low, high) for high, low in combinations(map_levels(net), 2)]
    return {(low, high): f"{BASE} [{POINTS},1,{format_number(low)},{format_number(high)}]" for low, high in pairs}


def map_restarts(net: Net, bench: Bench, seeds: range) -> list[dict[str, float]]:
    """Measures the base plan with one restart at each pair of levels; all processes call this.

    Returns:
        For each t_min and t_max the `gain`, by which the distance is lower than the base plan's on the same seeds, and
        its standard error.
    """
    plans = _map_plans(net)
    if not plans:
        raise InputError(
            f"the model has no two levels between which restarts are mapped: their noise-to-data ratio is "
            f"{LEVELS[0]:g} to {LEVELS[1]:g}; leave the map out"
        )
    base, *results = bench.each("map", [BASE, *plans.values()], seeds, groups=GROUPS)
    if base.score is None:
        raise InputError(f"the plan {BASE} could not be measured: {base.error}; {LOOK}")
    cells = []
    for (low, high), result in zip(plans, results, strict=True):
        if result.score:
            found = difference(base.score, result.score)
            cells.append({"t_min": low, "t_max": high, "gain": found.value, "error": found.error})
    if not cells:
        raise InputError(f"no plan with a restart could be measured: {results[0].error}; {LOOK}")
    return cells


def best_intervals(cells: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """Lists t_min and t_max of what helps most of what helps beyond its error: `BEST` pairs at most."""
    sure = sorted((cell for cell in cells if cell["gain"] > 2 * cell["error"]), key=lambda cell: -cell["gain"])
    return [(cell["t_min"], cell["t_max"]) for cell in sure[:BEST]]


@dataclass(frozen=True)
class Marginals:
    """True data at noise levels, to compare states with, by the features of what the denoiser says of them.

    Attributes:
        draw: makes the drawing of the base plan for classes by seed; None: they are drawn.
        setup: of the detector.
        data: true images.
        count: of those that are compared; twice as many are needed, as the floor is the distance of two such sets.
    """

    draw: Callable[[Mapping[int, int] | None], NetDrawing]
    setup: EvaluationSetup
    data: ImageSet
    count: int

    def measure(self, levels: Sequence[float]) -> dict[str, list[dict[str, float]]]:
        """Measures Fréchet distances to true data at each level.

        Returns:
            `drift`, for each level the `value` of the ODE's states and the `floor` of another set of true data; and
            `passes`, for each t_min and t_max the additional error, the `value` of true data after one pass of a
            restart: noised to t_max, and solved to t_min.
        """
        places = np.random.RandomState(0).permutation(len(self.data))[: 2 * self.count].tolist()
        if len(places) < 2 * self.count:
            raise InputError(f"the data has {counted(len(self.data), 'image')}; give {2 * self.count} or more")
        truth, other = places[: self.count], places[self.count :]
        true = self._features(truth, lambda denoise, noise, x0: ((t, noise(x0, 0.0, t)) for t in levels))
        floor = self._features(other, lambda denoise, noise, x0: ((t, noise(x0, 0.0, t)) for t in levels))
        above = [level for level in self.draw(None).path.levels if level > levels[0]]
        ode = self._features(other, lambda denoise, noise, x0: _ode_states(denoise, noise, x0, above, levels))
        pairs = [(low, high) for high, low in combinations(levels, 2)]
        after = self._features(other, lambda denoise, noise, x0: _passes(denoise, noise, x0, pairs))
        drift, passes = [], []
        for level in levels:
            highs = [high for low, high in pairs if low == level]
            states = [ode[level], floor[level], *(after[level, high] for high in highs)]
            value, least, *after_passes = frechet_distances(
                [statistics_of(state) for state in states], statistics_of(true[level])
            )
            drift.append({"level": level, "value": value, "floor": least})
            passes += [
                {"t_min": level, "t_max": high, "value": each} for high, each in zip(highs, after_passes, strict=True)
            ]
        return {"drift": drift, "passes": passes}

    def _features(
        self, places: Sequence[int], states: Callable[[Denoise, Noise, Tensor], Iterator[tuple[Any, Tensor]]]
    ) -> dict[Any, Tensor]:
        """Collects the features of the denoiser's outputs, by what the states are named: a level, or (level, more)."""
        images = self.data.take(places)
        classes = None if images.labels is None else dict(zip(places, images.labels.tolist(), strict=True))
        drawing = self.draw(classes)
        if getattr(drawing.net, "label_dim", 0) and classes is None:
            raise InputError("the model has classes, and the data has none; give data with classes")
        found: dict[Any, list[Tensor]] = {}
        for own, batch in zip(cut(places, drawing.batch), images.batches(drawing.batch), strict=True):
            denoise, noise, start = drawing.begin(own)
            x0 = (torch.from_numpy(batch).to(start) - 127.5) / 127.5
            for name, x in states(denoise, noise, x0):
                level = name[0] if isinstance(name, tuple) else name
                with torch.no_grad():
                    output = denoise(x, torch.full((len(x),), level, dtype=torch.float64, device=x.device))
                found.setdefault(name, []).append(self.setup.detector(as_pixels(output)).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}


def _ode_states(
    denoise: Denoise, noise: Noise, x0: Tensor, above: Sequence[float], levels: Sequence[float]
) -> Iterator[tuple[float, Tensor]]:
    """Yields the states of the ODE at the levels, on its way from those above."""
    path = ode_path([*above, *levels])
    x = noise.start(x0.shape[1:], path.levels[0])
    for _, move, state in walk(denoise, x, path, Heun(), process=noise.process, perturb=noise):
        if move.then in levels:
            yield move.then, state


def _passes(
    denoise: Denoise, noise: Noise, x0: Tensor, pairs: Sequence[tuple[float, float]]
) -> Iterator[tuple[tuple[float, float], Tensor]]:
    """Yields true data after a pass at each pair of levels."""
    for low, high in pairs:
        path = ode_path(power_grid(POINTS, high, low))
        yield (low, high), follow(denoise, noise(x0, 0.0, high), path, Heun(), process=noise.process, perturb=noise)
