"""EDM's own random numbers, for comparisons with images that EDM's or the Restart authors' scripts made."""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import require_kind
from restart_sampling.base.numerics import state_dtype
from restart_sampling.sampling.move import restart_jumps
from restart_sampling.sampling.noise import noise_factor, require_seeds, seed_list
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import VE, Process


class EDMNoise:
    """One torch generator for each image, in the order of draws of EDM's scripts.

    The state first (float32), then the class label, then float64 noise: one draw for each jump of a restart and one
    before every fall, used or not, as the scripts draw it also where they add none. A seed's images are those of the
    scripts on the same type of device only, because torch's generators differ between devices.

    Args:
        seeds: one for each image of the batch.
        path: the noise path that will be sampled.
        s_noise: factor on the noise of every rise.
        device: where the states and the generators are.

    Raises:
        InputError: a seed or s_noise is out of range.

    Source: order of draws as described for EDM's generate.py and the Restart authors' generate_restart.py.
    """

    process: ClassVar[Process] = VE

    def __init__(
        self, seeds: Sequence[int], path: NoisePath, *, s_noise: float = 1.0, device: torch.device | str = "cpu"
    ) -> None:
        self.s_noise = noise_factor(s_noise)
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(seed % 2**32) for seed in seed_list(seeds)]
        require_kind("the path", path, NoisePath, "one of ode_path, churn_path or restart_path")
        self._rises = iter(zip(path.rises, _unused_draws(path), strict=True))

    def start(self, shape: Sequence[int], level: float) -> Tensor:
        """Returns level times unit Gaussian noise, [B, *shape], drawn in float32. May be called once."""
        return level * self._randn(shape, torch.float32).to(state_dtype(self.device))

    def labels(self, label_dim: int) -> Tensor:
        """Draws a class for each image, uniform in [0, label_dim): int64 [B]."""
        return self._stack(lambda generator: torch.randint(label_dim, (), generator=generator, device=self.device))

    def __call__(self, x: Tensor, low: float, high: float) -> Tensor:
        """Raises the state from `low` to `high`, after the draws that the scripts make and do not use.

        Raises:
            InputError: this is not the path's next rise, but the noise of a stochastic solver, or there are not as many
                states as seeds.
        """
        require_seeds(len(self.generators), x)
        rise, unused = next(self._rises, (None, 0))
        if rise is None or (low, high) != (rise.now, rise.then):
            raise InputError("EDM's scripts have no stochastic solvers, so that noise 'edm' is for ODE solvers only")
        for _ in range(unused):
            self._randn(x.shape[1:], x.dtype)
        return x + (high**2 - low**2) ** 0.5 * self.s_noise * self._randn(x.shape[1:], x.dtype)

    def _randn(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._stack(lambda generator: torch.randn(*shape, generator=generator, device=self.device, dtype=dtype))

    def _stack(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators])


def _unused_draws(path: NoisePath) -> Iterator[int]:
    """Counts, for each rise of a path, how many draws the scripts make and do not use before it."""
    unused, churned = 0, False
    for move, jump in zip(path.moves, restart_jumps(path.moves), strict=True):
        if move.rises:
            yield unused
            unused, churned = 0, not jump
        else:
            unused, churned = unused + (not churned), False
