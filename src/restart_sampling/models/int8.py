"""Weights in 8 bits with a scale for each output channel: half of float16's size, for files that travel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from restart_sampling.base.errors import shorten
from restart_sampling.base.pickles import UnreadableError

_SCALE = ":scale"  # no name of a module or parameter has a colon
_SHRINKS = torch.linspace(1, 0.7, 7)
_LARGEST = 127
_SMALL = 1024


def quantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rounds the weights of a network to 8 bits.

    A tensor W of two or more dimensions becomes two: `name`, int8, and `name:scale`, float32, such that
    W[i] is about `name`[i] * `name:scale`[i]. The scale of a channel is that which gives the least squared error among
    a few between 0.7 and 1 times its largest number / 127. Small tensors (biases, norms, filters) stay as they are.

    Args:
        state: floating-point tensors by their names.
    """
    files: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim < 2 or tensor.numel() < _SMALL:
            files[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scales = (rows.abs().amax(1) / _LARGEST * _SHRINKS[:, None]).clamp(min=2.0**-100)  # [7, C]
        rounded = [_rounded(rows, scale) for scale in scales]
        errors = [(rows - whole * scale[:, None]).square().sum(1) for whole, scale in zip(rounded, scales, strict=True)]
        best = torch.stack(errors).argmin(0)  # [C]
        channels = torch.arange(len(rows))
        files[name] = torch.stack(rounded)[best, channels].to(torch.int8).view(tensor.shape)
        files[name + _SCALE] = scales[best, channels]
    return files


def dequantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Restores the tensors that `quantized` has rounded: those of 8 bits in float32, others as they are.

    Raises:
        UnreadableError: a tensor of 8 bits has no scale for each of its channels, or a scale has no tensor.
    """
    weights = {name: tensor for name, tensor in state.items() if not name.endswith(_SCALE)}
    for name in state.keys() - weights.keys():
        if weights.get(name.removesuffix(_SCALE), state[name]).dtype != torch.int8:
            raise UnreadableError(f"its tensor {shorten(name)} scales no tensor of 8 bits")
    for name, tensor in weights.items():
        if tensor.dtype == torch.int8:
            scale = state.get(name + _SCALE)
            if scale is None or not scale.is_floating_point() or scale.shape != tensor.shape[:1]:
                raise UnreadableError(f"its tensor {shorten(name)} has 8 bits, and no scale for each output channel")
            weights[name] = tensor.float() * scale.float().view(-1, *(1,) * (tensor.ndim - 1))
    return weights


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
