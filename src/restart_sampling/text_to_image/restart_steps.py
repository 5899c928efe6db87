"""What the two schedulers share: their settings, the beginning of a run, and the step."""

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import inf
from numbers import Real
from typing import Any, ClassVar, Literal, Self, SupportsFloat, get_args

import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.configs import OURS, Config, arguments_of, check_keywords, check_registered
from restart_sampling.text_to_image.intervals import as_lists, read_intervals
from restart_sampling.text_to_image.model_calls import DATA, EulerBelow, Evaluation, Key, scheduler_solver
from restart_sampling.text_to_image.restart_paths import Restarts
from restart_sampling.text_to_image.row_layout import RowLayout
from restart_sampling.text_to_image.step_noise import Generators, check_generators, latent_seeds, seeded_noise

Budget = Literal["calls", "inside", "extra"]


class RestartSteps(RowLayout):
    """A diffusers scheduler whose timesteps are the calls of the network along a noise path.

    Mixed into a scheduler that makes the main grid. Rises are made at the end of the step before them, so that the
    sample between two calls is always at the level of the next one.

    Attributes:
        generator: of the noise where the pipeline passes none to `step`: one, or a list of one for each image. Without
            both, the noise follows from the bits of the initial latents, so that equal latents have equal images.
    """

    _tuples_have_x0: ClassVar[bool]
    _config_of: ClassVar["staticmethod[[Config, Config, Config], dict[str, Any]]"]  # as `noise_config`

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Makes a scheduler from the config of another one.

        It has betas or is EDM's for RestartScheduler; for FlowMatchRestartScheduler it is a flow model's, or a solver's
        with flow sigmas (Wan, Sana).

        Raises:
            InputError: the config is of another kind, or a keyword argument is no setting.
        """
        if isinstance(config, Mapping):
            known = inspect.signature(cls.__init__).parameters
            if not return_unused_kwargs:
                check_keywords(cls.__name__, kwargs, known)
            defaults = {key: each.default for key, each in known.items() if key != "self"}
            config = cls._config_of(config, defaults, kwargs)
        return super().from_config(config, return_unused_kwargs, **kwargs)  # type: ignore[misc]

    def register_to_config(self, **settings: Any) -> None:
        """Changes settings of the config; they hold from the next set_timesteps on.

        Raises:
            InputError: a key is no setting, a value is not allowed, or a setting is of the noise schedule, for which
                there must be a new scheduler.
        """
        if "_restarts" in vars(self) and "_class_name" not in settings:  # else __init__ or from_config calls it
            check_registered(self.config, settings)
            type(self)(**arguments_of(type(self), {**self.config, **settings}))  # refuses what it would refuse
        self._register(**settings)

    def _register(self, **settings: Any) -> None:
        super().register_to_config(**settings)  # type: ignore[misc]

    def _read_settings(self) -> None:
        """Reads the settings of the config, when the scheduler is made and again with each set_timesteps.

        Raises:
            InputError: a setting is not one of those that are allowed.
        """
        config = self.config
        for name in OURS:
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
        if isinstance(below, (bool, str)) or not (isinstance(below, SupportsFloat) and 0 <= float(below) < inf):
            raise InputError(f"euler_below is {below!r}; give a level, 0 or above")
        if not isinstance(below, int | float):
            below = float(below)
            self._register(euler_below=below)  # as JSON keeps it
        intervals = read_intervals(config.restart)
        if config.restart is not None:
            self._register(restart=as_lists(intervals))  # as JSON keeps it
        solver = scheduler_solver(config.solver)
        restart_solver = solver if config.restart_solver is None else scheduler_solver(config.restart_solver)
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
        self._of_this_run: tuple[Generators, Generators] = None, None  # a copy's generator, and that of runs to come
        self._forget_steps()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies all but the generator of the runs to come, which both draw from: equal ones would draw equal noise.

        LTX 2 steps its sound by such a copy, and SkyReels each frame. A copy in the middle of a run ends that run with
        a generator of its own.
        """
        copied = memo[id(self)] = object.__new__(type(self))
        if self._begins:
            memo[id(self.generator)] = self.generator
        vars(copied).update(deepcopy(vars(self), memo))
        copied._of_this_run = copied.generator, self.generator
        return copied

    def _forget_steps(self) -> None:
        super()._forget_steps()
        own, shared = self._of_this_run
        if self.generator is own:  # not set anew by the user
            self.generator = shared
        self._of_this_run = None, None
        self._run: Sequence[Evaluation] = ()
        self._memory: dict[Key, Tensor] = {}
        self._seeds: Tensor | None = None

    @property
    def has_risen(self) -> bool:
        """Whether the last step ended at a higher level than it began at, as a restart begins."""
        row = self._step_index or 0
        return 0 < row < len(self._calls) and self._calls[row].level > self._calls[row - 1].level

    @property
    def _begins(self) -> bool:
        """Whether the next call begins a run: the first one, or one after a run that is over."""
        return self._step_index is None or self._step_index == len(self._calls)

    def _enter(self, timestep: float | Tensor, sample: Tensor) -> int:
        """Finds the row where a run begins.

        Raises:
            InputError: the timestep is of another row, or the sample cannot enter at it.
        """
        if not self._calls:
            self._lay_out_training()
        self._check_edits()
        if self._step_index is not None and not self._is_at(self._begin_index or 0, timestep):
            self._begin_index = None  # of the run before
        row = self._row_of(timestep) if self._begin_index is None else self._begin_index
        if row >= len(self._calls) or not self._is_at(row, timestep):
            raise self._other_row(row, timestep)
        if row < self._laid_out_from:
            raise InputError(
                f"the rows were laid out for a start at row {self._laid_out_from}, and the run begins at row {row}; "
                f"call set_timesteps before it"
            )
        self._run = self._calls
        if row > self._laid_out_from:
            self._check_entry(row, sample)
            self._run = self._entered(row)
        self._begin_index = self._step_index = row
        self._memory, self._seeds = {}, None
        return row

    def _other_row(self, row: int, timestep: float | Tensor) -> InputError:
        time = f"timestep {self._kept[0][row]:g}" if row < len(self._calls) else "the end"
        given = timestep.flatten()[0].item() if isinstance(timestep, Tensor) else timestep
        return InputError(
            f"the scheduler is at row {row} ({time}), and the timestep {given:g} of another row was given; call step "
            f"once for each of scheduler.timesteps, in order, and set_timesteps (or set_begin_index) before them"
        )

    def _check_entry(self, row: int, sample: Tensor) -> None:
        """Makes sure that a sample that was not noised here can enter at this row, which stays as it is.

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
        **others: Any,
    ) -> EulerDiscreteSchedulerOutput | tuple[Tensor, ...]:
        """Goes from one call of the network to the next; where a restart begins, also up to its level.

        Args:
            model_output: of the network at this row of `timesteps`, [B, ...]; of twice the channels of the sample, the
                first half.
            timestep: of the row.
            sample: state at this row, [B, ...].
            generator: of the noise, one or a list of one for each image; default: the attribute `generator`, else the
                bits of the initial latents.
            return_dict: whether to return an object with `prev_sample` and `pred_original_sample`.
            pred_original_sample: the data that the network expects, in place of model_output (Cosmos).
            per_token_timesteps: levels of single tokens, [B, tokens] of a sample [B, tokens, ...] (LTX), with which
                model_output has the opposite sign, as for diffusers' Euler; where there are restarts or another solver
                they must be those of the row.
            others: settings of other schedulers' steps, such as DDIM's eta, which must be off.

        Returns:
            The state at the next row, in model_output's dtype, and x0, the data that the network expects.

        Raises:
            InputError: a setting is not for this scheduler, the timestep is not that of the row, the generators are
                none or not as many as images, the output has another shape, or the run cannot begin at this row.
        """
        if others and (wanted := [name for name, value in others.items() if not _is_off(value)]):
            raise InputError(
                f"the pipeline sets {', '.join(wanted)} of another scheduler's step; use that scheduler in it"
            )
        generator = self.generator if generator is None else generator
        check_generators(generator, sample)
        row = self._enter(timestep, sample) if self._begins else self._step_index or 0
        if not self._is_at(row, timestep):
            raise self._other_row(row, timestep)
        tokens = None if per_token_timesteps is None else self._token_levels(per_token_timesteps, sample)
        if row == self._begin_index:
            self._check_first_step(row, sample)
            if tokens is None:
                self._check_tokens(per_token_timesteps, timestep)
            self._seeds = latent_seeds(sample) if generator is None and self.path.rises else None
        if model_output.shape != sample.shape and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]  # without the variance that the network learned
        predicted = model_output if pred_original_sample is None else pred_original_sample
        if predicted.shape != sample.shape:
            raise InputError(
                f"the network's output is {list(predicted.shape)} and the sample {list(sample.shape)}; they must have "
                f"one shape (but for a learned variance behind the channels)"
            )
        if per_token_timesteps is not None:
            model_output = -model_output
        call, self._step_index = self._run[row], row + 1
        # float32 as in diffusers' schedulers; half precision is too coarse for the small steps.
        x = _in(sample, torch.promote_types(sample.dtype, torch.float32))
        if call.level == 0:
            return self._unmoved(sample, return_dict)
        # Of the sample that the network saw, which a callback may have changed since the last call.
        if pred_original_sample is None:
            slope = self._slope(_in(model_output, x.dtype), x, call.level)
        else:
            slope = (x - pred_original_sample.to(x.dtype)) / call.level
        previewed = return_dict or self._tuples_have_x0
        if tokens is not None:
            now, then = tokens
            after = x + (then - now) * slope  # float32, as diffusers' Euler leaves it
            return EulerDiscreteSchedulerOutput(after, x - now * slope) if return_dict else (after,)
        x0 = torch.add(x, slope, alpha=-call.level) if previewed or (call.number, DATA) in call.needs else x
        after = _in(self._advance(row, call, (x, slope, x0), generator), model_output.dtype)
        if not previewed:
            return (after,)
        x0 = _in(x0, model_output.dtype)
        return EulerDiscreteSchedulerOutput(after, x0) if return_dict else (after, x0)

    def _unmoved(self, x: Tensor, return_dict: bool) -> EulerDiscreteSchedulerOutput | tuple[Tensor, ...]:
        if return_dict:
            return EulerDiscreteSchedulerOutput(x, x)
        return (x, x) if self._tuples_have_x0 else (x,)

    def _seeds_of(self, x: Tensor) -> Tensor:
        """Returns the seeds of the run; those of this state, where a pipeline goes on with another batch."""
        if self._seeds is None or len(self._seeds) != len(x):
            self._seeds = latent_seeds(x)
        return self._seeds

    def _check_first_step(self, row: int, sample: Tensor) -> None:
        """Makes sure that the network saw what it should."""

    def _token_levels(self, times: Tensor, sample: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns the level of each token and the one where its step ends, like the sample [B, tokens, ...] or for all.

        None: tokens must have the levels of the rows.
        """
        return None

    def _check_tokens(self, per_token_timesteps: Tensor | None, timestep: float | Tensor) -> None:
        if per_token_timesteps is not None and (per_token_timesteps != timestep).any():
            raise InputError(
                "per_token_timesteps has levels that are not those of the row (LTX's image or video conditions), which "
                "restarts and other solvers cannot follow; use solver 'euler' without restarts"
            )

    def _advance(self, row: int, call: Evaluation, own: tuple[Tensor, ...], generator: Generators) -> Tensor:
        x, before = own[0], self._memory
        if not call.terms:
            return x
        # Kept as if for the first time, since Cosmos makes a step twice; as copies, since a pipeline may write into its
        # sample (SkyReels) and a network into its output.
        memory = self._memory = {key: own[key[1]] if key[0] == call.number else before[key] for key in call.needs}
        memory.update((key, own[key[1]].clone()) for key in call.keeps)
        oldest = call.needs[0]
        if oldest[0] != call.number and memory[oldest].shape != x.shape:
            raise InputError(
                f"the sample is {list(x.shape)}, and that of the steps before, which solver {self.config.solver} uses, "
                f"was {list(memory[oldest].shape)}; keep the batch through a run"
            )
        (key, weight), *terms = call.terms
        x = memory[key] if weight == 1 else weight * memory[key]
        for key, weight in terms:
            x = torch.add(x, memory[key], alpha=weight)
        for number, (low, high) in enumerate(call.rises):
            keep, std = self.process.rise(low, high)
            if generator is None:
                draw = 1 + number + sum(len(each.rises) for each in self._calls[:row])
                noise = seeded_noise(x, self._seeds_of(x), draw)
            else:
                noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = torch.add(x if keep == 1 else keep * x, noise, alpha=std)
        return x


def _is_off(value: object) -> bool:
    """Tells whether a setting is none; a tensor is one, whatever is in it."""
    return value is None or (isinstance(value, Real) and value == 0)


def _in(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the tensor in a dtype; without a call of torch where it has it."""
    return x if x.dtype is dtype else x.to(dtype)
