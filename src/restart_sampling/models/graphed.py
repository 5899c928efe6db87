"""`GraphedNetwork`: calls of a network as a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GraphedNetwork(nn.Module):
    """A network whose calls of one batch size are a graph: the host launches one thing where it launched hundreds.

    Calls of other sizes are those of the network. The output is memory of the graph and is written over by the next
    call.

    Args:
        network: from `models.denoiser.NETWORKS`, on an NVIDIA device.
        batch: the size.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        super().__init__()
        self.network = network
        self.batch = batch
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._out = torch.empty(0)
        self.train(network.training)

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Runs the network; arguments as its own."""
        inputs = [x, noise_labels, class_labels]
        if len(x) != self.batch or augment_labels is not None or torch.is_grad_enabled():
            as_it_is: Tensor = self.network(*inputs, augment_labels)
            return as_it_is
        if self._graph is None:
            try:
                self._capture(inputs)
            except torch.OutOfMemoryError:
                self.batch = 0  # the caller goes on with less at a time
                raise
            assert self._graph is not None
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._out

    def _capture(self, inputs: list[Tensor]) -> None:
        torch.cuda.empty_cache()  # the graph has memory of its own
        self._inputs = [each.clone() for each in inputs]
        self._graph, self._out = captured(lambda: self.network(*self._inputs))


def captured(call: Callable[[], Tensor], warm_ups: int = 1) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Captures a call as a CUDA graph.

    Args:
        call: reads and writes memory that stays.
        warm_ups: calls before, which load what cannot be loaded in a capture.

    Returns:
        The graph, and what the call returned, which each replay writes over.
    """
    stream, own = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    own.wait_stream(stream)
    with torch.cuda.stream(own):
        for _ in range(warm_ups):
            call()
    stream.wait_stream(own)
    graph = torch.cuda.CUDAGraph()
    # Other threads may read images meanwhile, and NCCL's asks the device.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = call()
    return graph, out
