"""The calls of the model along a noise path, as a table for diffusers schedulers.

diffusers pipelines call the model themselves, once for each step of a scheduler. A single-step solver is linear in the
slopes dx/dlevel that the model gives it, and moves no state that has none. So `follow` is run once, fall by fall, on
displacements in multiples of the slopes, and a scheduler repeats with tensors what it does with those.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.follow import follow
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.by_name import SOLVERS, make_solver
from restart_sampling.sampling.solvers.protocol import Denoise, Solver, SolverDefaults
from restart_sampling.sampling.solvers.single_step import Euler


@dataclass(frozen=True)
class Evaluation:
    """One call of the model, and what becomes of the state after it.

    Attributes:
        level: where the model is called.
        stage: how many calls of this fall come before it.
        weights: the state after it lies at the fall's start, plus these multiples of the slopes of the fall's calls;
            none: the state stays, whatever the network answers.
        rises: (low, high) of the noise that is added then; none until the fall is complete.
        restart: whether it belongs to a restart interval.
        lands: whether it is made where the fall ends, as Heun's second call is.
    """

    level: float
    stage: int
    weights: tuple[float, ...]
    rises: tuple[tuple[float, float], ...]
    restart: bool
    lands: bool


@dataclass(frozen=True)
class EulerBelow(SolverDefaults):
    """Another solver, but Euler in steps that end at `level` or below.

    Source: the authors' pipeline for Stable Diffusion corrects no step that ends at timestep 1 or 0.
    """

    solver: Solver
    level: float
    name: ClassVar[str] = "euler_below"

    @property
    def order(self) -> int:
        """The order of the solver."""
        return self.solver.order

    def evaluations(self, move: Move) -> int:
        """Counts the calls of the solver, or the one of Euler."""
        return self._active(move).evaluations(move)

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns where the solver arrives, or move.then."""
        return self._active(move).landing(move, process)

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        """Takes a step of the solver, or of Euler."""
        return self._active(move).step(denoise, x, move, memory, process)

    def _active(self, move: Move) -> Solver:
        return self.solver if move.then > self.level else Euler()


def single_step_solver(text: str) -> Solver:
    """Makes a solver by name that keeps nothing from one step to the next.

    Raises:
        InputError: there is no such solver, or it uses the steps before.
    """
    if not isinstance(text, str) or text.partition(":")[0] not in SOLVERS:
        raise InputError(f"solver {text!r} does not exist; {_allowed()}")
    solver = make_solver(text)
    if _remembers(solver):
        raise InputError(
            f"solver {text} remembers the steps before, which a diffusers pipeline may change; {_allowed()}"
        )
    return solver


def _remembers(solver: Solver) -> bool:
    """Whether a step in the middle of a grid leaves something for the next one."""
    x = torch.zeros(1, device="cpu")
    return solver.step(lambda x, level: x, x, Move(2.0, 1.0, left=9))[1] is not None


def _allowed() -> str:
    names = [name for name in SOLVERS if not _remembers(make_solver(name))]
    return f"give one of {', '.join(names)}, or with a setting, such as ddim:eta=0.5"


def evaluations(path: NoisePath, solver: Solver, restart_solver: Solver, process: Process) -> list[Evaluation]:
    """Lists the calls of the model that `follow` makes along a path that begins with a fall, in order."""
    falls = [index for index, move in enumerate(path.moves) if not move.rises]
    return [
        call
        for first, end in zip(falls, [*falls[1:], len(path.moves)], strict=True)
        for call in _calls(path.moves[first:end], solver, restart_solver, process)
    ]


def _calls(moves: Sequence[Move], solver: Solver, restart_solver: Solver, process: Process) -> Iterator[Evaluation]:
    """Yields the calls of a fall, the last of them with the rises after it."""
    asked: list[tuple[float, Tensor]] = []
    rises: list[tuple[float, float]] = []

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        slope = slopes[[len(asked)]]
        asked.append((level.item(), x))
        return x - level * slope

    def perturb(x: Tensor, low: float, high: float) -> Tensor:
        rises.append((low, high))
        return x

    count = (restart_solver if moves[0].restart else solver).evaluations(moves[0])
    slopes = torch.eye(count, dtype=torch.float64, device="cpu")
    start = torch.zeros_like(slopes[:1])
    end = follow(denoise, start, NoisePath(tuple(moves)), solver, restart_solver, process, perturb)
    places = [*(place for _, place in asked[1:]), end]
    for stage, ((level, _), place) in enumerate(zip(asked, places, strict=True)):
        complete = stage + 1 == len(asked)
        yield Evaluation(
            level,
            stage,
            tuple(place[0, : stage + 1].tolist()),
            tuple(rises) if complete else (),
            moves[0].restart,
            level == moves[0].then,
        )
