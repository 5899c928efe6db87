"""What a solver is: the protocol that the loop calls, and what the solvers share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numerics import state_dtype
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process

Denoise = Callable[[Tensor, Tensor], Tensor]
"""denoise(x, sigma) -> x0: x and x0 [B, ...], sigma [B] holds the level of each image."""


class Solver(Protocol):
    """One step of an ODE (or stochastic) solver, without mutable state of its own."""

    name: ClassVar[str]

    @property
    def order(self) -> int:
        """Order of convergence between two positive levels, from exact history (of a stochastic one: of its drift)."""

    def evaluations(self, move: Move) -> int:
        """Counts the calls of the denoiser that `step` makes for this fall."""

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns where `step` arrives: move.then, or lower for a stochastic solver (the loop adds the noise)."""

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: Any = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        """Falls from move.now to `landing(move, process)`.

        Args:
            denoise: denoise(x, sigma) -> x0.
            x: state [B, ...] at move.now; never written to.
            move: the fall.
            memory: what the step before returned; None at the start, after a rise and after another solver's step.
            process: how the state mixes data and noise.

        Returns:
            The state at the landing, and the memory for the next step.
        """


@dataclass(frozen=True)
class SolverDefaults:
    """Defaults of ODE and SDE solvers: they land on move.then, and call the denoiser once in a step to level 0.

    Attributes:
        calls: of the denoiser, in a step to a positive level.
    """

    calls: ClassVar[int] = 1

    def evaluations(self, move: Move) -> int:
        """Counts `calls`, or one to level 0."""
        return self.calls if move.then > 0 else 1

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns move.then."""
        return move.then


def require_solvers(*solvers: object) -> None:
    """Makes sure that these are solvers, and neither their classes nor their names.

    Raises:
        InputError: one is not.
    """
    for solver in solvers:
        if isinstance(solver, type) or not hasattr(solver, "step"):
            raise InputError(f"the solver is {solver!r}; give one such as rs.Heun(), or rs.make_solver('heun')")


def evaluate(denoise: Denoise, x: Tensor, level: float) -> Tensor:
    """Calls the denoiser once, for x0, the expected data, at `level`.

    Raises:
        InputError: the answer is no tensor of x's shape.
    """
    # float64 also where the state is not: the level conditions the network. Filled on the device, so nothing waits.
    levels = torch.full((x.shape[0],), level, dtype=state_dtype(x.device), device=x.device)
    return like(x, denoise(x.clone(), levels))  # a network may write into its input


def like(x: Tensor, answer: object, who: str = "the denoiser") -> Tensor:
    """Returns a copy, in x's dtype, of what a denoiser or a network answered for the states x.

    A copy, because a solver remembers it, and a network may write its next answer into the same memory.

    Raises:
        InputError: it is no tensor of real numbers of x's shape (a smaller one would be broadcast without a word).
    """
    if isinstance(answer, Tensor) and not answer.is_floating_point():
        raise InputError(f"{who} returned numbers of {answer.dtype}; it must return real ones, such as torch.float32")
    if not isinstance(answer, Tensor) or answer.shape != x.shape:
        returned = f"a tensor {list(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise InputError(
            f"{who} returned {returned} for states {list(x.shape)}; it must return a tensor of their shape"
        )
    return answer.to(x.dtype, copy=True)


def velocity(denoise: Denoise, x: Tensor, level: float, process: Process) -> Tensor:
    """Calls the denoiser once, for dx/dlevel of the probability-flow ODE at `level` > 0."""
    return process.velocity(x, evaluate(denoise, x, level), level)
