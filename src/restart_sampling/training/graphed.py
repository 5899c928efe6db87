"""`GraphedStep`: forward and backward pass of a training step as one CUDA graph."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from restart_sampling.training.batches import Batch

_WARM_UPS = 2  # calls that load kernels and pick algorithms, which a capture cannot


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
            self._graph = self._captured(batch)
        for own, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._loss

    def _captured(self, batch: Batch) -> torch.cuda.CUDAGraph:
        given = {each.name: getattr(batch, each.name) for each in fields(batch)}
        own: dict[str, Any] = {name: None if value is None else value.clone() for name, value in given.items()}
        self._batch = Batch(**own)
        device = batch.images.device
        random = torch.cuda.get_rng_state(device)
        stream, other = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        other.wait_stream(stream)
        with torch.cuda.stream(other):
            for _ in range(_WARM_UPS):
                self._learn(self._batch)
        stream.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL has a thread that asks the device
            self._loss = self._learn(self._batch)
        torch.cuda.set_rng_state(random, device)  # the first step draws as any other
        return graph


def _tensors(batch: Batch) -> list[Tensor]:
    return [value for each in fields(batch) if (value := getattr(batch, each.name)) is not None]
