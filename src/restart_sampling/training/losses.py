"""The three losses: which noise levels are trained, what the noise is, and how much each level weighs.

All are `weight(sigma) * (D(x + sigma * noise; sigma) - x)²`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor

from restart_sampling.models.denoiser import Denoiser, EDMPrecond, VPPrecond


class Loss(Protocol):
    """Noise levels and their weights."""

    def levels(self, count: int, generator: Generator) -> Tensor:
        """Draws noise levels: float32 [count] on the generator's device."""

    def weight(self, sigma: Tensor) -> Tensor:
        """Computes the weight of each level, [B]."""


@dataclass(frozen=True)
class EDMLoss:
    """Karras et al. 2022 (arXiv 2206.00364), table 1, column "Ours"; also that of PFGM++ (sigma = r / sqrt(D)).

    The weight is 1 / c_out², so that the network's own target weighs the same at each level.
    """

    model: EDMPrecond
    P_mean: ClassVar[float] = -1.2
    P_std: ClassVar[float] = 1.2

    def levels(self, count: int, generator: Generator) -> Tensor:
        """Draws ln(sigma) ~ N(P_mean, P_std²)."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return (self.P_mean + self.P_std * normal).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """Computes (sigma² + sigma_data²) / (sigma sigma_data)²."""
        return (sigma**2 + self.model.sigma_data**2) / (sigma * self.model.sigma_data) ** 2


@dataclass(frozen=True)
class VPLoss:
    """Song et al. 2021 (arXiv 2011.13456); EDM, table 1, column "VP"."""

    model: VPPrecond
    epsilon_t: ClassVar[float] = 1e-5

    def levels(self, count: int, generator: Generator) -> Tensor:
        """Draws sigma(t) for t ~ U(epsilon_t, 1)."""
        uniform = torch.rand(count, generator=generator, device=generator.device)
        return self.model.sigma(self.epsilon_t + (1 - self.epsilon_t) * uniform)

    def weight(self, sigma: Tensor) -> Tensor:
        """Computes 1 / sigma²."""
        return 1 / sigma**2


@dataclass(frozen=True)
class Parametrization:
    """A kind of model.

    Attributes:
        class_name: of its denoiser, a key of `models.denoiser.DENOISERS`.
        loss: made from that denoiser.
    """

    class_name: str
    loss: Callable[..., Loss]


PARAMETRIZATIONS = {
    "edm": Parametrization("EDMPrecond", EDMLoss),
    "vp": Parametrization("VPPrecond", VPLoss),
    "pfgmpp": Parametrization("EDMPrecond", EDMLoss),
}


def unit_noise(shape: Sequence[int], D: int | None, generator: Generator) -> Tensor:
    """Draws the perturbation of a batch at noise level 1; it scales with the level.

    Gaussian, or that of PFGM++ (Xu et al. 2023, arXiv 2302.04265): a uniform direction in the N dimensions of an image
    and a radius R with density ~ R^(N-1) / (R² + r²)^((N+D)/2) at r = sqrt(D). That is r sqrt(BetaPrime(N/2, D/2)), r
    times the ratio of the norms of two Gaussian vectors. D to infinity is the Gaussian.

    Args:
        shape: [B, C, H, W].
        D: augmented dimensions; None is Gaussian.
        generator: on the device to use.

    Returns:
        float32 of this shape.
    """
    n = torch.randn(shape, generator=generator, device=generator.device)
    if D is None:
        return n
    z = torch.randn(shape[0], D, generator=generator, device=generator.device)
    length = torch.linalg.vector_norm(z, dim=1) / sqrt(D)
    return n / length.reshape(-1, *[1] * (len(shape) - 1))


def weighted_error(
    model: Denoiser,
    loss: Loss,
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    labels: Tensor | None,
    augment_labels: Tensor | None = None,
) -> Tensor:
    """Computes the loss of each image.

    Args:
        model: the denoiser.
        loss: that of its parametrization.
        images: clean, [B, C, H, W] in [-1, 1].
        sigma: their noise levels [B].
        noise: from `unit_noise`.
        labels: class numbers int64 [B], or None.
        augment_labels: what was done to the images, or None.

    Returns:
        [B], the mean over the pixels.
    """
    noisy = images + sigma[:, None, None, None] * noise
    error = (model(noisy, sigma, labels, augment_labels) - images) ** 2
    return loss.weight(sigma) * error.flatten(1).mean(dim=1)
