"""Weights in 8 bit, with a scale for each output channel: half of float16's bytes, for what comes with the package."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

_SCALE = ".scale"


def quantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rounds each matrix and kernel [out, ...] to int8 [out, ...] times a scale float32 [out]; all else is float16.

    The largest weight of a channel is 127 times its scale.
    """
    made: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if tensor.ndim < 2:
            made[key] = tensor.half()
            continue
        weight = tensor.float()
        scale = weight.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        made[key] = (weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
        made[key + _SCALE] = scale
    return made


def read_quantised(path: Path) -> dict[str, Tensor]:
    """The weights in a safetensors file of what `quantised` made, float32."""
    stored = load_file(path)
    state: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        if key.endswith(_SCALE) and key.removesuffix(_SCALE) in stored:
            continue
        scale = stored.get(key + _SCALE)
        state[key] = tensor.float() if scale is None else tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return state
