"""The rows of a scheduler, one for each call of the network: laid out for a number of steps, or for a later start."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.levels import Grid, log_grid, power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import Process
from restart_sampling.sampling.solvers.protocol import Solver
from restart_sampling.text_to_image.main_grid import MainGrid, resample
from restart_sampling.text_to_image.model_calls import Evaluation
from restart_sampling.text_to_image.restart_paths import Restarts, TooFewSteps
from restart_sampling.text_to_image.row_tensors import RowTensors

_log = logging.getLogger(__name__)


class RowLayout(RowTensors):
    """Lays out the rows of a scheduler.

    Attributes:
        order: rows of `timesteps` that are one step of the user's num_inference_steps; pipelines read it after
            set_timesteps.
        path: of the steps that were set last; of an image-to-image start, from there on.
    """

    process: ClassVar[Process]
    config: Any
    order: int
    path: NoisePath
    _restarts: Restarts
    _begin_index: int | None
    _step_index: int | None

    def _forget_steps(self) -> None:
        """Forgets the rows, and the run along them."""
        self.path = NoisePath(())
        self._calls = ()
        self._laid_out_from = 0
        self._step_index = self._begin_index = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Says at which row the run begins.

        Raises:
            InputError: it is no row.
        """
        begin = whole_number("begin_index", begin_index)
        if begin < 0:
            raise InputError(f"begin_index is {begin}; give the number of a row, from 0")
        self._begin_index = begin

    @property
    def solvers(self) -> tuple[Solver, Solver]:
        """The solvers of the main grid and of the restarts: `path.nfe(*solvers)`, `path.schedule(*solvers)`."""
        return self._restarts.solver, self._restarts.restart_solver

    def _grids(self) -> Mapping[str, Grid]:
        """Rules of the restart grids by the name that the config has for them."""
        return {"karras": power_grid, "exponential": log_grid, "even": partial(power_grid, rho=1.0)}

    def _known(self, interval: RestartInterval) -> RestartInterval:
        """Moves the interval to levels that the model knows."""
        return interval

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        """Finds the timesteps at these levels by the model's noise schedule."""
        raise NotImplementedError

    def _time_scale(self, level: float) -> float:
        """Returns the scale of a level on which timesteps between two of the main grid lie on a straight line."""
        raise NotImplementedError

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        """Returns the network's output as dx/dlevel."""
        raise NotImplementedError

    def _first_step(self, strength: float, steps: int) -> int:
        """Finds where image-to-image pipelines begin: strength of the steps is left, rounded in their way."""
        raise NotImplementedError

    def _set_steps(
        self, main_grid: Callable[[int | None], None], steps: int | None, given: bool, ramp: bool = False
    ) -> None:
        """Lays out the rows: what set_timesteps does.

        Args:
            main_grid: sets `timesteps` and `sigmas` to the grid of so many steps.
            steps: of the user.
            given: whether the pipeline passes its own levels; it then counts rows instead of steps.
            ramp: whether it has made these of num_inference_steps (FLUX).

        Raises:
            InputError: the restarts do not fit the levels or the number of steps.
        """
        if steps is None and not given:
            raise InputError("set_timesteps was given no steps; give num_inference_steps, timesteps or sigmas")
        if steps is not None:
            steps = whole_number("num_inference_steps", steps)
            if steps < 1:
                raise InputError(f"num_inference_steps is {steps}; give at least 1")
        self._forget_steps()
        self._own_times: dict[float, float] = {}
        for interval in self._restarts.intervals:
            interval.check_levels(self.process)

        def grid(steps: int | None) -> MainGrid:
            main_grid(steps)
            times = self.timesteps.tolist()
            main = MainGrid.read(self.sigmas.tolist()[: len(times) + 1], times)  # log_linear has one level more
            if main.levels[0] > self.process.highest:
                raise InputError(
                    f"the levels begin at {main.levels[0]:g}, and those of a flow model at 1 or below (Cosmos 2 takes "
                    f"its flow scheduler for another use); keep the pipeline's own scheduler"
                )
            self._own_times |= zip(main.levels, main.times, strict=False)
            return main

        self._given, self._own_levels = given, given and not ramp
        self._main, device = grid(steps), self.timesteps.device
        count = steps or len(self._main.given) - 1
        step_cost = self._restarts.solver.evaluations(Move(2.0, 1.0))
        try:
            self.path = self._path(grid, count, step_cost * count)
        except TooFewSteps as error:
            enough = "" if given else self._enough(grid, count, step_cost)
            raise TooFewSteps(
                f"{error}; use more steps{enough}, fewer points or repeats, or restart_budget='extra'"
            ) from None
        self._log_snaps()
        calls = self._restarts.evaluations(self.path, self.process)
        times = self._times(calls)
        for level, time in reversed(self._main.repeated):  # the network is called there in vain
            place = next((row for row, call in enumerate(calls) if call.level <= level), len(calls))
            calls.insert(place, Evaluation(level, 0, 0, 0))
            times.insert(place, time)
        self._set_rows(calls, times, self.path.levels[-1], device)
        rows = len(calls)
        self.num_inference_steps = rows if given else count
        # A pipeline's bar counts each order-th of the last order * steps rows, and the last row.
        full = step_cost * (self.num_inference_steps - 1) < rows <= step_cost * self.num_inference_steps
        self.order = step_cost if full else 1

    def _path(self, grid: Callable[[int | None], MainGrid], count: int, calls: int) -> NoisePath:
        """Makes the path with restarts within a number of calls, or on top of the main grid."""
        budget = self.config.restart_budget or ("extra" if self._given else "inside")
        if budget == "extra" or (budget == "calls" and self._own_levels) or not self._restarts.intervals:
            return self._restarts.path(self._main.levels)
        if budget == "inside" and not self._given:
            return self._restarts.fit(lambda steps: grid(steps).levels, count, calls)
        levels = self._main.levels
        return self._restarts.fit(partial(resample, levels, 0), len(levels) - 1, calls - len(self._main.repeated))

    def _enough(self, grid: Callable[[int | None], MainGrid], count: int, step_cost: int) -> str:
        """Says how many steps would do; nothing where even 200 more would not."""
        for steps in range(count + 1, min(count + 200, self.config.num_train_timesteps) + 1):
            try:
                self._main = grid(steps)
                self._path(grid, steps, step_cost * steps)
            except InputError:
                continue
            return f" ({steps} would do)"
        return ""

    def _log_snaps(self) -> None:
        """Says which t_min are not where they were asked for."""
        main = [*(move.now for move in self.path.moves if not (move.restart or move.rises)), self.path.levels[-1]]
        snapped = [(each, each.snap(main)) for each in self._restarts.intervals]
        said = [
            f"{each} begins at level {level:.4g}" for each, level in snapped if abs(level - each.t_min) > 0.05 * level
        ]
        level = logging.INFO if self.config.restart_grid == "timesteps" else logging.WARNING
        if said and _log.isEnabledFor(level):
            _say_once(level, f"of the main grid's levels, the nearest to t_min is used: {', '.join(said)}")

    def _times(self, calls: Sequence[Evaluation]) -> list[float]:
        """Finds the timestep of each row; in paths with restarts no two are equal, so that a copy of one tells the row.

        They differ by the last bit, unless restart_grid="timesteps" asks for whole ones.
        """
        levels = [call.level for call in calls]
        between = self._main.interpolated([level for level in levels if level > 0], self._time, self._time_scale)
        times = dict(zip([level for level in levels if level > 0], between, strict=True)) | self._own_times
        result = [times[level] for level in levels]
        if self.path.rises and self.config.restart_grid != "timesteps":
            latest: dict[float, np.float32] = {}
            for row, time in enumerate(result):
                latest[time] = np.nextafter(latest[time], np.float32(np.inf)) if time in latest else np.float32(time)
                result[row] = float(latest[time])
        return result

    def _lay_out(self, begin: int) -> None:
        """Lays the rows from `begin` on out anew, for data that are about to be noised up to the first of them.

        Image-to-image pipelines begin at a row of their choice: `strength` of the main grid is left. The new rows begin
        at the level where it would without restarts and never rise above it; restarts that begin there or higher are
        left out. They are written into the tensor `timesteps`, of which the pipeline already holds a slice.

        Raises:
            InputError: the restarts do not fit into the rows that are left.
        """
        levels, left = self._main.levels, len(self._calls) - begin
        place = self._main.place(self._given_step(begin))
        if place >= len(levels) - 1:
            raise InputError("strength leaves no step of the main grid; use a higher strength or more steps")
        finest = left if place + 2 < len(levels) else 1  # there is nothing between the last level and 0
        try:
            self.path = self._restarts.fit(partial(resample, levels, place), finest, left, capped=True)
        except TooFewSteps as error:
            raise TooFewSteps(f"{error}; use more steps or a higher strength, or fewer points or repeats") from None
        calls = self._restarts.evaluations(self.path, self.process)
        # Where no whole step is left, the network is called in vain.
        calls = [calls[0].in_vain] * (left - len(calls)) + calls
        times = torch.tensor(self._times(calls), dtype=torch.float32)
        self._timesteps[begin:] = times.to(self._timesteps.device)
        self._sigmas[begin:-1] = torch.tensor([call.level for call in calls])
        self._calls = [*self._calls[:begin], *calls]
        self._laid_out_from = begin
        self._keep()

    def _entered(self, begin: int) -> list[Evaluation]:
        """Lists the rows of a run that begins at one of them, with a solver that remembers nothing.

        What is left of a step that begins before is called in vain.
        """
        whole = next((row for row in range(begin, len(self._calls)) if self._calls[row].begins), len(self._calls))
        after = self._calls[whole:]
        calls = iter(self._restarts.evaluations(self.path, self.process, after[0].move) if after else ())
        return [
            *self._calls[:begin],
            *(call.in_vain for call in self._calls[begin:whole]),
            *(next(calls) if call.terms else call for call in after),
        ]

    def _given_step(self, begin: int) -> int:
        """Finds the step of the main grid where a pipeline that begins at this row would begin without restarts."""
        rows, steps = len(self._calls), len(self._main.given) - 1
        if not self._given or rows == steps:
            return begin // self.order
        # The pipeline has taken strength of the rows, and does not say which: the roundest that leads to this one.
        strengths = (part / parts for parts in (10, 20, 100) for part in range(1, parts + 1))
        strength = next((each for each in strengths if self._first_step(each, rows) == begin), 1 - begin / rows)
        return self._first_step(strength, steps)

    def _about_to_noise(self, timesteps: Tensor) -> None:
        """Finds the row where an image-to-image pipeline begins, before its data are noised.

        Some pipelines say it by set_begin_index, and some by the timesteps alone.
        """
        if not self._calls:
            return  # of training
        self._check_edits()
        over = self._step_index == len(self._calls)
        if over and not self._is_at(len(self._calls) - 1, timesteps.flatten()[:1]):  # else blended after the last step
            self._step_index = self._begin_index = None  # another image, which may begin elsewhere
        begin = self._begin_index
        if self._step_index is not None:
            return
        if begin is None and self.path.rises and len({*timesteps.flatten().tolist()}) == 1:
            begin = self._begin_index = self._row_of(timesteps)
        if 0 < (begin or 0) < len(self._calls):
            self._lay_out(begin or 0)

    def _lay_out_training(self) -> None:
        """Lays out a row for each training timestep, for a scheduler that was never given a number of steps."""
        times, levels = self.timesteps.tolist(), self.sigmas.tolist()
        levels += [0.0] * (len(levels) == len(times))  # FlowMatchEulerDiscreteScheduler leaves it out
        self._given, self._main = False, MainGrid.read(levels, times)
        self._own_times = dict(zip(self._main.levels, times, strict=False))
        self.path = Restarts((), power_grid, *self.solvers).path(self._main.levels)
        calls = self._restarts.evaluations(self.path, self.process)
        self._set_rows(calls, self._times(calls), self.path.levels[-1], self.timesteps.device)


@contextmanager
def without_notes() -> Iterator[None]:
    """Runs the body without words on levels that were moved, for samplers that nobody has asked for."""
    log = logging.getLogger(__package__)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@cache
def _say_once(level: int, text: str) -> None:
    """Says it once in a process, for programs make a scheduler for every picture."""
    _log.log(level, text)
