"""Speed: a lower-precision network, and torch.compile on request."""

import torch
from torch import Tensor, nn

from restart_sampling.models.denoiser import Denoiser


def fast(model: Denoiser, dtype: torch.dtype = torch.float16, *, compiled: bool = False) -> Denoiser:
    """Has the network compute in another dtype, and compiles it on request. The sampler's state stays float64.

    float16 rounds eight times less than bfloat16, which in turn cannot overflow; an overflow ends in an error, not in a
    wrong image. What either costs in distance is in benchmarks/RESULTS.md.

    Args:
        model: from `load_model`, on the device to use; it is changed in place.
        dtype: of the network's parameters and activations.
        compiled: torch.compile with CUDA graphs. The first call takes half a minute or more, later ones half the time;
            the batch size of the first call serves all later ones that are not larger.

    Returns:
        The model.
    """
    model.to(dtype)
    if compiled:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.model = CompiledNetwork(model.model)
    return model


class CompiledNetwork(nn.Module):
    """A network compiled for one batch size; smaller batches are filled up, as each size would be compiled anew.

    The output is memory of the compiled graph and is written over by the next call.

    Args:
        network: from `models.denoiser.NETWORKS`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.batch = 0
        self._compiled = torch.compile(network, mode="reduce-overhead", dynamic=False)

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Runs the network; arguments as its own."""
        count = len(x)
        self.batch = max(self.batch, count)
        inputs = (x, noise_labels, class_labels, augment_labels)
        full = (each if each is None else _filled(each, self.batch) for each in inputs)
        return self._compiled(*full)[:count]


def _filled(tensor: Tensor, batch: int) -> Tensor:
    missing = batch - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor
