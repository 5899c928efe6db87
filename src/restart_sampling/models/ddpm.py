"""DDPM's and iDDPM's preconditionings: their networks know noise levels from a table only."""

import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from restart_sampling.base.numbers import require_one_of
from restart_sampling.models.denoiser import Coefficients, Denoiser
from restart_sampling.models.layers import ExactBuffers


class _TablePrecond(ExactBuffers, Denoiser):
    """Of networks that know noise levels from a table only, so a sampler's levels have to go through `round_sigma`.

    Attributes:
        u: the noise levels, float32.
    """

    u: Tensor

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest entries of the table `u`: shape and dtype as sigma."""
        return self.u[self._nearest(sigma)].to(sigma.dtype)

    def _nearest(self, sigma: Tensor) -> Tensor:
        """Finds the places in the table, as EDM does: near the middle of two levels cdist may take either."""
        distances = torch.cdist(sigma.to(self.u.dtype).reshape(-1, 1), self.u.unsqueeze(-1))
        return distances.argmin(dim=1).reshape(sigma.shape)


class iDDPMPrecond(_TablePrecond):  # noqa: N801
    """Improved DDPM of Nichol and Dhariwal 2021 [EDM, table 1, column "iDDPM + DDIM"; appendix C.3].

    The network knows M noise levels. Checkpoints carry their own table, with the rounding of float32.

    Args:
        C_1: bound on the ratio of neighbouring alpha-bars.
        C_2: offset of the cosine schedule.
        M: number of noise levels above 0.
        model_type: a key of `NETWORKS`.
        **options: those of `Denoiser` and of the network.

    Attributes:
        u: the noise levels [M + 1], float32, falling to u[M] = 0.
    """

    def __init__(
        self,
        *,
        img_channels: int,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **options: Any,
    ) -> None:
        u = [0.0]
        for j in range(M, 0, -1):
            ratio = _alpha_bar(j - 1, M, C_2) / _alpha_bar(j, M, C_2)
            u.append(math.sqrt((u[-1] ** 2 + 1) / max(ratio, C_1) - 1))
        u.reverse()
        super().__init__(
            img_channels=img_channels,
            out_channels=2 * img_channels,  # it also learned the variance of DDPM's steps
            sigma_min=u[M - 1],
            sigma_max=u[0],
            model_type=model_type,
            **options,
        )
        self.M = M
        self.register_buffer("u", torch.tensor(u, dtype=torch.float32, device="cpu"))

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Returns c_skip = 1, c_out = -sigma, c_in = 1/sqrt(sigma²+1), c_noise = M - 1 - argmin_j |u_j - sigma|."""
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=(sigma**2 + 1).rsqrt(),
            c_noise=(self.M - 1 - self._nearest(sigma)).to(sigma.dtype),
        )


def _alpha_bar(j: int, M: int, C_2: float) -> float:
    return math.sin(math.pi / 2 * j / M / (C_2 + 1)) ** 2


class DDPMPrecond(_TablePrecond):
    """DDPM of Ho et al. 2020 (arXiv 2006.11239) and what came of it: a network of integer timesteps 0 to M - 1.

    With a_t the product of 1 - beta up to timestep t, its states are sqrt(a_t) x0 + sqrt(1 - a_t) noise, which are the
    sampler's after a division by sqrt(a_t): sigma_t = sqrt((1 - a_t) / a_t).

    Args:
        schedule: a key of `BETAS`.
        beta_start: the first beta; not of the cosine schedule.
        beta_end: the last beta; not of the cosine schedule.
        M: number of timesteps.
        timestep_scale: what the network is asked with, for each timestep; 1000 / M where the timesteps are rescaled.
        prediction: what the network predicts, in the words of diffusers.
        learned_variance: whether the network has as many channels again for the variance of DDPM's steps, unused here.
        model_type: a key of `NETWORKS`.
        **options: those of `Denoiser` and of the network.

    Attributes:
        u: the noise levels [M], float32, rising.

    Raises:
        InputError: an unknown schedule or prediction.
    """

    def __init__(
        self,
        *,
        img_channels: int,
        schedule: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        M: int = 1000,
        timestep_scale: float = 1.0,
        prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
        learned_variance: bool = False,
        model_type: str = "DhariwalUNet",
        **options: Any,
    ) -> None:
        require_one_of("schedule", schedule, tuple(BETAS))
        require_one_of("prediction", prediction, ("epsilon", "v_prediction", "sample"))
        betas = BETAS[schedule](M, beta_start, beta_end)
        u = [math.sqrt(1 / a - 1) for a in accumulate((1 - beta for beta in betas), lambda a, b: a * b)]
        super().__init__(
            img_channels=img_channels,
            out_channels=2 * img_channels if learned_variance else None,
            sigma_min=u[0],
            sigma_max=u[-1],
            model_type=model_type,
            **options,
        )
        self.timestep_scale, self.prediction = timestep_scale, prediction
        self.register_buffer("u", torch.tensor(u, dtype=torch.float32, device="cpu"), persistent=False)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Returns c_in = 1/sqrt(sigma²+1), c_noise = the nearest timestep times its scale, c_skip and c_out.

        The last two go with what the network predicts. The noise: 1 and -sigma; the data: 0 and 1; v [Salimans and Ho
        2022, section 4]: 1/(sigma²+1) and -sigma/sqrt(sigma²+1).
        """
        one, scale = torch.ones_like(sigma), (sigma**2 + 1).rsqrt()
        c_skip, c_out = {
            "epsilon": (one, -sigma),
            "v_prediction": (scale**2, -sigma * scale),
            "sample": (torch.zeros_like(sigma), one),
        }[self.prediction]
        return Coefficients(c_skip, c_out, scale, self._nearest(sigma).to(sigma.dtype) * self.timestep_scale)


def _linear(M: int, start: float, end: float) -> list[float]:
    return [start + (end - start) * t / (M - 1) for t in range(M)]


def _cosine(M: int, *_: float) -> list[float]:
    return [min(1 - _alpha_bar(j - 1, M, 0.008) / _alpha_bar(j, M, 0.008), 0.999) for j in range(M, 0, -1)]


BETAS: Mapping[str, Callable[[int, float, float], list[float]]] = {
    "linear": _linear,
    "scaled_linear": lambda M, start, end: [root**2 for root in _linear(M, math.sqrt(start), math.sqrt(end))],
    "cosine": _cosine,
}
"""Schedules of DDPM: betas [M] from M and the first and the last of them.

Ho et al. 2020 (linear), Rombach et al. 2022 (arXiv 2112.10752, linear in the roots), Nichol and Dhariwal 2021 (cosine).
"""
