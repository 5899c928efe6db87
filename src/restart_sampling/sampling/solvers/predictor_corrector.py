"""Multistep solvers that correct each step with the evaluation of the next one, which costs nothing more.

A step predicts the state at its end. The next step evaluates the denoiser there, corrects the state with that value
among the interpolated ones, and goes on from the corrected state with the same value. So there is one evaluation a
step, none of them wasted: only the last state of a descent stays as predicted.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.integrals import (
    DataForm,
    combine,
    first_order,
    has_lambda,
    interpolation_weights,
    usable,
)
from restart_sampling.sampling.solvers.multistep import History, half_step_slope, require_within
from restart_sampling.sampling.solvers.protocol import Denoise, SolverDefaults, evaluate


@dataclass(frozen=True)
class Prediction:
    """The memory: a step that is not corrected yet.

    Attributes:
        move: the step.
        history: the values that it used, of its beginning first.
        increment: what they added to the state at its landing, like x; None where there is nothing to correct, at the
            ends of the levels.
    """

    move: Move
    history: History
    increment: Tensor | None


@dataclass(frozen=True)
class PredictorCorrector(SolverDefaults):
    """What UniPC and SA-Solver share: the data as a polynomial in lambda, once without and once with the end's value.

    Attributes:
        p: values of the predictor; the corrector has one more.
    """

    name: ClassVar[str]
    p: int = 3

    def __post_init__(self) -> None:
        require_within(self.name, "p", self.p, 1, 3)

    @property
    def order(self) -> int:
        """The order with the corrector."""
        return self.p + 1

    @abstractmethod
    def form(self, move: Move) -> DataForm:
        """Returns how the equation of this step is written."""

    def moments(self, form: DataForm, process: Process, move: Move, count: int) -> list[float]:
        """Integrates the terms of the polynomial over a step."""
        return form.moments(process, move.now, move.then, count)

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: Prediction | None = None, process: Process = VE
    ) -> tuple[Tensor, Prediction]:
        """Corrects the step before, if there was one, and predicts this one."""
        x0 = evaluate(denoise, x, move.now)
        history: History = ((move.now, x0),)
        if memory:
            x = self._correct(x, x0, memory, process)
            history += memory.history[: self.p - 1]
        landing = self.landing(move, process)
        if not has_lambda(process, move.now, landing):
            return first_order(process, x, x0, move.now, landing), Prediction(move, history, None)
        form = self.form(move)
        history = usable(form, process, move, history)
        increment = self._increment(form, process, move, history)
        return form.keep(process, move.now, move.then) * x + increment, Prediction(move, history, increment)

    def _correct(self, x: Tensor, x0: Tensor, memory: Prediction, process: Process) -> Tensor:
        """Returns where the step before would have led with the value at its end; its noise, if any, is kept."""
        move, form = memory.move, self.form(memory.move)
        if memory.increment is None:
            return x
        start, *older = memory.history
        corrected = self._increment(form, process, move, (start, (move.then, x0), *older))
        return x + self._raised(move, process) * (corrected - memory.increment)

    def _raised(self, move: Move, process: Process) -> float:
        """Returns what the loop multiplied the state by at the landing, when it added noise to it."""
        return process.alpha(move.then) / process.alpha(self.landing(move, process))

    def _increment(self, form: DataForm, process: Process, move: Move, history: History) -> Tensor:
        clocks = [form.clock(process, level) for level, _ in history]
        weights = interpolation_weights(clocks, self.moments(form, process, move, len(clocks)))
        return combine(weights, [value for _, value in history])


@dataclass(frozen=True)
class UniPC(PredictorCorrector):
    """UniPC-p with B2(h), corrector on: order p + 1, one evaluation a step; `unipc:p=2`, default 3.

    The B2(h) of the paper cancels wherever its linear system is solved; it remains where two values are interpolated,
    as `half_step_slope`. A cold start leaves order 3 of p = 3; p = 1 and 2 lose nothing, thanks to the corrector.

    Raises:
        InputError: p out of range.

    Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 and 2, for the prediction of data.
    """

    name: ClassVar[str] = "unipc"

    def form(self, move: Move) -> DataForm:
        """Returns the form of the ODE."""
        return DataForm()

    def moments(self, form: DataForm, process: Process, move: Move, count: int) -> list[float]:
        """Returns those of `half_step_slope`."""
        return half_step_slope(form, process, move.now, move.then, count)


@dataclass(frozen=True)
class SASolver(PredictorCorrector):
    """SA-Solver: stochastic Adams methods with a corrector, one evaluation a step; `sa:tau=0.5`.

    Between the levels low and high it solves the reverse SDE with tau times the usual noise, elsewhere the ODE. A step
    lands below its end, the loop adds the noise, and the corrector keeps that noise.

    Attributes:
        tau: 0 for the ODE, 1 for the usual SDE.
        low: lowest level that a noisy step begins at.
        high: highest one.

    Raises:
        InputError: tau, p or a level out of range.

    Source: Xue et al. 2023 (arXiv 2309.05019), with exact weights throughout (the authors' script has coarser ones
    where two values are interpolated). The interval is that of EDM's noise for CIFAR-10; for ImageNet-64 high is 50.
    """

    name: ClassVar[str] = "sa"
    tau: float = 1.0
    low: float = 0.05
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tau", "low", "high"):
            real_number(f"sa:{name}", getattr(self, name))
        if not (0 <= self.tau <= 1000 and self.low <= self.high):  # its square is an exponent
            raise InputError(f"sa needs a finite tau, 0 or above and at most 1000, and low <= high; given {self}")

    def form(self, move: Move) -> DataForm:
        """Returns the SDE's from a level within the interval, the ODE's from others."""
        return DataForm(self.tau if self.low <= move.now <= self.high else 0.0)

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns a level below move.then while there is noise to add."""
        return self.form(move).landing(process, move.now, move.then)
