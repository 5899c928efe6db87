"""The exact denoiser of a Gaussian mixture: theory can be tested against it, and examples need no checkpoint."""

from dataclasses import astuple
from functools import partial
from hashlib import sha256
from math import isfinite

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, require_kind
from restart_sampling.sampling.process import VE, Process


class GaussianMixture:
    """Data from a mixture of round Gaussians, with its exact denoiser for any process: a `Net`.

    Args:
        means: [M, ...], float64; one image-shaped mean for each component.
        std: standard deviation of each component, in every direction; 0 or above.
        log_weights: [M], up to a constant; default: equal.
        process: of the denoiser and of `draw`.

    Raises:
        InputError: means is no tensor [M, ...], std out of range, or log_weights not [M].
    """

    sigma_min = 0.0
    D: int | None = None

    def __init__(self, means: Tensor, std: float, log_weights: Tensor | None = None, process: Process = VE) -> None:
        require_kind("means", means, Tensor, "a tensor [M, ...]")
        if means.ndim < 2:
            raise InputError(f"means has the shape {list(means.shape)}; give [M, ...]")
        if not (isfinite(real_number("std", std)) and std >= 0):
            raise InputError(f"std = {std}; give a finite number, 0 or above")
        if log_weights is not None and log_weights.shape != means.shape[:1]:
            raise InputError(
                f"log_weights has the shape {list(log_weights.shape)}; give one for each of the {len(means)} means"
            )
        self.means = means
        self.std = std
        self.log_weights = torch.zeros_like(means.flatten(1)[:, 0]) if log_weights is None else log_weights
        self.process = process
        self.sigma_max = process.highest
        self.device = means.device

    @property
    def identity(self) -> str:
        """SHA-256 of all that it is made of."""
        numbers = (self.means.tolist(), self.std, self.log_weights.tolist(), astuple(self.process))
        return sha256(repr(numbers).encode()).hexdigest()

    def round_level(self, level: float) -> float:
        """Returns the level: it knows all."""
        return level

    def evaluations(self, level: float) -> int:
        """Returns 1."""
        return 1

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns E[x0 | x] for x [B, ...] at levels sigma [B] (t for a flow)."""
        flat, means = x.flatten(1), self.means.flatten(1)
        alpha = self.process.alpha(sigma)[:, None]
        variance = alpha**2 * self.std**2 + self.process.std(sigma)[:, None] ** 2
        distance = ((flat[:, None] - alpha[:, None] * means) ** 2).sum(-1)
        weights = torch.softmax(self.log_weights - distance / (2 * variance), dim=1)
        nearest = weights @ means
        return (nearest + alpha * self.std**2 / variance * (flat - alpha * nearest)).reshape(x.shape)

    def draw(self, count: int, level: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Draws `count` exact samples [count, ...] of the state at `level` (0: of the data)."""
        component = torch.multinomial(torch.softmax(self.log_weights, 0), count, replacement=True, generator=generator)
        means = self.means[component]
        noise = partial(torch.randn, means.shape, generator=generator, dtype=means.dtype, device=means.device)
        x0 = means + self.std * noise()
        return self.process.alpha(level) * x0 + self.process.std(level) * noise()
