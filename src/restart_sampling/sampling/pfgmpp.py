"""The noise of PFGM++: the data are part of a space of N + D dimensions, in which levels are distances."""

from collections.abc import Iterable, Sequence
from math import prod, sqrt
from typing import ClassVar, SupportsIndex

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.sampling.noise import CounterNoise, Stream, require_seeds
from restart_sampling.sampling.process import VE, Process

_AT_ONCE = 2**22  # random numbers, so that what is computed on the way takes less than 1 GiB
MAX_DIMENSIONS = _AT_ONCE
"""The most augmented dimensions; near that the noise can no longer be told from Gaussian noise."""


def augmented_dimensions(D: SupportsIndex) -> int:
    """Returns D of PFGM++ as an int.

    Raises:
        InputError: it is no whole number, or out of range.
    """
    whole = whole_number("D", D)
    if not 1 <= whole <= MAX_DIMENSIONS:
        raise InputError(f"D is {whole}, and has to be a positive integer up to {MAX_DIMENSIONS:,}")
    return whole


class PFGMppNoise(CounterNoise):
    """The noise of PFGM++: the data in N + D dimensions, levels as sigma = r / sqrt(D).

    Args:
        seeds: one for each image of the batch, in [0, 2^63).
        D: augmented dimensions.
        s_noise: factor on every move.
        device: where the states are.

    Raises:
        InputError: a seed, s_noise or D is out of range.

    Source: Xu et al. 2023 (PFGM++, arXiv 2302.04265), section 3; Restart sampling (arXiv 2306.14878), appendix B.
    """

    process: ClassVar[Process] = VE

    def __init__(
        self, seeds: Iterable[int], *, D: int, s_noise: float = 1.0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(seeds, s_noise=s_noise, device=device)
        self.D = augmented_dimensions(D)

    def start(self, shape: Sequence[int], level: float) -> Tensor:
        """Returns the state [B, *shape], float64, at level sigma = r / sqrt(D).

        Its norm is r sqrt(BetaPrime(N/2, D/2)) in a uniform direction: the ratio of two Gaussian vectors' norms.
        """
        self.draw = 0
        r, size, parts = level * sqrt(self.D), prod(shape), []
        for seeds in self._split(self.seeds, size):
            n, z = self._noise(size, seeds=seeds), self._noise(self.D, Stream.AUGMENTED, seeds)
            parts.append(r * n / torch.linalg.vector_norm(z, dim=1, keepdim=True))
        return torch.cat(parts).reshape(-1, *shape)

    def __call__(self, x: Tensor, low: float, high: float) -> Tensor:
        """Moves the state [B, ...] from `low` to `high`, in x's dtype."""
        require_seeds(len(self.seeds), x)
        self.draw += 1
        size, parts = prod(x.shape[1:]), []
        for seeds, part in zip(self._split(self.seeds, size), self._split(x, size), strict=True):
            direction = self._noise(size + self.D, seeds=seeds)
            z = self._noise(self.D, Stream.AUGMENTED, seeds)
            parts.append(pfgmpp_move(part, low, high, z, direction, s_noise=self.s_noise))
        return torch.cat(parts)

    def _split(self, images: Tensor, size: int) -> tuple[Tensor, ...]:
        """Splits a tensor of images [B, ...], each of `size` numbers, so that noise of a part takes little memory."""
        return torch.split(images, max(1, _AT_ONCE // (size + self.D)))


def pfgmpp_move(x: Tensor, low: float, high: float, z: Tensor, direction: Tensor, s_noise: float = 1.0) -> Tensor:
    """Moves a PFGM++ state along a random line in N + D dimensions, from the sphere of level `low` to that of `high`.

    Args:
        x: state [B, ...] of N numbers an image, at level `low`.
        low: sigma before, r = sigma sqrt(D).
        high: sigma after.
        z: [B, D], any length: the direction of the augmented coordinates before the move (Gaussian draws).
        direction: [B, N + D], any length: of the line (Gaussian draws), data coordinates first.
        s_noise: factor on the move.

    Returns:
        The state at level `high`, in x's shape and dtype.

    Source: Restart sampling (arXiv 2306.14878), appendix B.
    """
    D = z.shape[1]
    z = z * (low * sqrt(D) / torch.linalg.vector_norm(z, dim=1, keepdim=True))
    v = direction / torch.linalg.vector_norm(direction[:, -D:], dim=1, keepdim=True)
    # |z + m v_D| = high sqrt(D) with |v_D| = 1; either root does, the line's direction being symmetric.
    along = (z * v[:, -D:]).sum(dim=1, keepdim=True)
    length = -along - torch.sqrt(along**2 + (high**2 - low**2) * D)
    return x + (s_noise * length * v[:, :-D]).reshape(x.shape).to(x.dtype)
