"""Restart paths over a scheduler's grid, fitted into a budget of evaluations."""

from collections.abc import Callable
from dataclasses import dataclass

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval, cap
from restart_sampling.sampling.levels import Grid
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import Process
from restart_sampling.sampling.restart_path import ode_path, restart_path
from restart_sampling.sampling.solvers.protocol import Solver
from restart_sampling.text_to_image.main_grid import Levels
from restart_sampling.text_to_image.model_calls import Evaluation, evaluations


class TooFewSteps(InputError):  # noqa: N818  said to users in these words
    """The restarts leave no step of the main grid."""


@dataclass(frozen=True)
class Restarts:
    """What a scheduler adds to a main grid, and the solvers of both.

    Attributes:
        intervals: none is the main solver alone.
        grid: rule of the restart grids.
        solver: of the main grid.
        restart_solver: of the restarts.
    """

    intervals: tuple[RestartInterval, ...]
    grid: Grid
    solver: Solver
    restart_solver: Solver

    def path(self, levels: Levels, capped: bool = False) -> NoisePath:
        """Makes the path on a main grid.

        Args:
            levels: the grid, falling; the last may be 0.
            capped: whether restarts that begin at the first level are left out, and none rises above it.

        Raises:
            InputError: a restart does not fit the levels.
        """
        intervals = cap(self.intervals, levels) if capped else self.intervals
        return restart_path(levels, intervals, grid=self.grid)

    def fit(self, levels: Callable[[int], Levels], most: int, budget: int, capped: bool = False) -> NoisePath:
        """Makes the path with the finest main grid whose evaluations are within a budget.

        Args:
            levels: the main grid of so many steps.
            most: steps of the main grid, at most.
            budget: evaluations of the network, at most.
            capped: as for `path`.

        Raises:
            TooFewSteps: there is none.
            InputError: the restarts do not fit the levels.
        """
        finest = levels(most)

        def main_cost(steps: int) -> int:
            return ode_path([*range(steps, 0, -1), finest[-1]]).nfe(self.solver)

        # On other grids a little less or more, if euler_below takes other steps of them.
        restarts = self._cost(self.path(finest, capped)) - main_cost(most)
        for steps in range(most, 0, -1) if main_cost(1) + restarts <= budget else ():
            try:
                path = self.path(levels(steps), capped)
            except InputError as error:  # a grid so coarse that t_min snaps to a level above t_max
                raise TooFewSteps(f"too few steps: {str(error).rpartition(';')[0]}") from None
            if self._cost(path) <= budget:
                return path
        raise TooFewSteps(
            f"too few steps: the restarts {' '.join(map(str, self.intervals)) or '(none)'} and one step take "
            f"{restarts + main_cost(1)} evaluations of the network, and there are {budget} in all"
        )

    def _cost(self, path: NoisePath) -> int:
        return path.nfe(self.solver, self.restart_solver)

    def evaluations(self, path: NoisePath, process: Process, first: int = 0) -> list[Evaluation]:
        """Counts the calls of the model along a path, from a move on."""
        return evaluations(path, self.solver, self.restart_solver, process, first)
