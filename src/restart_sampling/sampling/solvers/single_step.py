"""Solvers that need nothing of the steps before: Euler, Heun, the midpoint method, DPM-Solver-2 and -3."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.integrals import Form, NoiseForm, SlopeForm, fall, first_order, has_lambda
from restart_sampling.sampling.solvers.protocol import Denoise, SolverDefaults, evaluate, velocity


@dataclass(frozen=True)
class Euler(SolverDefaults):
    """First order, one evaluation a step: DDIM of Song et al. 2021 (arXiv 2010.02502) in these coordinates."""

    name: ClassVar[str] = "euler"
    order: ClassVar[int] = 1

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Goes along the slope at `now`."""
        return x + (move.then - move.now) * velocity(denoise, x, move.now, process), None


@dataclass(frozen=True)
class Heun(SolverDefaults):
    """Second order, two evaluations a step, but one (an Euler step) to level 0, where the slope is not defined.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1.
    """

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Takes an Euler step, then the same step with the mean of the slopes at both ends."""
        size = move.then - move.now
        slope = velocity(denoise, x, move.now, process)
        x_then = x + size * slope
        if move.then > 0:
            slope_then = velocity(denoise, x_then, move.then, process)
            x_then = x + size * (slope + slope_then) / 2
        return x_then, None


@dataclass(frozen=True)
class Midpoint(SolverDefaults):
    """Second order, two evaluations a step, also to level 0: the slope in the middle, in the level, of each step.

    Source: Runge 1895; the last step to 0 keeps its second evaluation, at half the last level.
    """

    name: ClassVar[str] = "midpoint"
    order: ClassVar[int] = 2

    def evaluations(self, move: Move) -> int:
        """Counts two, also to level 0."""
        return 2

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Takes an Euler step to the middle, then the whole step with the slope there."""
        size, middle = move.then - move.now, (move.now + move.then) / 2
        x_middle = x + size / 2 * velocity(denoise, x, move.now, process)
        return x + size * velocity(denoise, x_middle, middle, process), None


@dataclass(frozen=True)
class DPMSolver2(SolverDefaults):
    """Second order, two evaluations a step, but one (an Euler step) to level 0.

    The midpoint method in lambda = log(alpha / std), with the exponential integrated exactly. From t = 1 of a flow,
    where lambda is not finite, the midpoint method in t.

    Source: Lu et al. 2022 (arXiv 2206.00927), algorithm 1 with r1 = 1/2.
    """

    name: ClassVar[str] = "dpm2"
    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Takes a first-order step to the middle, then the whole step with the noise there."""
        x0 = evaluate(denoise, x, move.now)
        if move.then == 0:
            return first_order(process, x, x0, move.now, 0.0), None
        form, (middle,) = _stages(process, move, 1 / 2)
        first = form.value(process, x, x0, move.now)
        x_middle = fall(form, process, x, move.now, middle, [(move.now, first)])
        second = form.value(process, x_middle, evaluate(denoise, x_middle, middle), middle)
        # The value in the middle for the whole step; the published weights are these and not those of two nodes.
        whole = form.moments(process, move.now, move.then, 1)[0]
        return form.keep(process, move.now, move.then) * x + whole * second, None


@dataclass(frozen=True)
class DPMSolver3(SolverDefaults):
    """Third order, three evaluations a step; the last but one step of the main grid is DPM-Solver-2, the last Euler.

    So N steps take 3 (N - 1) evaluations. In restarts every step is of third order. From t = 1 of a flow, where lambda
    is not finite, the step is Heun's third-order method in t, which has the same nodes.

    Source: Lu et al. 2022 (arXiv 2206.00927), algorithm 2 with r1 = 1/3 and r2 = 2/3; the rule of the last steps is
    that of the Restart authors' generate_dpm_solver.py.
    """

    name: ClassVar[str] = "dpm3"
    order: ClassVar[int] = 3

    def evaluations(self, move: Move) -> int:
        """Counts three, two in the last but one step of the main grid, one to level 0."""
        return DPMSolver2().evaluations(move) if _ends(move) else 3

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Goes to a third at first order, to two thirds at second, then all the way with the first and last value."""
        if _ends(move):
            return DPMSolver2().step(denoise, x, move, None, process)
        form, (third, two_thirds) = _stages(process, move, 1 / 3, 2 / 3)
        first = (move.now, form.value(process, x, evaluate(denoise, x, move.now), move.now))
        x_third = fall(form, process, x, move.now, third, [first])
        second = (third, form.value(process, x_third, evaluate(denoise, x_third, third), third))
        x_later = fall(form, process, x, move.now, two_thirds, [first, second])
        last = (two_thirds, form.value(process, x_later, evaluate(denoise, x_later, two_thirds), two_thirds))
        return fall(form, process, x, move.now, move.then, [first, last]), None


def _ends(move: Move) -> bool:
    return move.then == 0 or move.left == 1


def _stages(process: Process, move: Move, *parts: float) -> tuple[Form, list[float]]:
    """Returns the form of a step to a positive level, and the levels at these parts of it along the form's clock."""
    if not has_lambda(process, move.now, move.then):
        return SlopeForm(), [move.now + part * (move.then - move.now) for part in parts]
    high, low = process.ratio(move.now), process.ratio(move.then)
    return NoiseForm(), [process.level(high * (low / high) ** part) for part in parts]
