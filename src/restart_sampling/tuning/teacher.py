"""Stage 0, without data: the levels of a main grid at which a solver stays closest to a fine ODE, its teacher.

The teacher is run once. A solver's step is linear in the states and in the denoiser's outputs, so its error is a
quadratic form of their inner products, and what the network would say along the way is taken from the teacher's own
path: then no step needs the network, and the best levels for any number of steps follow by dynamic programming.

A teacher has the network's error, which is what restarts contract, so a distance to it can choose levels, and never
restarts.

Source: Chen et al. 2024 (arXiv 2405.11326): GITS, which has the idea for Euler's steps.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf, log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.files import write_json
from restart_sampling.base.strict_json import parse_numbers
from restart_sampling.generation.seeds import cut
from restart_sampling.sampling.follow import follow, walk
from restart_sampling.sampling.levels import power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.noise import Noise
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.restart_path import ode_path
from restart_sampling.sampling.solvers.by_name import make_solver
from restart_sampling.sampling.solvers.multistep import AdamsBashforth
from restart_sampling.sampling.solvers.protocol import Denoise, Solver, evaluate
from restart_sampling.tuning.space import ODE_SOLVERS, Grids

Begin = Callable[[Sequence[int]], tuple[Denoise, Noise, tuple[int, ...]]]
"""The denoiser and the noise of some seeds, and the shape of a sample."""

SEEDS = 256
LEAST_SEEDS = 8
"""However short the time is: each has thousands of values."""
POINTS = 61
"""Levels of the teacher, at the least; two for each step that is asked for."""


class Teacher:
    """A fine ODE of a net, and how close plans come to it.

    Args:
        net: of the levels.
        begin: starts seeds.
        steps: the most that a main grid will have.
        seeds: to follow the ODE with, or the first of them, as the time allows.
        batch: of them at a time.
        seconds: that following them may take, of one call that is timed; not for fewer seeds than `LEAST_SEEDS`.
        more: calls for each seed in that time beside those of the ODE.
    """

    def __init__(
        self,
        net: Net,
        begin: Begin,
        steps: int,
        seeds: Sequence[int] = range(SEEDS),
        batch: int = 64,
        seconds: float = inf,
        more: int = 0,
    ) -> None:
        self.net, self.begin, self.steps, self.batch = net, begin, steps, batch
        self._asked, self._seconds, self._more = seeds, seconds, more
        low, high = max(0.002, net.sigma_min), min(80.0, net.sigma_max)
        fine = power_grid(max(POINTS, 2 * steps + 1) - 1, high, low)
        self.levels = (*dict.fromkeys(map(net.round_level, fine)), 0.0)

    def grids(self, solver: str) -> dict[int, tuple[float, ...]]:
        """Finds the best levels of an ODE solver, by its name, for each number of steps from 2 up."""
        return self._best_levels(make_solver(solver), self._products)

    def distance(self, plan: Plan) -> float:
        """Measures how far a plan without noise ends from the teacher: root mean square over seeds and values."""
        ends = self._follow(net_path(self.net, plan), plan.solvers[0])
        return (ends - self._ends).square().mean().sqrt().item()

    @cached_property
    def seeds(self) -> Sequence[int]:
        """Those that the time allows."""
        if self._seconds == inf:
            return self._asked
        count = min(len(self._asked), self._seconds / self.seed_seconds)  # inf of as many minutes
        return self._asked[: max(LEAST_SEEDS, int(count))]

    @cached_property
    def seed_seconds(self) -> float:
        """What a seed takes, by the second of two calls."""
        device = self.net.device
        count = self.batch if device.type == "cuda" else min(self.batch, LEAST_SEEDS)
        denoise, noise, shape = self.begin(range(count))
        x = noise.start(shape, self.levels[0])
        with torch.no_grad():
            for _ in range(2):
                start = time.perf_counter()
                evaluate(denoise, x, self.levels[0]).sum().item()
        return (time.perf_counter() - start) / count * (len(self.levels) - 1 + self._more)

    @cached_property
    def _ends(self) -> Tensor:
        return self._follow(ode_path(self.levels), AdamsBashforth())

    def _follow(self, path: NoisePath, solver: Solver) -> Tensor:
        """Follows a path with all seeds; returns the states at its end."""
        ends = []
        for seeds in cut(self.seeds, self.batch):
            denoise, noise, shape = self.begin(seeds)
            x = noise.start(shape, path.levels[0])
            ends.append(follow(denoise, x, path, solver, process=self.net.process, perturb=noise))
        return torch.cat(ends)

    @cached_property
    def _products(self) -> Tensor:
        """Mean inner products of the teacher's states at all levels and, behind them, the denoiser's outputs there."""
        total, count = torch.zeros(1, dtype=torch.float64), 0
        for seeds in cut(self.seeds, self.batch):
            denoise, noise, shape = self.begin(seeds)
            x = noise.start(shape, self.levels[0])
            states = [x.flatten()]
            outputs: list[Tensor] = []

            def kept(x: Tensor, level: Tensor, denoise: Denoise = denoise, outputs: list[Tensor] = outputs) -> Tensor:
                outputs.append(denoise(x, level).to(x.dtype, copy=True).flatten())
                return outputs[-1].reshape(x.shape)

            moves = walk(kept, x, ode_path(self.levels), AdamsBashforth(), process=self.net.process, perturb=noise)
            states += [state.flatten() for _, _, state in moves]
            vectors = torch.stack([*states, *outputs]).double()
            total = total + (vectors @ vectors.T).cpu()
            count += x.numel()
        return total / count

    def _best_levels(self, solver: Solver, products: Tensor) -> dict[int, tuple[float, ...]]:
        """Minimizes the sum of the steps' errors by dynamic programming, for all numbers of steps at once."""
        last = len(self.levels) - 1
        errors = torch.full((last + 1, last + 1), torch.inf, dtype=torch.float64)
        for start, end, weights in self._all_steps(solver):
            errors[start, end] = (weights @ products @ weights).clamp(min=0).sqrt()
        total, before, found = errors[0], [], {}
        for steps in range(2, min(self.steps, last) + 1):
            total, place = (total[:, None] + errors).min(dim=0)
            before.append(place)
            places = [last]
            for each in reversed(before):
                places.append(int(each[places[-1]]))
            found[steps] = tuple(self.levels[each] for each in (0, *reversed(places)))
        return found

    def _all_steps(self, solver: Solver) -> Iterator[tuple[int, int, Tensor]]:
        """Yields every step, by the places of its levels, with its error as weights of the teacher's vectors.

        The history of a multistep solver is taken to be one step before it, over as many levels.
        """
        last, process = len(self.levels) - 1, self.net.process
        path = _OnPath(self.levels)
        for start in range(last):
            for end in range(start + 1, last + 1):
                memory = None
                if (earlier := max(0, 2 * start - end)) < start:
                    move = Move(self.levels[earlier], self.levels[start], left=3)
                    _, memory = solver.step(path, path.state(earlier), move, None, process)
                move = Move(self.levels[start], self.levels[end], left=0 if end == last else 2)
                x, _ = solver.step(path, path.state(start), move, memory, process)
                yield start, end, (x - path.state(end))[0]


class KeptGrids(Grids):
    """The teacher's grids of ODE solvers, each found when it is asked for, and kept in a file.

    Args:
        path: of the file.
        teacher: finds them.
    """

    def __init__(self, path: Path, teacher: Teacher) -> None:
        self._path, self._teacher = path, teacher
        kept: dict[str, Any] = parse_numbers(path.read_text("utf-8")) if path.exists() else {"steps": 0}
        self._found = kept["grids"] if kept["steps"] >= teacher.steps else {}

    def __getitem__(self, solver: str) -> Mapping[int, tuple[float, ...]]:
        if solver not in ODE_SOLVERS:
            raise KeyError(solver)
        if solver not in self._found:
            self._found[solver] = {str(steps): levels for steps, levels in self._teacher.grids(solver).items()}
            write_json(self._path, {"steps": self._teacher.steps, "grids": self._found})
        return {int(steps): tuple(levels) for steps, levels in self._found[solver].items()}

    def __iter__(self) -> Iterator[str]:
        return iter(ODE_SOLVERS)

    def __len__(self) -> int:
        return len(ODE_SOLVERS)


class _OnPath:
    """The teacher's path as a denoiser of weights: states and outputs are weights [1, 2 n - 1] of the path's vectors.

    Args:
        levels: n of them, the last 0, where there is no output.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.count = len(levels)
        self._logs = [-log(level) for level in levels[:-1]]

    def state(self, place: int) -> Tensor:
        """Returns the weights of the state at a level."""
        weights = torch.zeros(1, 2 * self.count - 1, dtype=torch.float64)
        weights[0, place] = 1
        return weights

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """Returns the weights of the output at a level, between two of the path's linear in its logarithm."""
        wanted = -log(level.item())
        after = min(max(bisect_left(self._logs, wanted - 1e-9), 1), len(self._logs) - 1)
        low, high = self._logs[after - 1], self._logs[after]
        part = min(max((wanted - low) / (high - low), 0.0), 1.0)
        weights = torch.zeros_like(x)
        weights[0, self.count + after - 1] = 1 - part
        weights[0, self.count + after] = part
        return weights
