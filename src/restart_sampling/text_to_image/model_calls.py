"""The calls of the model along a noise path, as a table for diffusers schedulers.

diffusers pipelines call the model themselves, once for each step of a scheduler, and may change the sample between two
steps. Solvers are linear in the states that they are given, in the slopes dx/dlevel that the model answers with, and in
what they remember of both. So the loop of `follow` is run once on unknowns, a state for each fall and a slope for each
call; where a fall arrives then tells a scheduler what to do with tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError, did_you_mean
from restart_sampling.sampling.follow import walk
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.by_name import SOLVERS, make_solver
from restart_sampling.sampling.solvers.protocol import Denoise, Solver, SolverDefaults
from restart_sampling.sampling.solvers.single_step import Euler

STATE, SLOPE, DATA = range(3)
"""The tensors of a call: the state that the model saw, its answer as dx/dlevel, and as x0 = x - level dx/dlevel."""

Key = tuple[int, int]
"""(number of the call, which of its tensors)"""

_ROUNDING = 1e-12
"""Of a weight that is 0 or 1 but for the rounding of the solver's arithmetic."""


@dataclass(frozen=True)
class Evaluation:
    """One call of the model, and what becomes of the state after it.

    Attributes:
        level: where the model is called.
        number: of the call, from 0.
        move: index of its fall among the path's moves.
        stage: how many calls of this fall come before it.
        terms: the state after it is the sum of these tensors times these weights; none: the state stays, whatever the
            network answers.
        needs: the tensors, of it and of the calls before it, that it or a later one needs.
        keeps: those of its own that a later call needs.
        rises: (low, high) of the noise that is added then; none until the fall is complete.
        restart: whether it belongs to a restart interval.
        lands: whether it is made where the fall ends, as Heun's second call is.
    """

    level: float
    number: int
    move: int
    stage: int
    terms: tuple[tuple[Key, float], ...] = ()
    needs: tuple[Key, ...] = ()
    keeps: tuple[Key, ...] = ()
    rises: tuple[tuple[float, float], ...] = ()
    restart: bool = False
    lands: bool = False

    @property
    def begins(self) -> bool:
        """Whether a step begins with it."""
        return self.stage == 0 and bool(self.terms)

    @property
    def in_vain(self) -> "Evaluation":
        """The same call, whose answer is not used."""
        return Evaluation(self.level, self.number, self.move, self.stage, restart=self.restart, lands=self.lands)


@dataclass(frozen=True)
class _Around(SolverDefaults):
    """Another solver, but where a class has its own."""

    solver: Solver

    @property
    def order(self) -> int:
        return self.solver.order

    def evaluations(self, move: Move) -> int:
        return self._active(move).evaluations(move)

    def landing(self, move: Move, process: Process = VE) -> float:
        return self._active(move).landing(move, process)

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: Any = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        return self._active(move).step(denoise, x, move, memory, process)

    def _active(self, move: Move) -> Solver:
        return self.solver


@dataclass(frozen=True)
class EulerBelow(_Around):
    """Another solver, but Euler in steps that end at `level` or below.

    Source: the authors' pipeline for Stable Diffusion corrects no step that ends at timestep 1 or 0.
    """

    level: float
    name: ClassVar[str] = "euler_below"

    def _active(self, move: Move) -> Solver:
        return self.solver if move.then > self.level else Euler()


@dataclass(frozen=True)
class _FromUnknown(_Around):
    """Another solver, each step of which begins at an unknown state, as callbacks may have changed it."""

    state: Callable[[], Tensor] = field(compare=False)
    name: ClassVar[str] = "from_unknown"

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: Any = None, process: Process = VE
    ) -> tuple[Tensor, Any]:
        return super().step(denoise, self.state(), move, memory, process)


def scheduler_solver(text: str) -> Solver:
    """Makes a solver by name.

    Raises:
        InputError: there is no such solver.
    """
    if not isinstance(text, str) or text.partition(":")[0] not in SOLVERS:
        raise InputError(
            f"solver {text!r} does not exist; give one of {', '.join(SOLVERS)}, or with a setting, such as ddim:eta=0.5"
            f"{did_you_mean(str(text).partition(':')[0], SOLVERS)}"
        )
    return make_solver(text)


def evaluations(
    path: NoisePath, solver: Solver, restart_solver: Solver, process: Process, first: int = 0
) -> list[Evaluation]:
    """Lists the calls of the model that `follow` makes along a path, in order.

    Args:
        path: it begins with a fall.
        solver: of the main grid.
        restart_solver: of the restarts.
        process: of the model.
        first: index of the move to begin at, a fall.
    """
    part = NoisePath(path.moves[first:])
    width = 2 * part.nfe(solver, restart_solver)
    asked: list[tuple[float, Tensor]] = []
    rises: dict[int, list[tuple[float, float]]] = {}  # by the number of calls before them

    def unknown(which: int) -> Tensor:
        vector = torch.zeros(1, width, dtype=torch.float64, device="cpu")
        vector[0, 2 * len(asked) + which] = 1.0
        return vector

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        slope = unknown(SLOPE)
        asked.append((level.item(), x))
        return x - level * slope

    def perturb(x: Tensor, low: float, high: float) -> Tensor:
        rises.setdefault(len(asked), []).append((low, high))
        return x

    main, restart = (_FromUnknown(each, lambda: unknown(STATE)) for each in (solver, restart_solver))
    made: list[Evaluation] = []
    for index, move, x in walk(denoise, unknown(STATE), part, main, restart, process, perturb):
        calls = asked[len(made) :]  # none in a rise
        for stage, (level, _) in enumerate(calls):
            place = calls[stage + 1][1] if stage + 1 < len(calls) else x
            terms = _terms(place, asked)
            made.append(
                Evaluation(
                    level, len(made), first + index, stage, terms, restart=move.restart, lands=level == move.then
                )
            )
    needs: set[Key] = set()
    for call in reversed(made):
        keeps = tuple(sorted(key for key in needs if key[0] == call.number))
        needs = {key for key in needs.union(key for key, _ in call.terms) if key[0] <= call.number}
        made[call.number] = replace(
            call, needs=tuple(sorted(needs)), keeps=keeps, rises=tuple(rises.get(call.number + 1, ()))
        )
    return made


def _terms(place: Tensor, asked: Sequence[tuple[float, Tensor]]) -> tuple[tuple[Key, float], ...]:
    """Reads the sum of states and slopes off its vector; the data, where it has both as x0 has."""
    terms: list[tuple[Key, float]] = []
    weights = place.numpy().reshape(-1, 2)
    for number in np.flatnonzero(weights.any(axis=1)).tolist():
        (state, slope), level = weights[number].tolist(), asked[number][0]
        if abs(slope + level * state) <= _ROUNDING * level * abs(state):
            terms.append(((number, DATA), state))
            continue
        if level * abs(state) > _ROUNDING * abs(slope):
            terms.append(((number, STATE), state if abs(state - 1) > _ROUNDING else 1.0))
        if abs(slope) > _ROUNDING * level * abs(state):
            terms.append(((number, SLOPE), slope))
    return tuple(sorted(terms, key=lambda term: term[1] != 1))  # what needs no product is the first
