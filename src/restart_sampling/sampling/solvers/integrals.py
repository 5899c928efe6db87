"""Exact integrals of interpolated denoiser outputs: the arithmetic that the higher-order solvers share.

A fall from level s to t solves a linear equation driven by what the denoiser says on the way. Between the evaluations
that is taken for the polynomial through their values, and the polynomial is integrated exactly:

    x(t) = keep x(s) + sum_k c_k moments[k],    q(u) = sum_k c_k u^k through the values, u = clock - clock(s)

`SlopeForm`, `NoiseForm` and `DataForm` are the three ways to write the equation; a solver is a choice of one of them
and of where it evaluates. All weights are Python floats, computed on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, factorial, inf, isfinite, log
from operator import mul
from typing import Protocol

from torch import Tensor

from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import Process

_NEAR = 0.01
"""An older value nearer to its neighbour than this share of the step says nothing of the slope but its rounding."""
_NO_DATA = 1e4
"""From this noise-to-data ratio up a level has no place on the lambda clock: steps from it would magnify rounding."""


class Form(Protocol):
    """A way to write the probability-flow ODE: what is interpolated, along which clock, with which weight."""

    def clock(self, process: Process, level: float) -> float:
        """Returns the variable of the polynomial at a level."""

    def value(self, process: Process, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """Returns what is interpolated, like x: from the state and the denoiser's answer at `level`."""

    def keep(self, process: Process, now: float, then: float) -> float:
        """Returns the factor of the state."""

    def moments(self, process: Process, now: float, then: float, count: int) -> list[float]:
        """Returns the weighted integrals of u^k, k = 0 ... count - 1, over the fall."""


@dataclass(frozen=True)
class SlopeForm:
    """dx/dlevel itself, a polynomial in the level: the classical Adams and Runge-Kutta methods."""

    def clock(self, process: Process, level: float) -> float:
        """Returns the level."""
        return level

    def value(self, process: Process, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """Returns dx/dlevel."""
        return process.velocity(x, x0, level)

    def keep(self, process: Process, now: float, then: float) -> float:
        """Returns 1: the integral is all that is added."""
        return 1.0

    def moments(self, process: Process, now: float, then: float, count: int) -> list[float]:
        """Returns h^(k+1) / (k+1)."""
        return [(then - now) ** (k + 1) / (k + 1) for k in range(count)]


@dataclass(frozen=True)
class LambdaForm:
    """What the two forms in lambda = log(alpha / std) share."""

    def clock(self, process: Process, level: float) -> float:
        """Returns lambda."""
        return _lambda(process, level)


@dataclass(frozen=True)
class NoiseForm(LambdaForm):
    """The noise, a polynomial in lambda: x(t) = alpha_t/alpha_s x - alpha_t int e^-lambda noise.

    Source: Lu et al. 2022 (arXiv 2206.00927), equation 3.4.
    """

    def value(self, process: Process, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """Returns (x - alpha x0) / std."""
        return (x - process.alpha(level) * x0) / process.std(level)

    def keep(self, process: Process, now: float, then: float) -> float:
        """Returns alpha_t / alpha_s."""
        return process.alpha(then) / process.alpha(now)

    def moments(self, process: Process, now: float, then: float, count: int) -> list[float]:
        """Returns -std_t k! h^(k+1) phi_(k+1)(h)."""
        h = self.clock(process, then) - self.clock(process, now)
        return [-process.std(then) * moment for moment in _exponential_moments(h, -1.0, count)]


@dataclass(frozen=True)
class DataForm(LambdaForm):
    """The data, a polynomial in lambda: x(t) = std_t/std_s x + std_t int e^lambda x0.

    With tau above 0 it is the drift of the reverse SDE with tau times the noise that keeps the marginals; the state
    then belongs to the lower level with lambda_d = lambda_t + tau^2 h, from where a rise to t adds exactly that noise.

    Attributes:
        tau: 0 for the ODE, 1 for the usual SDE.

    Source: Lu et al. 2022 (arXiv 2211.01095), equation 8; Xue et al. 2023 (arXiv 2309.05019), for constant tau.
    """

    tau: float = 0.0

    def value(self, process: Process, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """Returns x0."""
        return x0

    def landing(self, process: Process, now: float, then: float) -> float:
        """Returns the level d with noise-to-data ratio r_t (r_t / r_s)^(tau^2); `then` itself for tau = 0."""
        if self.tau == 0:
            return then
        low, high = process.ratio(then), process.ratio(now)
        return process.level(low * (low / high) ** self.tau**2)

    def keep(self, process: Process, now: float, then: float) -> float:
        """Returns std_d / std_s."""
        return process.std(self.landing(process, now, then)) / process.std(now)

    def moments(self, process: Process, now: float, then: float, count: int) -> list[float]:
        """Returns alpha_d times the integrals of c e^(-c (h - u)) u^k with c = 1 + tau^2."""
        h = self.clock(process, then) - self.clock(process, now)
        c, alpha = 1 + self.tau**2, process.alpha(self.landing(process, now, then))
        return [alpha * c * moment for moment in _exponential_moments(h, c, count)]


def fall(
    form: Form, process: Process, x: Tensor, now: float, then: float, values: Sequence[tuple[float, Tensor]]
) -> Tensor:
    """Returns the state at `then`, from (level, value) pairs, the first of them at `now`."""
    levels = [level for level, _ in values]
    moments = form.moments(process, now, then, len(levels))
    weights = interpolation_weights([form.clock(process, level) for level in levels], moments)
    return combine(weights, [value for _, value in values], form.keep(process, now, then) * x)


def combine(weights: Sequence[float], values: Sequence[Tensor], start: Tensor | float = 0.0) -> Tensor:
    """Returns start + sum_j weights[j] values[j]."""
    total = start
    for weight, value in zip(weights, values, strict=True):
        total = total + weight * value
    assert isinstance(total, Tensor)
    return total


def interpolation_weights(clocks: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Returns w with sum_j w_j q(u_j) = sum_k c_k moments[k] for every polynomial q = sum_k c_k u^k through the nodes.

    Args:
        clocks: of the nodes, all different; u is measured from the first.
        moments: as many.
    """
    nodes = [clock - clocks[0] for clock in clocks]
    weights = []
    for j, node in enumerate(nodes):
        basis = [1.0]  # coefficients of the Lagrange polynomial of node j
        for other in nodes[:j] + nodes[j + 1 :]:
            basis = [
                (low - other * high) / (node - other) for low, high in zip([0.0, *basis], [*basis, 0.0], strict=True)
            ]
        weights.append(sum(map(mul, basis, moments)))
    return weights


def usable(
    form: Form, process: Process, move: Move, values: Sequence[tuple[float, Tensor]]
) -> tuple[tuple[float, Tensor], ...]:
    """Chooses, of (level, value) pairs, the newest first, those that a step may use; always the first, of now.

    A value at a level without data (t = 1 of a flow) has no place on the clock of NoiseForm and DataForm, and
    of two values that nearly meet only the newer one is used: the order falls for that step, and rounding cannot grow.

    lambda never arrives at level 0, so that the last steps are the longest on it, and a polynomial of high order can
    go astray in them: no step uses more values than there are steps left. Published implementations have that rule
    (UniPC of Zhao et al. 2023, arXiv 2302.04867; `lower_order_final` in diffusers).
    """
    clocks = [form.clock(process, level) for level, _ in values]
    step = form.clock(process, move.then) - clocks[0]
    kept: list[int] = []
    for index, clock in enumerate(clocks):
        if not kept or (isfinite(clock) and abs(clock - clocks[kept[-1]]) > _NEAR * abs(step)):
            kept.append(index)
    if move.left is not None and not isfinite(form.clock(process, 0.0)):
        kept = kept[: move.left + 1]
    return tuple(values[index] for index in kept)


def first_order(process: Process, x: Tensor, x0: Tensor, now: float, then: float) -> Tensor:
    """Takes the step that all forms have in common (DDIM, Euler): std_t/std_s x + (alpha_t - alpha_s std_t/std_s) x0.

    The only one that is defined to level 0, where it gives x0, and from t = 1 of a flow, where there is no data yet.
    """
    shrink = process.std(then) / process.std(now)
    return shrink * x + (process.alpha(then) - process.alpha(now) * shrink) * x0


def has_lambda(process: Process, now: float, then: float) -> bool:
    """Says whether both ends of a fall have a place on the lambda clock: data at `now`, noise at `then`."""
    return isfinite(_lambda(process, now)) and isfinite(_lambda(process, then))


def phi(k: int, z: float) -> float:
    """Computes the exponential integrators' phi_k(z) = int_0^1 e^((1 - s) z) s^(k-1) / (k-1)! ds; phi_0 = e^z."""
    if abs(z) < 1:  # the recurrence would cancel
        return sum(z**j / factorial(j + k) for j in range(20))
    value = exp(z)
    for j in range(k):
        value = (value - 1 / factorial(j)) / z
    return value


def _exponential_moments(h: float, c: float, count: int) -> list[float]:
    """Computes int_0^h e^(-c (h - u)) u^k du = k! h^(k+1) phi_(k+1)(-c h)."""
    return [factorial(k) * h ** (k + 1) * phi(k + 1, -c * h) for k in range(count)]


def _lambda(process: Process, level: float) -> float:
    ratio = process.ratio(level)
    if ratio == 0:
        return inf
    return -log(ratio) if ratio < _NO_DATA else -inf
