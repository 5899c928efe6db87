"""Solvers that remember: one evaluation a step, higher order from the values of the steps before.

The first steps of a descent have lower order, for want of memory: a cold start leaves order 2 of any of them, except
where the first steps hardly count (from sigma_max, where the expected data hardly changes). The step to level 0 is of
first order, which is the exact limit there, and the solvers in lambda take the step before with two values at most
(`usable` says why). A rise drops the memory.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.integrals import (
    DataForm,
    Form,
    NoiseForm,
    SlopeForm,
    combine,
    first_order,
    has_lambda,
    interpolation_weights,
    usable,
)
from restart_sampling.sampling.solvers.protocol import Denoise, SolverDefaults, evaluate

History = tuple[tuple[float, Tensor], ...]
"""(level, value) of the evaluations of this descent, the newest first."""


_EQUAL_GAPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class Multistep(SolverDefaults):
    """What the multistep solvers share; each says what is interpolated, through how many values, and the weights."""

    form: ClassVar[Form]

    @property
    @abstractmethod
    def order(self) -> int:
        """As `Solver` has it."""

    @property
    def values(self) -> int:
        """How many values a step uses, once there are as many: as a rule, the order."""
        return self.order

    def weights(self, process: Process, now: float, then: float, clocks: Sequence[float]) -> list[float]:
        """Returns the weights of the values at these clocks; solvers with published simplifications have their own."""
        return interpolation_weights(clocks, self.form.moments(process, now, then, len(clocks)))

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: History | None = None, process: Process = VE
    ) -> tuple[Tensor, History]:
        """Integrates the polynomial through the newest values."""
        x0 = evaluate(denoise, x, move.now)
        value = self.form.value(process, x, x0, move.now)
        history = ((move.now, value), *(memory or ()))[: self.values]
        landing = self.landing(move, process)
        if not has_lambda(process, move.now, landing):
            return first_order(process, x, x0, move.now, landing), history
        used = usable(self.form, process, move, history)
        clocks = [self.form.clock(process, level) for level, _ in used]
        weights = self.weights(process, move.now, move.then, clocks)
        keep = self.form.keep(process, move.now, move.then)
        return combine(weights, [value for _, value in used], keep * x), history


@dataclass(frozen=True)
class AdamsBashforth(Multistep):
    """Adams-Bashforth of variable step, in the level: order 1 to 4, written `ab:order=3`.

    Attributes:
        order: values of a step.

    Raises:
        InputError: an order out of range.

    Source: Adams and Bashforth 1883; for VE it is Zhang and Chen 2023 (arXiv 2204.13902), rho-AB-DEIS.
    """

    name: ClassVar[str] = "ab"
    form: ClassVar[Form] = SlopeForm()
    order: int = 3

    def __post_init__(self) -> None:
        require_within("ab", "order", self.order, 1, 4)


@dataclass(frozen=True)
class IPNDM(Multistep):
    """Improved PNDM: the fixed fourth-order Adams-Bashforth weights on any grid, hence of order 2 on Karras levels.

    On levels with equal gaps its order is 4.

    Source: Liu et al. 2022 (arXiv 2202.09778), started at lower orders as in Zhang and Chen 2023 (arXiv 2204.13902).
    """

    name: ClassVar[str] = "ipndm"
    order: ClassVar[int] = 2
    form: ClassVar[Form] = SlopeForm()
    values: ClassVar[int] = 4

    def weights(self, process: Process, now: float, then: float, clocks: Sequence[float]) -> list[float]:
        """Returns fixed numbers times the step."""
        return [(then - now) * weight for weight in _EQUAL_GAPS[len(clocks) - 1]]


@dataclass(frozen=True)
class DEIS(Multistep):
    """DEIS in log rho: the noise as a polynomial in lambda, integrated exactly: order 1 to 3, `deis:order=3`.

    Attributes:
        order: values of a step.

    Raises:
        InputError: an order out of range.

    Source: Zhang and Chen 2023 (arXiv 2204.13902), with the polynomial in log rho.
    """

    name: ClassVar[str] = "deis"
    form: ClassVar[Form] = NoiseForm()
    order: int = 3

    def __post_init__(self) -> None:
        require_within("deis", "order", self.order, 1, 3)


@dataclass(frozen=True)
class DPMSolverPlusPlus2M(Multistep):
    """DPM-Solver++(2M), the published weights: the data's slope counts for half the step.

    Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.
    """

    name: ClassVar[str] = "dpmpp_2m"
    order: ClassVar[int] = 2
    form: ClassVar[Form] = DataForm()

    def weights(self, process: Process, now: float, then: float, clocks: Sequence[float]) -> list[float]:
        """Returns those with the moments of `half_step_slope`."""
        return interpolation_weights(clocks, half_step_slope(self.form, process, now, then, len(clocks)))


@dataclass(frozen=True)
class DPMSolverPlusPlus3M(Multistep):
    """DPM-Solver++ with three values, integrated exactly, which has order 3 (in diffusers and k-diffusion it has 2).

    Source: Lu et al. 2022 (arXiv 2211.01095), the multistep form of its expansion in lambda.
    """

    name: ClassVar[str] = "dpmpp_3m"
    order: ClassVar[int] = 3
    form: ClassVar[Form] = DataForm()


def half_step_slope(form: Form, process: Process, now: float, then: float, count: int) -> list[float]:
    """Returns the moments of `form`, but where there are two, the second is half the step times the first.

    That is what DPM-Solver++(2M) and UniPC's B2(h) of order 2 have; it differs from the exact one at third order.
    """
    moments = form.moments(process, now, then, count)
    if count == 2:
        moments[1] = moments[0] * (form.clock(process, then) - form.clock(process, now)) / 2
    return moments


def require_within(name: str, key: str, value: int, low: int, high: int) -> None:
    """Makes sure that a setting of a solver, `name:key=value`, is a whole number from low to high.

    Raises:
        InputError: it is none.
    """
    if not low <= whole_number(f"{name}:{key}", value) <= high:
        raise InputError(f"{name}:{key}={value} does not exist; give {key} from {low} to {high}")
