"""Noise that depends on the seed of each image alone, and the sources that start and raise states with it.

`noise(seeds, draw, count)` has no state: batch size, order, rank and resume cannot change the image of a seed.
"""

from collections.abc import Iterable, Sequence, Set
from enum import IntEnum
from functools import cache
from importlib.util import find_spec
from math import isfinite, pi, prod
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, real_number, require_kind, whole_number
from restart_sampling.base.numerics import state_dtype
from restart_sampling.sampling.process import VE, Process

_WORD = 0xFFFFFFFF


class Stream(IntEnum):
    """Independent sources of numbers for one seed and draw."""

    STATE = 0
    LABEL = 1
    AUGMENTED = 2


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes four random 32-bit words for each counter and key, by Philox 4x32-10.

    Args:
        counter: four int64 tensors of 32-bit words, of shapes that broadcast.
        key: two, likewise.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2^64, so their bits are those of the unsigned products.
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (right >> 32 & _WORD) ^ c1 ^ k0, right & _WORD, (left >> 32 & _WORD) ^ c3 ^ k1, left & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return c0, c1, c2, c3


def _random_words(seeds: Tensor, draw: int, blocks: int, stream: Stream) -> Tensor:
    """Draws uniform 32-bit words, int64 [B, blocks, 4]."""
    block = torch.arange(blocks, device=seeds.device)
    zero = torch.zeros_like(block)
    words = philox((block, zero + draw, zero + int(stream), zero), ((seeds & _WORD)[:, None], (seeds >> 32)[:, None]))
    return torch.stack(words, dim=-1)


def noise(seeds: Tensor, draw: int, count: int, stream: Stream = Stream.STATE) -> Tensor:
    """Draws standard normal numbers by Box-Muller: element e of (seed, draw, stream) is the same in every call.

    Args:
        seeds: int64 [B], each in [0, 2^63), on a device that has float64.
        draw: 0 for the start, k for the k-th rise.
        count: numbers a seed.
        stream: which of a draw's independent sources.

    Returns:
        float64 [B, count] on the seeds' device.
    """
    if seeds.is_cuda and _has_triton():
        from restart_sampling.sampling.fused_noise import fused_noise

        return fused_noise(seeds, draw, count, stream)
    words = _random_words(seeds, draw, (count + 3) // 4, stream)
    uniform = (words.double() + 0.5) * 2.0**-32
    radius, angle = torch.sqrt(-2 * torch.log(uniform[..., 0::2])), 2 * pi * uniform[..., 1::2]
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1).flatten(1)[:, :count]


@cache
def _has_triton() -> bool:
    """Says whether Triton is there; torch brings it along for NVIDIA devices on Linux, and not elsewhere."""
    return find_spec("triton") is not None


class Noise(Protocol):
    """All randomness of one batch of images: the start, the class labels, and each rise."""

    @property
    def process(self) -> Process:
        """How the states mix data and noise."""

    def start(self, shape: Sequence[int], level: float) -> Tensor:
        """Begins the draws anew and returns the first state [B, *shape], at `level`."""

    def labels(self, label_dim: int) -> Tensor:
        """Draws a class for each image, uniform in [0, label_dim): int64 [B]. Called after `start`."""

    def __call__(self, x: Tensor, low: float, high: float) -> Tensor:
        """Raises the state from level `low` to `high`, with a new draw at each call."""


def seed_list(seeds: Iterable[int]) -> list[int]:
    """Lists seeds of any collection that has an order, or of a generator.

    Raises:
        InputError: a seed is no whole number or out of range, or the seeds have no order.
    """
    if isinstance(seeds, Set) or not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) == 0:
        raise InputError(f"the seeds are of type {type(seeds).__name__}; give a list of them, or a range")
    whole = [whole_number("seed", seed) for seed in seeds]
    for seed in whole:
        if not 0 <= seed < 2**63:
            raise InputError(f"seed {seed} is out of range; seeds are integers from 0 to 2^63 - 1")
    return whole


def seed_of_rises(seed: int, start: float) -> int:
    """Makes a seed for the noise along a path, in [0, 2^63), of the one from which a host program drew its first state.

    It is another one, so that no rise adds the noise of that state again; far from those of neighbouring seeds; and
    another for each first level, so that a path that is sampled in two parts with one seed has other noise in each.
    """
    return Random(f"{seed} {start!r}").getrandbits(63)


def noise_factor(s_noise: float) -> float:
    """Returns the factor on the noise of every rise as a float.

    Raises:
        InputError: it is no finite number, 0 or above.
    """
    factor = real_number("s_noise", s_noise)
    if not (isfinite(factor) and factor >= 0):
        raise InputError(f"s_noise is {factor:g}; give a finite number, 0 or above")
    return factor


def require_seeds(count: int, x: Tensor) -> None:
    """Makes sure that there are as many seeds as states [B, ...].

    Raises:
        InputError: there are more or fewer, and noise of one would be added to several.
    """
    if len(x) != count:
        raise InputError(f"the noise has {counted(count, 'seed')} for {counted(len(x), 'state')}; give one for each")


class CounterNoise:
    """What the sources of counter-based noise share: draw 0 starts, draw k is the k-th rise, labels have a stream."""

    def __init__(self, seeds: Iterable[int], *, s_noise: float = 1.0, device: torch.device | str = "cpu") -> None:
        self.s_noise = noise_factor(s_noise)
        self.device = torch.device(device)
        self.seeds = torch.tensor(seed_list(seeds), dtype=torch.int64, device="cpu")
        # Other devices may have no float64, so their noise is made on the CPU.
        if self.device.type == "cuda":  # from pinned memory the copy waits for nothing that the device still does
            self.seeds = self.seeds.pin_memory().to(self.device, non_blocking=True)
        self.draw = 0

    def labels(self, label_dim: int) -> Tensor:
        """Draws a class for each image, uniform in [0, label_dim): int64 [B]."""
        words = _random_words(self.seeds, 0, 1, Stream.LABEL)[:, 0, 0]
        return (words * label_dim >> 32).to(self.device)

    def _noise(self, count: int, stream: Stream = Stream.STATE, seeds: Tensor | None = None) -> Tensor:
        drawn = noise(self.seeds if seeds is None else seeds, self.draw, count, stream)
        return drawn.to(self.device, state_dtype(self.device))


class GaussianNoise(CounterNoise):
    """Gaussian noise: x at `high` = keep x + s_noise noise_std n, which is exact for the process at s_noise = 1.

    Args:
        seeds: one for each image of the batch, in [0, 2^63).
        s_noise: factor on the noise of every rise (EDM's S_noise).
        process: how the state mixes data and noise.
        device: where the states are.

    Raises:
        InputError: a seed or s_noise is out of range, or it is no process.

    Source: Restart sampling (arXiv 2306.14878), algorithm 2.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        *,
        s_noise: float = 1.0,
        process: Process = VE,
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind("the process", process, Process, "rs.VE or rs.FLOW")
        super().__init__(seeds, s_noise=s_noise, device=device)
        self.process = process

    def start(self, shape: Sequence[int], level: float) -> Tensor:
        """Returns std(level) n as [B, *shape], float64: the state at the first level, without data."""
        self.draw = 0
        return self.process.std(level) * self._noise(prod(shape)).reshape(-1, *shape)

    def __call__(self, x: Tensor, low: float, high: float) -> Tensor:
        """Raises the state [B, ...] from `low` to `high`, in x's dtype."""
        require_seeds(len(self.seeds), x)
        self.draw += 1
        keep, std = self.process.rise(low, high)
        n = self._noise(prod(x.shape[1:])).reshape(x.shape).to(x.dtype)
        return keep * x + (self.s_noise * std) * n
