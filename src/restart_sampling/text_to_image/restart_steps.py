"""What the two schedulers share: the plan, the calls of the model that it makes, and the step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.levels import Grid, log_grid, power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath, RestartInterval, ode_path
from restart_sampling.sampling.process import Process
from restart_sampling.sampling.solvers.protocol import Solver
from restart_sampling.text_to_image.evaluations import EulerBelow, Evaluation, single_step_solver
from restart_sampling.text_to_image.restarts import Levels, Restarts, resample

Budget = Literal["inside", "extra"]
Generators = torch.Generator | list[torch.Generator] | None


class RestartSteps:
    """A diffusers scheduler whose timesteps are the calls of the model along a noise path.

    Mixed into a scheduler that makes the main grid. Rises are made at the end of the step before them, so that the
    sample between two calls is always at the level of the next one.

    Attributes:
        generator: of the noise where the pipeline passes none to `step`: one, or a list of one for each image.
        order: rows of `timesteps` that are one step of the user's num_inference_steps; pipelines read it after
            set_timesteps.
        path: of the steps that were set last; of an image-to-image start, from there on.
    """

    process: ClassVar[Process]
    # Of the diffusers scheduler:
    config: Any
    timesteps: Tensor
    sigmas: Tensor
    begin_index: int | None
    _step_index: int | None

    def _read_settings(self) -> None:
        """Checks the settings, at the end of __init__, before any work.

        Raises:
            InputError: a setting is not one of those that are allowed.
        """
        config = self.config
        if config.restart_budget not in (None, *get_args(Budget)):
            raise InputError(
                f"restart_budget is {config.restart_budget!r}; give 'inside' (restarts out of the number of steps), "
                f"'extra' (on top of it) or None (inside, but extra where the pipeline passes its own levels)"
            )
        if config.restart_grid not in self._grids():
            raise InputError(f"restart_grid is {config.restart_grid!r}; give one of {', '.join(self._grids())}")
        restart_solver = single_step_solver(config.restart_solver or config.solver)
        self._restarts = Restarts(
            tuple(self._known(_interval(entry)) for entry in config.restart or ()),
            self._grids()[config.restart_grid],
            single_step_solver(config.solver),
            EulerBelow(restart_solver, config.euler_below) if config.euler_below else restart_solver,
        )
        self.generator: Generators = None
        self._forget_steps()

    def _forget_steps(self) -> None:
        self.path = NoisePath(())
        self._calls: list[Evaluation] = []
        self._laid_out_from = 0
        self._start: Tensor | None = None
        self._slopes: list[Tensor] = []

    @property
    def solvers(self) -> tuple[Solver, Solver]:
        """Of the main grid and of the restarts: `path.nfe(*solvers)`, `path.schedule(*solvers)`."""
        return self._restarts.solver, self._restarts.restart_solver

    def _grids(self) -> Mapping[str, Grid]:
        """Rules of the restart grids by the name that the config has for them."""
        return {"karras": power_grid, "exponential": log_grid, "even": partial(power_grid, rho=1.0)}

    def _known(self, interval: RestartInterval) -> RestartInterval:
        """The interval in levels that the model knows."""
        return interval

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        """The model's timesteps at these levels, where the main grid does not say."""
        raise NotImplementedError

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        """The model's output as dx/dlevel."""
        raise NotImplementedError

    def _first_step(self, strength: float, steps: int) -> int:
        """Where image-to-image pipelines begin: strength of the steps is left, rounded in their way."""
        raise NotImplementedError

    def _set_steps(self, main_grid: Callable[[int | None], None], steps: int | None, given: bool) -> None:
        """What set_timesteps does.

        Args:
            main_grid: sets `timesteps` and `sigmas` to the grid of so many steps.
            steps: of the user.
            given: whether the pipeline passes its own levels; it then counts rows instead of steps.

        Raises:
            InputError: the restarts do not fit the levels or the number of steps.
        """
        self._forget_steps()
        self._main_times: dict[float, float] = {}

        def levels(steps: int | None) -> Levels:
            main_grid(steps)
            main = tuple(self.sigmas.tolist()[: len(self.timesteps) + 1])  # log_linear has one level more at the end
            self._main_times |= zip(main, self.timesteps.tolist(), strict=False)
            return main

        self._given, self._main, device = given, levels(steps), self.timesteps.device
        count = steps or len(self._main) - 1
        step_cost = self._restarts.solver.evaluations(Move(2.0, 1.0))
        if (self.config.restart_budget or ("extra" if given else "inside")) == "inside":
            grid = partial(resample, self._main, 0) if given else levels
            self.path = self._restarts.fit(grid, count, step_cost * count)
        else:
            self.path = self._restarts.path(self._main)
        self._calls = self._restarts.evaluations(self.path, self.process)
        rows = len(self._calls)
        self.sigmas = _host_tensor([*(call.level for call in self._calls), self._main[-1]])
        self.timesteps = self._times(self._calls).to(device)
        self.num_inference_steps = rows if given else count
        # A pipeline's bar counts each order-th of the last order * steps rows, and the last row.
        full = step_cost * (self.num_inference_steps - 1) < rows <= step_cost * self.num_inference_steps
        self.order = step_cost if full else 1

    def _times(self, calls: Sequence[Evaluation]) -> Tensor:
        estimates = self._time([call.level for call in calls])
        times = [self._main_times.get(call.level, time) for call, time in zip(calls, estimates, strict=True)]
        return _host_tensor(times)

    def _lay_out(self) -> None:
        """Lays the rows from `begin_index` on out anew, for data that are about to be noised up to the first of them.

        Image-to-image pipelines begin at a row of their choice: `strength` of the main grid is left. The new rows begin
        at the level where it would without restarts and never rise above it; restarts that begin there or higher are
        left out. They are written into the tensor `timesteps`, of which the pipeline already holds a slice.

        Raises:
            InputError: the restarts do not fit into the rows that are left.
        """
        begin = self.begin_index or 0
        main_steps, left = len(self._main) - 1, len(self._calls) - begin
        place = self._place(begin)
        if place >= main_steps:
            raise InputError("strength leaves no step of the main grid; use a higher strength or more steps")
        finest = left if place + 1 < main_steps else 1  # there is nothing between the last level and 0
        self.path = self._restarts.fit(partial(resample, self._main, place), finest, left, capped=True)
        calls = self._restarts.evaluations(self.path, self.process)
        # Where no whole step is left, a call whose answer is not used: as if a step had ended at the first level.
        idle = replace(calls[0], stage=1, ends=True)
        calls = [idle] * (left - len(calls)) + calls
        self._calls[begin:] = calls
        self.timesteps[begin:] = self._times(calls).to(self.timesteps.device)
        self.sigmas[begin:-1] = _host_tensor([call.level for call in calls])
        self._laid_out_from = begin

    def _place(self, begin: int) -> int:
        """The index in the main grid where a pipeline that begins at this row would begin without restarts."""
        if not self._given:
            return begin // self.order
        # The pipeline has taken strength of the rows, and does not say which: the roundest that leads to this one.
        rows = len(self._calls)
        strengths = (part / parts for parts in (10, 20, 100) for part in range(1, parts + 1))
        strength = next((each for each in strengths if self._first_step(each, rows) == begin), 1 - begin / rows)
        return self._first_step(strength, len(self._main) - 1)

    def _about_to_noise(self) -> None:
        """To be called before data are noised."""
        if self._step_index is None and 0 < (self.begin_index or 0) < len(self._calls):
            self._lay_out()

    def index_for_timestep(self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None) -> int:
        """The first row that begins a step at this timestep.

        Raises:
            InputError: there is none.
        """
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        rows: list[int] = (schedule == float(timestep)).nonzero().flatten().tolist()
        if not rows:
            raise InputError(f"{float(timestep):g} is not one of the scheduler's timesteps; pass one of them")
        return next((row for row in rows if not (self._calls and self._calls[row].stage)), rows[0])

    def _init_step_index(self, timestep: float | Tensor) -> None:
        if not self._calls:  # never given a number of steps: the training levels
            self.path = ode_path(self.sigmas.tolist())
            self._main_times = dict(zip(self.path.levels, self.timesteps.tolist(), strict=False))
            self._calls = self._restarts.evaluations(self.path, self.process)
            self.sigmas = _host_tensor([*(call.level for call in self._calls), self.path.levels[-1]])
            self.timesteps = self._times(self._calls).to(self.timesteps.device)
        row = self.index_for_timestep(timestep) if self.begin_index is None else self.begin_index
        if row != self._laid_out_from:
            self._check_entry(row)
        self._step_index = row

    def _check_entry(self, row: int) -> None:
        """Whether a sample that was not noised here can enter at this row, which stays as it is.

        Raises:
            InputError: the row is within a restart or before one that rises above it, or in the middle of a step.
        """
        call, *later = self._calls[row:]
        if call.restart or any(each.level > call.level for each in later):
            raise InputError(
                f"the sample enters at timestep {float(self.timesteps[row]):g}, which lies within a restart or below "
                f"one that is still to come; for SDXL's denoising_start give restarts wholly above or wholly below it"
            )
        if call.stage and not call.ends:
            raise InputError(
                f"the sample enters in the middle of a step of solver {self.config.solver}; use heun or euler"
            )

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """From one call of the model to the next; where a restart begins, also up to its level.

        Args:
            model_output: of the model at this row of `timesteps`, [B, ...].
            timestep: of the row; looked up only at the first step, unless set_begin_index was called.
            sample: state at this row, like model_output.
            generator: of the noise, one or a list of one for each image; default: the attribute `generator`, else
                torch's own.
            return_dict: whether to return an object with `prev_sample`.

        Returns:
            The state at the next row, in model_output's dtype. After the last row, the sample.

        Raises:
            InputError: the list of generators is not as long as the batch, or the run cannot begin at this row.
        """
        if self._step_index is None:
            self._init_step_index(timestep)
        generator = self.generator if generator is None else generator
        if isinstance(generator, list) and len(generator) != len(sample):
            raise InputError(
                f"{len(generator)} generators for {len(sample)} images; give one, or one for each image (also in the "
                f"attribute scheduler.generator, which is that of the call before until it is set anew)"
            )
        row = self._step_index or 0
        self._step_index = row + 1
        x = sample
        if row < len(self._calls):
            x = self._advance(self._calls[row], model_output, sample, generator).to(model_output.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _advance(self, call: Evaluation, output: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        # float32 as in diffusers' schedulers; half precision is too coarse for the small steps.
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        if call.stage == 0:
            self._start, self._slopes = x, []
        elif self._start is None:  # entered where a step ends: the sample is at that level already
            return sample
        # Of the sample that the model saw, which a callback may have changed since the last call.
        self._slopes.append(self._slope(output.to(x.dtype), x, call.level))
        assert self._start is not None
        x = self._start
        for weight, slope in zip(call.weights, self._slopes, strict=True):
            x = torch.add(x, slope, alpha=weight)
        for low, high in call.rises:
            keep, std = self.process.rise(low, high)
            noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = torch.add(keep * x, noise, alpha=std)
        return x


def _host_tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")  # whatever the user's defaults are


def _interval(entry: Sequence[float]) -> RestartInterval:
    if not isinstance(entry, Sequence) or len(entry) != 4:
        raise InputError(f"restart has the entry {entry}; give lists [points, repeats, t_min, t_max]")
    points, repeats, t_min, t_max = entry
    return RestartInterval(int(points), int(repeats), float(t_min), float(t_max))
