"""What the two schedulers share: the plan, the calls of the model that it makes, and the step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from restart_sampling.errors import InputError
from restart_sampling.sampling.levels import Grid, log_grid, power_grid
from restart_sampling.sampling.noise_path import Move, NoisePath, RestartInterval, ode_path, restart_path
from restart_sampling.sampling.process import Process
from restart_sampling.sampling.sample import Perturb
from restart_sampling.text_to_image.evaluations import (
    EulerBelow,
    Evaluation,
    advance,
    evaluations,
    single_step_solver,
)

Budget = Literal["inside", "extra"]
Levels = tuple[float, ...]


class RestartSteps:
    """A diffusers scheduler whose timesteps are the calls of the model along a noise path.

    Mixed into a scheduler that makes the main grid. Rises are made at the end of the step before them, so that the
    sample between two calls is always at the level of the next one.

    Attributes:
        generator: of the noise where the pipeline passes none to `step`: one, or one for each image.
        order: rows of `timesteps` that are one step of the user's num_inference_steps; pipelines read it after
            set_timesteps.
    """

    process: ClassVar[Process]
    # Of the diffusers scheduler:
    config: Any
    timesteps: Tensor
    sigmas: Tensor
    begin_index: int | None
    step_index: int | None
    _step_index: int | None
    _begin_index: int | None

    def _read_settings(self) -> None:
        """Checks the settings, at the end of __init__, before any work.

        Raises:
            InputError: a setting is not one of those that are allowed.
        """
        config = self.config
        self._solver = single_step_solver(config.solver)
        restart_solver = single_step_solver(config.restart_solver or config.solver)
        self._restart_solver = EulerBelow(restart_solver, config.euler_below) if config.euler_below else restart_solver
        self._restarts = tuple(map(_interval, config.restart or ()))
        if config.restart_budget not in (None, *get_args(Budget)):
            raise InputError(
                f"restart_budget is {config.restart_budget!r}; give 'inside' (restarts out of the number of steps), "
                f"'extra' (on top of it) or None (inside, but extra where the pipeline passes its own levels)"
            )
        if config.restart_grid not in self._grids():
            raise InputError(f"restart_grid is {config.restart_grid!r}; give one of {', '.join(self._grids())}")
        self.generator: torch.Generator | list[torch.Generator] | None = None
        self._path = NoisePath(())
        self._calls: list[Evaluation] = []
        self._given = False
        self._forget()

    def _forget(self) -> None:
        self._outputs: list[Tensor] = []
        self._start: Tensor | None = None

    def _grids(self) -> Mapping[str, Grid]:
        """Rules of the restart grids by the name that the config has for them."""
        return {"karras": power_grid, "exponential": log_grid, "even": partial(power_grid, rho=1.0)}

    def _intervals(self) -> Sequence[RestartInterval]:
        """The restarts in levels that the model knows."""
        return self._restarts

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        """The model's timesteps at these levels, where the main grid does not say."""
        raise NotImplementedError

    def _data(self, output: Tensor, x: Tensor, level: Tensor) -> Tensor:
        """The model's output as x0."""
        raise NotImplementedError

    def _set_steps(self, main_grid: Callable[[int], None], steps: int, given: bool) -> None:
        """What set_timesteps does.

        Args:
            main_grid: sets `timesteps` and `sigmas` to the grid of so many steps.
            steps: of the user, or of the pipeline's own levels.
            given: whether the pipeline passes its own levels; it then counts rows instead of steps.

        Raises:
            InputError: the restarts do not fit the levels or the number of steps.
        """
        self._given = given
        main_grid(steps)
        self._main, times, device = tuple(self.sigmas.tolist()), self.timesteps.tolist(), self.timesteps.device
        self._main_times = dict(zip(self._main, times, strict=False))
        inside = (self.config.restart_budget or ("extra" if given else "inside")) == "inside"
        step_cost = self._solver.evaluations(Move(2.0, 1.0, main_left=2))

        def levels(count: int) -> Levels:
            if given:
                return resample(self._main, 0.0, count)
            main_grid(count)
            self._main_times.update(zip(self.sigmas.tolist(), self.timesteps.tolist(), strict=False))
            return tuple(self.sigmas.tolist())

        if inside:
            path = self._fit(levels, steps, step_cost * steps, self._intervals())
        else:
            path = self._restart_path(self._main, self._intervals())
        self._path = path
        self._calls = evaluations(path, self._solver, self._restart_solver, self.process)
        self.sigmas = torch.tensor([*(call.level for call in self._calls), path.levels[-1]])
        self.timesteps = self._times(self._calls).to(device)
        # A pipeline's bar is full at the last row if its rows are order * steps or a little less, or if order is 1.
        self.order = step_cost if not given and (inside or not self._restarts) else 1
        self.num_inference_steps = len(self._calls) if given else steps
        self._forget()

    def _restart_path(self, levels: Levels, intervals: Sequence[RestartInterval]) -> NoisePath:
        return restart_path(levels, intervals, grid=self._grids()[self.config.restart_grid])

    def _fit(
        self, levels: Callable[[int], Levels], most: int, budget: int, intervals: Sequence[RestartInterval]
    ) -> NoisePath:
        """The path with the finest main grid, of at most `most` steps, whose evaluations are within the budget.

        Raises:
            InputError: there is none, or the restarts do not fit the levels.
        """
        finest = self._restart_path(levels(most), intervals)
        main = ode_path(levels(most)).nfe(self._solver)
        restarts = finest.nfe(self._solver, self._restart_solver) - main
        for count in range(most, 0, -1):
            main_levels = levels(count)
            if ode_path(main_levels).nfe(self._solver) + restarts <= budget:
                return self._restart_path(main_levels, intervals)
        raise InputError(
            f"the restarts {' '.join(map(str, intervals))} take {restarts} evaluations of the network and there are "
            f"{budget} in all; use more steps (or a higher strength), fewer points or repeats, or "
            f"restart_budget='extra'"
        )

    def _times(self, calls: Sequence[Evaluation]) -> Tensor:
        estimates = self._time([call.level for call in calls])
        times = [self._main_times.get(call.level, time) for call, time in zip(calls, estimates, strict=True)]
        return torch.tensor(times, dtype=torch.float32)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begins at a row, as image-to-image pipelines do: `strength` of the main grid is left.

        With restarts the rows from there on are laid out anew: they begin at the level where the main grid of all steps
        would be, never rise above it, and restarts that begin above it are left out. They are written into the
        tensor `timesteps`, of which the pipeline already holds a slice.

        Args:
            begin_index: row of `timesteps`.

        Raises:
            InputError: the restarts do not fit into the rows that are left, or the row is in the middle of a step.
        """
        self._begin_index = begin_index
        if begin_index == 0 or not self._calls or begin_index >= len(self._calls):
            return
        if not self._restarts:
            call = self._calls[begin_index]
            if call.stage and not call.ends:
                raise InputError(
                    f"row {begin_index} is in the middle of a step of solver {self.config.solver}; use euler or heun"
                )
            return
        rows = len(self._calls)
        pipeline_steps = rows if self._given else self.num_inference_steps
        place = (len(self._main) - 1) * begin_index / (self.order * pipeline_steps)
        levels = partial(resample, self._main, place)
        start = levels(1)[0]
        kept = [replace(each, t_max=min(each.t_max, start)) for each in self._intervals() if each.t_min < start]
        left = rows - begin_index
        path = self._fit(levels, left, left, kept)
        calls = evaluations(path, self._solver, self._restart_solver, self.process)
        if len(calls) != left:
            raise InputError(
                f"the {left} rows from row {begin_index} on hold no whole number of steps of solver "
                f"{self.config.solver}; use another strength, solver='euler', or restart_budget='inside'"
            )
        self._path = path
        self._calls[begin_index:] = calls
        self.timesteps[begin_index:] = self._times(calls).to(self.timesteps.device)
        self.sigmas[begin_index:-1] = torch.tensor([call.level for call in calls])

    def index_for_timestep(self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None) -> int:
        """The first row that begins a step at this timestep.

        Raises:
            InputError: there is none.
        """
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        rows: list[int] = (schedule == timestep).nonzero().flatten().tolist()
        if not rows:
            raise InputError(f"{float(timestep):g} is not one of the scheduler's timesteps; pass one of them")
        return next((row for row in rows if not (self._calls and self._calls[row].stage)), rows[0])

    def _init_step_index(self, timestep: float | Tensor) -> None:
        if not self._calls:  # never given a number of steps: the training levels
            self._path = ode_path(self.sigmas.tolist())
            self._main_times = dict(zip(self.sigmas.tolist(), self.timesteps.tolist(), strict=False))
            self._calls = evaluations(self._path, self._solver, self._restart_solver, self.process)
            self.sigmas = torch.tensor([*(call.level for call in self._calls), self._path.levels[-1]])
            self.timesteps = self._times(self._calls).to(self.timesteps.device)
        self._step_index = self.index_for_timestep(timestep) if self.begin_index is None else self.begin_index

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """From one call of the model to the next; where a restart begins, also up to its level.

        Args:
            model_output: of the model at this row of `timesteps`, [B, ...].
            timestep: of the row; looked up only at the first step, unless set_begin_index was called.
            sample: state at this row, like model_output.
            generator: of the noise, one or one for each image; default: the attribute `generator`, else torch's own.
            return_dict: whether to return an object with `prev_sample`.

        Returns:
            The state at the next row, in model_output's dtype. After the last row, the sample.
        """
        if self._step_index is None:
            self._init_step_index(timestep)
        row = self._step_index or 0
        self._step_index = row + 1
        x = sample
        if row < len(self._calls):
            x = self._advance(self._calls[row], model_output, sample, generator).to(model_output.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _advance(
        self,
        call: Evaluation,
        output: Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> Tensor:
        if call.stage == 0:
            # float32 as in diffusers' schedulers; half precision is too coarse for the small steps.
            self._start, self._outputs = sample.to(torch.promote_types(sample.dtype, torch.float32)), []
        elif self._start is None:  # entered where a step ends: the sample is at that level already
            return sample
        assert self._start is not None
        self._outputs.append(output.to(self._start.dtype))
        x, complete = advance(
            self._path,
            call.move,
            self._start,
            self._outputs,
            self._data,
            self._solver,
            self._restart_solver,
            self.process,
            self._perturb(self.generator if generator is None else generator),
        )
        if complete:
            self._forget()
        return x

    def _perturb(self, generator: torch.Generator | list[torch.Generator] | None) -> Perturb:
        def perturb(x: Tensor, low: float, high: float) -> Tensor:
            keep, std = self.process.rise(low, high)
            return keep * x + std * randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)

        return perturb

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)


def resample(levels: Levels, place: float, steps: int) -> Levels:
    """A grid of other steps along the same curve, geometric between its levels.

    Args:
        levels: falling; the last may be 0, and stays the last.
        place: where the new grid begins, as an index of `levels` that need not be whole.
        steps: of the new grid.
    """
    positive = len(levels) - 1
    logs = np.log(levels[:positive])
    places = np.linspace(min(place, positive - 1), positive - 1, steps)
    between = np.exp(np.interp(places, np.arange(positive), logs)).tolist()
    exact = [levels[int(at)] if at == int(at) else level for at, level in zip(places, between, strict=True)]
    return (*exact, levels[-1])


def _interval(entry: Sequence[float]) -> RestartInterval:
    if len(entry) != 4:
        raise InputError(
            f"restart interval {list(entry)} has {len(entry)} entries; write [points, repeats, t_min, t_max]"
        )
    points, repeats, t_min, t_max = entry
    return RestartInterval(int(points), int(repeats), float(t_min), float(t_max))
