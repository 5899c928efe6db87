"""Restart sampling for diffusers pipelines of flow models: Stable Diffusion 3 and FLUX."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.process import FLOW, Process
from restart_sampling.sampling.solvers.single_step import Euler
from restart_sampling.text_to_image.configs import arguments_of, check_values, flow_config
from restart_sampling.text_to_image.main_grid import check_own
from restart_sampling.text_to_image.pipeline_checks import check_conditions, check_ends, check_weights
from restart_sampling.text_to_image.restart_steps import RestartSteps


class FlowMatchRestartScheduler(RestartSteps, FlowMatchEulerDiscreteScheduler):
    """Restart for flow models; levels are t, from 1 (noise) to 0 (data).

    `pipe.scheduler = FlowMatchRestartScheduler.from_config(pipe.scheduler.config, restart=[[4, 1, 0.3, 0.6]])`.

    The main grid is that of FlowMatchEulerDiscreteScheduler, whose other arguments it takes.

    Args:
        restart: intervals [points, repeats, t_min, t_max] in t, after the scheduler's shift.
        solver: of the main grid, as for `RestartScheduler`.
        restart_solver: of the restarts; default: the main grid's.
        restart_budget: as for `RestartScheduler`.
        restart_grid: levels of the restarts: "karras", "exponential", or "even" (in t).
        euler_below: steps of the restarts that end at this t or below are Euler steps.

    Raises:
        InputError: an argument is out of its range, or a config that this class does not know.
    """

    __module__ = "restart_sampling.text_to_image"  # written into the files of saved pipelines
    process: ClassVar[Process] = FLOW
    _tuples_have_x0: ClassVar[bool] = False  # as FlowMatchEulerDiscreteScheduler
    _config_of = staticmethod(lambda config, defaults, given: flow_config(config, defaults))
    _compatibles: ClassVar[list[str]] = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        invert_sigmas: bool = False,
        shift_terminal: float | None = None,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        time_shift_type: str = "exponential",
        stochastic_sampling: bool = False,
        restart: list[list[float]] | None = None,
        solver: str = "euler",
        restart_solver: str | None = None,
        restart_budget: str | None = "calls",
        restart_grid: str = "karras",
        euler_below: float = 0.0,
    ) -> None:
        self._register(**check_values(type(self), self.config))
        super().__init__(**arguments_of(FlowMatchEulerDiscreteScheduler, self.config))
        if invert_sigmas:
            raise InputError("invert_sigmas is true (Mochi), so the levels rise; this scheduler needs falling ones")
        if stochastic_sampling:
            raise InputError(
                "stochastic_sampling is true; its noise would come on top of that of the restarts: set it to false"
            )
        self._begin()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | np.ndarray | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """Sets the rows: one for each call of the model.

        Args:
            num_inference_steps: steps of the main solver, restarts included unless the budget is "extra".
            device: of `timesteps`.
            sigmas: the main grid before the shift instead, without the last 0.
            mu: of the dynamic shift.
            timesteps: the main grid as timesteps instead.

        Raises:
            InputError: the restarts do not fit the levels or the number of steps.
        """
        grid = super().set_timesteps
        self._read_settings()
        given = timesteps is not None or sigmas is not None
        falls = bool(self._restarts.intervals)
        check_own("sigmas", sigmas, falls)
        # Beside sigmas they may be of a map of the user's, and rise.
        check_own("timesteps", timesteps, falls and sigmas is None, highest=self.config.num_train_timesteps)
        # Users write lists; pipelines (FLUX) make an array of num_inference_steps.
        ramp = isinstance(sigmas, np.ndarray) and len(sigmas) > 1 and bool(np.ptp(np.diff(sigmas)) < 1e-4)
        self._set_steps(lambda steps: grid(steps, device, sigmas, mu, timesteps), num_inference_steps, given, ramp)
        self.sigmas = self.sigmas.to(self.timesteps.device)  # where diffusers has them for flow models

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """Noises data [B, ...] to the levels of timesteps [B]; before the first step, to that where the run begins.

        Raises:
            InputError: the restarts do not fit into what an image-to-image pipeline's strength leaves.
        """
        self._about_to_noise(timestep)
        return super().scale_noise(sample, timestep, noise)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor) -> Tensor:
        """Returns the sample: networks of flow models see it as it is."""
        return sample

    def _check_first_step(self, row: int, sample: Tensor) -> None:
        if self.path.rises:
            check_conditions()
        if self.path.rises or not isinstance(self._restarts.solver, Euler):
            check_ends()
            check_weights(len(self._calls))

    def _token_levels(self, times: Tensor, sample: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.path.rises or not isinstance(self._restarts.solver, Euler):
            return None
        now = times.to(sample.device) / self.config.num_train_timesteps
        levels = self.sigmas.to(sample.device)
        then = (levels * (levels < now[..., None] - 1e-6)).amax(dim=-1)
        shape = *now.shape, *[1] * (sample.ndim - now.ndim)
        return now.reshape(shape), then.reshape(shape)

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        return [level * self.config.num_train_timesteps for level in levels]

    def _time_scale(self, level: float) -> float:
        return level

    def _first_step(self, strength: float, steps: int) -> int:
        return int(steps - steps * strength)

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        return output
