"""What samplers know of a network."""

from typing import Any, Protocol

import torch
from torch import Tensor

from restart_sampling.sampling.process import Process


class Net(Protocol):
    """A denoiser with its process and the levels that it knows.

    `load_model`, `from_eps`, `from_v`, `from_x0`, `from_flow` and `from_edm` make them.
    """

    @property
    def process(self) -> Process:
        """How its states mix data and noise."""
        ...

    @property
    def sigma_min(self) -> float:
        """The lowest level above 0 that it knows, in the process's level (sigma, or t of a flow)."""
        ...

    @property
    def sigma_max(self) -> float:
        """The highest level that it knows; inf: there is no limit."""
        ...

    @property
    def D(self) -> int | None:  # noqa: N802  the paper's symbol
        """Augmented dimensions of a PFGM++ model; None: its noise is Gaussian."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its states are."""
        ...

    def round_level(self, level: float) -> float:
        """The nearest level that it knows: `level` itself, but for networks of discrete timesteps."""
        ...

    def __call__(self, x: Tensor, level: Tensor, **kwargs: Any) -> Tensor:
        """The expected data, like x, of states x [B, ...] at levels [B]; keyword arguments are the network's own."""
        ...
