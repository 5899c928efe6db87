"""Solvers of the probability-flow ODE: each takes one fall of a noise path at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from restart_sampling.errors import InputError
from restart_sampling.sampling.noise_path import Move
from restart_sampling.sampling.process import VE, Process

Denoise = Callable[[Tensor, Tensor], Tensor]
"""denoise(x, sigma) -> x0: x and x0 [B, ...], sigma [B] holds the level of each image."""


class Solver(Protocol):
    """One step of an ODE (or stochastic) solver, without mutable state of its own.

    Attributes:
        name: the word for it in a plan.
        order: of convergence, between two positive levels.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    def evaluations(self, move: Move) -> int:
        """Calls of the denoiser that `step` makes for this fall."""
        ...

    def landing(self, move: Move) -> float:
        """The level that `step` arrives at: move.then, or lower for a stochastic solver (the loop adds the noise)."""
        ...

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: Any = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        """Falls from move.now to `landing(move)`.

        Args:
            denoise: denoise(x, sigma) -> x0.
            x: state [B, ...] at move.now; never written to.
            move: the fall.
            memory: what the step before returned; None at the start, after a rise and after another solver's step.
            process: how the state mixes data and noise.

        Returns:
            The state at `landing(move)`, and the memory for the next step.
        """
        ...


def velocity(denoise: Denoise, x: Tensor, level: float, process: Process) -> Tensor:
    """dx/dlevel of the probability-flow ODE at `level` > 0: one call of the denoiser."""
    # float64 also where the state is not: the level conditions the network. Filled on the device, so nothing waits.
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    sigma = torch.full((x.shape[0],), level, dtype=dtype, device=x.device)
    return process.velocity(x, denoise(x, sigma), level)


@dataclass(frozen=True)
class Euler:
    """First order, one evaluation a step: DDIM of Song et al. 2021 (arXiv 2010.02502) in these coordinates."""

    name: ClassVar[str] = "euler"
    order: ClassVar[int] = 1

    def evaluations(self, move: Move) -> int:
        """One."""
        return 1

    def landing(self, move: Move) -> float:
        """move.then."""
        return move.then

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """x + (then - now) dx/dlevel."""
        return x + (move.then - move.now) * velocity(denoise, x, move.now, process), None


@dataclass(frozen=True)
class Heun:
    """Second order, two evaluations a step, but one (an Euler step) to level 0, where the slope is not defined.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1.
    """

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2

    def evaluations(self, move: Move) -> int:
        """Two, or one to level 0."""
        return 2 if move.then > 0 else 1

    def landing(self, move: Move) -> float:
        """move.then."""
        return move.then

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """An Euler step, then the same step with the mean of the slopes at both ends."""
        size = move.then - move.now
        slope = velocity(denoise, x, move.now, process)
        x_then = x + size * slope
        if move.then > 0:
            slope_then = velocity(denoise, x_then, move.then, process)
            x_then = x + size * (slope + slope_then) / 2
        return x_then, None


SOLVERS: dict[str, type[Solver]] = {solver.name: solver for solver in (Euler, Heun)}


def make_solver(name: str) -> Solver:
    """The solver of this name, as plans write it.

    Raises:
        InputError: there is none of this name.
    """
    if name not in SOLVERS:
        raise InputError(f"it needs solver {name}, which does not exist; available: {', '.join(SOLVERS)}")
    return SOLVERS[name]()
