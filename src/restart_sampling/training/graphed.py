"""`GraphedStep`: forward and backward pass of a training step as one CUDA graph."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from restart_sampling.models.graphed import captured
from restart_sampling.training.batches import Batch

_WARM_UPS = 2  # which load kernels and pick algorithms


class GraphedStep:
    """A function of a batch as a CUDA graph: the host launches one thing where it launched thousands.

    Args:
        learn: adds to gradients whose memory stays, and returns the loss. All batches have the shapes of the first.
    """

    def __init__(self, learn: Callable[[Batch], Tensor]) -> None:
        self._learn = learn
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the loss, in memory of the graph that the next call writes over."""
        if self._graph is None:
            self.capture(batch)
        assert self._graph is not None
        for own, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._loss

    def capture(self, batch: Batch) -> None:
        """Makes the graph, for batches like this one; torch's generator of the device stays as it is."""
        given = {each.name: getattr(batch, each.name) for each in fields(batch)}
        own: dict[str, Any] = {name: None if value is None else value.clone() for name, value in given.items()}
        self._batch = Batch(**own)
        device = batch.images.device
        random = torch.cuda.get_rng_state(device)
        self._graph, self._loss = captured(lambda: self._learn(self._batch), _WARM_UPS)
        torch.cuda.set_rng_state(random, device)  # the first step draws as any other


def _tensors(batch: Batch) -> list[Tensor]:
    return [value for each in fields(batch) if (value := getattr(batch, each.name)) is not None]
