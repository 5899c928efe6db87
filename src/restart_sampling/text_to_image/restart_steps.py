"""What the two schedulers share: settings, rows, and the step."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.levels import Grid, log_grid, power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath, RestartInterval
from restart_sampling.sampling.process import Process
from restart_sampling.sampling.solvers.protocol import Solver
from restart_sampling.text_to_image.evaluations import EulerBelow, Evaluation, single_step_solver
from restart_sampling.text_to_image.intervals import as_lists, read_intervals
from restart_sampling.text_to_image.main_grid import MainGrid, resample
from restart_sampling.text_to_image.restarts import Restarts, TooFewSteps
from restart_sampling.text_to_image.row_tensors import RowTensors
from restart_sampling.text_to_image.step_noise import Generators, check_generators, latent_seeds, seeded_noise

Budget = Literal["calls", "inside", "extra"]
_SETTINGS = ("restart", "solver", "restart_solver", "restart_budget", "restart_grid", "euler_below")
_log = logging.getLogger(__name__)


class RestartSteps(RowTensors):
    """A diffusers scheduler whose timesteps are the calls of the network along a noise path.

    Mixed into a scheduler that makes the main grid. Rises are made at the end of the step before them, so that the
    sample between two calls is always at the level of the next one.

    Attributes:
        generator: of the noise where the pipeline passes none to `step`: one, or a list of one for each image. Without
            both, the noise follows from the bits of the initial latents, so that equal latents have equal images.
        order: rows of `timesteps` that are one step of the user's num_inference_steps; pipelines read it after
            set_timesteps.
        path: of the steps that were set last; of an image-to-image start, from there on.
    """

    process: ClassVar[Process]
    _tuples_have_x0: ClassVar[bool]
    config: Any
    register_to_config: Callable[..., None]
    _begin_index: int | None
    _step_index: int | None

    def _read_settings(self) -> None:
        """Reads the settings of the config, when the scheduler is made and again with each set_timesteps.

        Raises:
            InputError: a setting is not one of those that are allowed.
        """
        config = self.config
        for name in _SETTINGS:
            item, attribute = config[name], getattr(config, name)
            if vars(self).pop(name, None) is not None or (item is not attribute and item != attribute):
                raise InputError(f"{name} was assigned; use scheduler.register_to_config({name}=...)")
        if config.restart_budget not in (None, *get_args(Budget)):
            raise InputError(
                f"restart_budget is {config.restart_budget!r}; give 'calls' (restarts out of the number of steps, on "
                f"the grid of all of them), 'inside' (likewise, on the grid of the steps that are left) or 'extra' (on "
                f"top of the steps)"
            )
        if config.restart_grid not in self._grids():
            raise InputError(f"restart_grid is {config.restart_grid!r}; give one of {', '.join(self._grids())}")
        below = config.euler_below
        if not (isinstance(below, (int, float)) and isfinite(below) and below >= 0):
            raise InputError(f"euler_below is {below!r}; give a level, 0 or above")
        intervals = read_intervals(config.restart)
        if config.restart is not None:
            self.register_to_config(restart=as_lists(intervals))  # as JSON keeps it
        solver = single_step_solver(config.solver)
        restart_solver = solver if config.restart_solver is None else single_step_solver(config.restart_solver)
        self._restarts = Restarts(
            tuple(map(self._known, intervals)),
            self._grids()[config.restart_grid],
            solver,
            EulerBelow(restart_solver, below) if below else restart_solver,
        )

    def _begin(self) -> None:
        """Reads the settings at the end of __init__, before any work.

        Raises:
            InputError: a setting is not one of those that are allowed.
        """
        self._read_settings()
        self.generator: Generators = None
        self._said: list[str] = []
        self._forget_steps()

    def _forget_steps(self) -> None:
        self.path = NoisePath(())
        self._calls = ()
        self._laid_out_from = 0
        self._step_index = self._begin_index = None
        self._start: Tensor | None = None
        self._slopes: list[Tensor] = []
        self._seeds: Tensor | None = None

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
        """The timesteps at these levels by the model's noise schedule."""
        raise NotImplementedError

    def _time_scale(self, level: float) -> float:
        """Of the levels, in which timesteps between two of the main grid are interpolated."""
        raise NotImplementedError

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        """The network's output as dx/dlevel."""
        raise NotImplementedError

    def _first_step(self, strength: float, steps: int) -> int:
        """Where image-to-image pipelines begin: strength of the steps is left, rounded in their way."""
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
        self._read_settings()
        self._forget_steps()
        self._own_times: dict[float, float] = {}

        def grid(steps: int | None) -> MainGrid:
            main_grid(steps)
            times = self.timesteps.tolist()
            main = MainGrid.read(self.sigmas.tolist()[: len(times) + 1], times)  # log_linear has one level more
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
        for level in self._main.repeated:  # where diffusers makes a step of no size
            place = next((row for row, call in enumerate(calls) if call.level <= level), len(calls))
            calls.insert(place, Evaluation(level, 0, (), (), restart=False, lands=False))
        self._set_rows(calls, self._times(calls), self.path.levels[-1], device)
        rows = len(calls)
        self.num_inference_steps = rows if given else count
        # A pipeline's bar counts each order-th of the last order * steps rows, and the last row.
        full = step_cost * (self.num_inference_steps - 1) < rows <= step_cost * self.num_inference_steps
        self.order = step_cost if full else 1

    def _path(self, grid: Callable[[int | None], MainGrid], count: int, calls: int) -> NoisePath:
        """The path with restarts within a number of calls, or on top of the main grid."""
        budget = self.config.restart_budget or ("extra" if self._given else "inside")
        if budget == "extra" or (budget == "calls" and self._own_levels) or not self._restarts.intervals:
            return self._restarts.path(self._main.levels)
        if budget == "inside" and not self._given:
            return self._restarts.fit(lambda steps: grid(steps).levels, count, calls)
        levels = self._main.levels
        return self._restarts.fit(partial(resample, levels, 0), len(levels) - 1, calls - len(self._main.repeated))

    def _enough(self, grid: Callable[[int | None], MainGrid], count: int, step_cost: int) -> str:
        """How many steps would do, in words; nothing where many would not."""
        for steps in range(count + 1, min(count + 200, self.config.num_train_timesteps) + 1):
            try:
                self._main = grid(steps)
                self._path(grid, steps, step_cost * steps)
            except InputError:
                continue
            return f" ({steps} would do)"
        return ""

    def _log_snaps(self) -> None:
        """Says once which t_min are not where they were asked for."""
        main = [move.now for move in self.path.moves if not (move.restart or move.rises)]
        snapped = [(each, each.snap(main)) for each in self._restarts.intervals] if self._restarts.intervals else []
        said = [
            f"{each} begins at level {level:.4g}" for each, level in snapped if abs(level - each.t_min) > 0.05 * level
        ]
        if said and said != self._said:
            self._said = said
            level = logging.INFO if self.config.restart_grid == "timesteps" else logging.WARNING
            _log.log(level, "of the main grid's levels, the nearest to t_min is used: %s", ", ".join(said))

    def _times(self, calls: Sequence[Evaluation]) -> list[float]:
        """The timestep of each row; in paths with restarts no two are equal, so that a pipeline's copy tells the row.

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
        calls = [replace(calls[0], weights=(), rises=())] * (left - len(calls)) + calls
        times = torch.tensor(self._times(calls), dtype=torch.float32)
        self._timesteps[begin:] = times.to(self._timesteps.device)
        self._sigmas[begin:-1] = torch.tensor([call.level for call in calls])
        self._calls = [*self._calls[:begin], *calls]
        self._laid_out_from = begin
        self._mark(self._kept[0][:begin] + times.tolist(), self._sigmas.tolist())

    def _given_step(self, begin: int) -> int:
        """The step of the main grid where a pipeline that begins at this row would begin without restarts."""
        rows, steps = len(self._calls), len(self._main.given) - 1
        if not self._given or rows == steps:
            return begin // self.order
        # The pipeline has taken strength of the rows, and does not say which: the roundest that leads to this one.
        strengths = (part / parts for parts in (10, 20, 100) for part in range(1, parts + 1))
        strength = next((each for each in strengths if self._first_step(each, rows) == begin), 1 - begin / rows)
        return self._first_step(strength, steps)

    def _about_to_noise(self, timesteps: Tensor) -> None:
        """To be called before data are noised: finds the row where an image-to-image pipeline begins.

        Some pipelines say it by set_begin_index, and some by the timesteps alone.
        """
        if not self._calls:
            return  # of training
        self._check_edits()
        begin = self._begin_index
        if self._step_index == len(self._calls) and begin is not None and self._is_at(begin, timesteps.flatten()[:1]):
            self._step_index = None  # another image
        if self._step_index is not None:
            return
        if begin is None and self.path.rises and len({*timesteps.flatten().tolist()}) == 1:
            begin = self._begin_index = self._row_of(timesteps)
        if 0 < (begin or 0) < len(self._calls):
            self._lay_out(begin or 0)

    def _enter(self, timestep: float | Tensor, sample: Tensor) -> int:
        """The row where a run begins.

        Raises:
            InputError: the timestep is of another row, or the sample cannot enter at it.
        """
        if not self._calls:  # never given a number of steps: the training levels
            times, levels = self.timesteps.tolist(), self.sigmas.tolist()
            levels += [0.0] * (len(levels) == len(times))  # FlowMatchEulerDiscreteScheduler leaves it out
            self._given, self._main = False, MainGrid.read(levels, times)
            self._own_times = dict(zip(self._main.levels, times, strict=False))
            self.path = Restarts((), power_grid, *self.solvers).path(self._main.levels)
            calls = self._restarts.evaluations(self.path, self.process)
            self._set_rows(calls, self._times(calls), self.path.levels[-1], self.timesteps.device)
        self._check_edits()
        row = self._row_of(timestep) if self._begin_index is None else self._begin_index
        if row >= len(self._calls) or not self._is_at(row, timestep):
            raise self._other_row(row, timestep)
        if row != self._laid_out_from:
            self._check_entry(row, sample)
        self._begin_index = self._step_index = row
        self._start, self._seeds = None, None
        return row

    def _other_row(self, row: int, timestep: float | Tensor) -> InputError:
        time = f"timestep {self._kept[0][row]:g}" if row < len(self._calls) else "the end"
        given = timestep.flatten()[0].item() if isinstance(timestep, Tensor) else timestep
        return InputError(
            f"the scheduler is at row {row} ({time}), and the timestep {given:g} of another row was given; call step "
            f"once for each of scheduler.timesteps, in order, and set_timesteps (or set_begin_index) before them"
        )

    def _check_entry(self, row: int, sample: Tensor) -> None:
        """Whether a sample that was not noised here can enter at this row, which stays as it is.

        Raises:
            InputError: the row is within a restart or before one that rises above it, or in the middle of a step, or
                the sample is as noisy as it is at the first row.
        """
        call, *later = self._calls[row:]
        if call.restart or any(each.level > call.level for each in later):
            raise InputError(
                f"the sample enters at timestep {self._kept[0][row]:g}, which lies within a restart or below one that "
                f"is still to come; noise it by the scheduler's add_noise or scale_noise, or for SDXL's "
                f"denoising_start give restarts wholly above or wholly below it"
            )
        if call.stage and not call.lands:
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
        pred_original_sample: Tensor | None = None,
        per_token_timesteps: Tensor | None = None,
    ) -> EulerDiscreteSchedulerOutput | tuple[Tensor, ...]:
        """From one call of the network to the next; where a restart begins, also up to its level.

        Args:
            model_output: of the network at this row of `timesteps`, [B, ...]; of twice the channels of the sample, the
                first half.
            timestep: of the row.
            sample: state at this row, [B, ...].
            generator: of the noise, one or a list of one for each image; default: the attribute `generator`, else the
                bits of the initial latents.
            return_dict: whether to return an object with `prev_sample` and `pred_original_sample`.
            pred_original_sample: the data that the network expects, in place of model_output (Cosmos).
            per_token_timesteps: levels of single tokens (LTX); they must be those of the row.

        Returns:
            The state at the next row, in model_output's dtype, and x0, the data that the network expects. After the
            last row, the sample.

        Raises:
            InputError: the timestep is not that of the row, the list of generators is not as long as the batch, or the
                run cannot begin at this row.
        """
        generator = self.generator if generator is None else generator
        check_generators(generator, len(sample))
        row = self._step_index
        if row is None or (row == len(self._calls) and self._is_at(self._begin_index or 0, timestep)):
            row = self._enter(timestep, sample)
            self._check_first_step(row)
        elif row == len(self._calls):
            return self._unmoved(sample, return_dict)
        elif not self._is_at(row, timestep):
            raise self._other_row(row, timestep)
        if row == self._begin_index:
            self._check_tokens(per_token_timesteps, timestep)
            self._seeds = latent_seeds(sample) if generator is None and self.path.rises else None
        call, self._step_index = self._calls[row], row + 1
        if model_output.shape != sample.shape and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]  # without the variance that the network learned
        # float32 as in diffusers' schedulers; half precision is too coarse for the small steps.
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        if call.level == 0:
            return self._unmoved(sample, return_dict)
        # Of the sample that the network saw, which a callback may have changed since the last call.
        if pred_original_sample is None:
            slope = self._slope(model_output.to(x.dtype), x, call.level)
        else:
            slope = (x - pred_original_sample.to(x.dtype)) / call.level
        after = self._advance(row, call, slope, x, generator).to(model_output.dtype)
        if not (return_dict or self._tuples_have_x0):
            return (after,)
        x0 = torch.add(x, slope, alpha=-call.level).to(model_output.dtype)
        return EulerDiscreteSchedulerOutput(after, x0) if return_dict else (after, x0)

    def _unmoved(self, x: Tensor, return_dict: bool) -> EulerDiscreteSchedulerOutput | tuple[Tensor, ...]:
        if return_dict:
            return EulerDiscreteSchedulerOutput(x, x)
        return (x, x) if self._tuples_have_x0 else (x,)

    def _seeds_of(self, x: Tensor) -> Tensor:
        """The seeds of the run; those of this state, where a pipeline goes on with another batch."""
        if self._seeds is None or len(self._seeds) != len(x):
            self._seeds = latent_seeds(x)
        return self._seeds

    def _check_first_step(self, row: int) -> None:
        """Whether the network saw what it should."""

    def _check_tokens(self, per_token_timesteps: Tensor | None, timestep: float | Tensor) -> None:
        if per_token_timesteps is not None and (per_token_timesteps != timestep).any():
            raise InputError(
                "per_token_timesteps has levels that are not those of the row (LTX's image or video conditions), which "
                "restarts cannot follow; use FlowMatchEulerDiscreteScheduler"
            )

    def _advance(self, row: int, call: Evaluation, slope: Tensor, x: Tensor, generator: Generators) -> Tensor:
        if call.stage == 0:
            self._start = x
        if self._start is None or not call.weights:  # entered where a step ends, or called in vain
            return x
        del self._slopes[call.stage :]  # Cosmos makes a step twice
        self._slopes.append(slope)
        x = self._start
        for weight, slope in zip(call.weights, self._slopes, strict=True):
            x = torch.add(x, slope, alpha=weight)
        for number, (low, high) in enumerate(call.rises):
            keep, std = self.process.rise(low, high)
            if generator is None:
                draw = 1 + number + sum(len(each.rises) for each in self._calls[:row])
                noise = seeded_noise(x, self._seeds_of(x), draw)
            else:
                noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = torch.add(keep * x, noise, alpha=std)
        return x
