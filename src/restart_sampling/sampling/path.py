"""Noise paths: every sampler is a list of falls (ODE steps) and rises (fresh noise) between levels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import require_kind
from restart_sampling.sampling.explain_moves import describe_levels, explain_moves
from restart_sampling.sampling.levels import HIGHEST, as_levels
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.protocol import Solver, require_solvers

Leg = tuple[float, float, bool]
"""Where a move begins and ends, and whether it belongs to a restart."""


@dataclass(frozen=True)
class NoisePath:
    """A sampler: the moves from the first noise level to the last.

    `ode_path`, `churn_path`, `restart_path` and `Plan.path` make them.

    Attributes:
        moves: each begins at the level where the one before it ended.
    """

    moves: tuple[Move, ...]

    @classmethod
    def through(cls, levels: Sequence[float]) -> "NoisePath":
        """Makes the path that visits these levels, rises included: the inverse of `levels`.

        A rise from which the levels come back to where it began is the jump of a restart; one that they fall past is
        churn.

        Raises:
            InputError: fewer than two levels, one is not a finite number, 0 or above, or the last move rises.
        """
        levels = as_levels("the list of levels", levels)
        if len(levels) < 2 or not all(0 <= level <= HIGHEST for level in levels):
            raise InputError(f"a path has at least two levels, finite and 0 or above; given {describe_levels(levels)}")
        if levels[-1] > levels[-2]:
            raise InputError(
                f"the path ends with a rise, from {levels[-2]:.4g} to {levels[-1]:.4g}; a rise adds noise, and falls "
                f"have to follow it (rising levels do not invert the ODE)"
            )
        legs: list[Leg] = []
        restart_ends = 0
        for index, (now, then) in enumerate(pairwise(levels)):
            if then > now and index >= restart_ends:
                back = next((place for place in range(index + 1, len(levels)) if levels[place] <= now), len(levels))
                churn = back < len(levels) and levels[back] < now
                restart_ends = index if churn else back
            legs.append((now, then, index < restart_ends))
        return path_of(legs)

    @property
    def levels(self) -> tuple[float, ...]:
        """Every level that is visited, in order; the state that `follow` takes is at the first."""
        return (self.moves[0].now, *(move.then for move in self.moves))

    @property
    def rises(self) -> tuple[Move, ...]:
        """The moves that add noise, in order: rise k takes draw k of each seed (with an ODE solver; the falls of a
        stochastic one take draws too)."""
        return tuple(move for move in self.moves if move.rises)

    def nfe(self, solver: Solver, restart_solver: Solver | None = None) -> int:
        """Counts the calls of the denoiser, with `restart_solver` (default: `solver`) in the restart intervals."""
        pairs = self._with_solvers(solver, restart_solver)
        return sum(active.evaluations(move) for move, active in pairs if not move.rises)

    def _with_solvers(self, solver: Solver, restart_solver: Solver | None) -> Iterator[tuple[Move, Solver]]:
        restart_solver = restart_solver or solver
        require_solvers(solver, restart_solver)
        for move in self.moves:
            yield move, restart_solver if move.restart else solver

    def noisy_falls(self, solver: Solver, restart_solver: Solver | None = None, process: Process = VE) -> list[Move]:
        """Lists the falls in which a stochastic solver adds noise; solvers as of `nfe`."""
        pairs = self._with_solvers(solver, restart_solver)
        return [move for move, active in pairs if not move.rises and active.landing(move, process) < move.then]

    def schedule(self, solver: Solver, restart_solver: Solver | None = None) -> list[tuple[int, float]]:
        """Lists what a figure of the path shows: (evaluations so far, level) before the first move and after each."""
        points, spent = [(0, self.levels[0])], 0
        for move, active in self._with_solvers(solver, restart_solver):
            spent += 0 if move.rises else active.evaluations(move)
            points.append((spent, move.then))
        return points

    def check_levels(self, process: Process) -> None:
        """Makes sure that all levels are ones of a process.

        Raises:
            InputError: the path goes higher, or it is no process.
        """
        require_kind("the process", process, Process, "rs.VE or rs.FLOW")
        if max(self.levels) > process.highest:
            raise InputError(
                f"the path goes up to level {max(self.levels):g}, and the highest of the process {process.name} is "
                f"{process.highest:g}; give levels, restarts and churn (s_max) that stay below it, or another process"
            )

    def explain(self, process: Process = VE) -> str:
        """Says in words and numbers what the path is: main grid, restarts, and the std of the noise of each rise.

        Raises:
            InputError: as `check_levels`.
        """
        self.check_levels(process)
        return explain_moves(self.moves, process)


def path_of(legs: list[Leg]) -> NoisePath:
    """Makes the moves, and counts from the end how many falls of the main grid each has before it on the way to 0."""
    ends_at_zero = legs[-1][1] == 0
    moves: list[Move] = []
    left = 0
    for now, then, restart in reversed(legs):
        moves.append(Move(now, then, restart, left if ends_at_zero and not restart else None))
        left += then <= now and not restart
    return NoisePath(tuple(reversed(moves)))
