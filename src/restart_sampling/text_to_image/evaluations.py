"""`sample` turned inside out: diffusers pipelines call the model themselves, once for each call of a scheduler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from restart_sampling.errors import InputError
from restart_sampling.sampling.noise_path import Move, NoisePath
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.sample import Perturb, sample
from restart_sampling.sampling.solver import Denoise, ODESolver
from restart_sampling.sampling.solvers import Euler, Solver, make_solver

SINGLE_STEP = ("euler", "heun", "midpoint", "dpm2", "dpm3", "ddim")
"""Solvers that keep nothing from one step to the next (`ddpm` is ddim's)."""


@dataclass(frozen=True)
class Evaluation:
    """One call of the model.

    Attributes:
        move: index, in the path, of the fall that it belongs to.
        stage: how many calls of this fall come before it.
        level: where the model is called.
        ends: whether the level is that where the fall ends.
    """

    move: int
    stage: int
    level: float
    ends: bool


@dataclass(frozen=True)
class EulerBelow(ODESolver):
    """Another solver, but Euler in steps that end at `level` or below.

    Source: the authors' pipeline for Stable Diffusion corrects no step that ends at timestep 1 or 0.
    """

    solver: Solver
    level: float
    name: ClassVar[str] = "euler_below"

    @property
    def order(self) -> int:
        """Of the solver."""
        return self.solver.order

    def evaluations(self, move: Move) -> int:
        """Of the solver, or one."""
        return self._active(move).evaluations(move)

    def landing(self, move: Move, process: Process = VE) -> float:
        """Of the solver, or move.then."""
        return self._active(move).landing(move, process)

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        """A step of the solver, or of Euler."""
        return self._active(move).step(denoise, x, move, memory, process)

    def _active(self, move: Move) -> Solver:
        return self.solver if move.then > self.level else Euler()


def single_step_solver(text: str) -> Solver:
    """A solver by name that can be stopped after each call of the model.

    Raises:
        InputError: there is no such solver, or it uses the steps before.
    """
    solver = make_solver(text)
    if solver.name not in SINGLE_STEP:
        raise InputError(
            f"solver {text} remembers the steps before, which a diffusers pipeline may change; "
            f"give one of {', '.join(SINGLE_STEP)}"
        )
    return solver


def evaluations(path: NoisePath, solver: Solver, restart_solver: Solver, process: Process) -> list[Evaluation]:
    """Every call of the model that `sample` makes along a path, found by running it on one zero."""
    found: list[Evaluation] = []
    asked: list[float] = []

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        asked.append(level.item())
        return x

    def report(index: int, move: Move, x: Tensor) -> None:
        found.extend(Evaluation(index, stage, level, level == move.then) for stage, level in enumerate(asked))
        asked.clear()

    sample(denoise, torch.zeros(1), path, solver, restart_solver, process, lambda x, low, high: x, report)
    return found


def advance(
    path: NoisePath,
    move: int,
    x: Tensor,
    outputs: Sequence[Tensor],
    data: Callable[[Tensor, Tensor, Tensor], Tensor],
    solver: Solver,
    restart_solver: Solver,
    process: Process,
    perturb: Perturb,
) -> tuple[Tensor, bool]:
    """Runs `sample` from a fall on, with the answers that the model has given in it, up to the next question.

    The solvers are functions without state, so a fall can be run again with one more answer.

    Args:
        path: the whole path.
        move: index of the fall.
        x: state [B, ...] where the fall begins.
        outputs: what the model has returned in this fall, in order.
        data: data(output, x, level) -> x0; level has as many dimensions as x.
        solver: of the main grid.
        restart_solver: of the restarts.
        process: how the state mixes data and noise.
        perturb: as `sample` takes it; called only when the fall is complete.

    Returns:
        Where the model is to be called next, or the last state; and whether the fall is complete.
    """
    answers = iter(outputs)
    complete = False

    def denoise(point: Tensor, level: Tensor) -> Tensor:
        output = next(answers, None)
        if output is None:
            raise _Question(point)
        return data(output, point, level.to(point.dtype).reshape(-1, *[1] * (point.ndim - 1)))

    def report(index: int, move: Move, x: Tensor) -> None:
        nonlocal complete
        complete = True

    rest = NoisePath(path.moves[move:])
    try:
        return sample(denoise, x, rest, solver, restart_solver, process, perturb, report), True
    except _Question as question:
        return question.point, complete


class _Question(Exception):  # noqa: N818  not an error
    """The sampler needs the model at this point."""

    def __init__(self, point: Tensor) -> None:
        super().__init__()
        self.point = point
