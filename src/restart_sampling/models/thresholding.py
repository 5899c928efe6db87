"""Nets whose estimate of the data is kept within the range of the data."""

from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_number, real_number
from restart_sampling.sampling.net import FunctionNet, Net, around
from restart_sampling.sampling.net_plan import require_net


def clipped(net: Net, low: float = -1.0, high: float = 1.0) -> FunctionNet:
    """Clips a net's estimate of the data to [low, high], which holds for images but not for latents.

    At high levels a network that predicts noise errs by sigma times its error, so that the data it stands for can lie
    far out of range.

    Raises:
        InputError: it is no net, low and high are no numbers, or low is not below high.
    """
    require_net(net)
    if not all(map(is_number, (low, high))) or not low < high:
        raise InputError(f"x0 cannot be clipped to [{low}, {high}]; give two numbers, low < high, such as -1 and 1")

    def denoise(x: Tensor, level: Tensor, /, **kwargs: Any) -> Tensor:
        return _finite(net(x, level, **kwargs)).clamp(low, high)

    return around(net, denoise, lambda inner: f"{inner} clipped to [{float(low)!r}, {float(high)!r}]")


def thresholded(net: Net, quantile: float = 0.995) -> FunctionNet:
    """Thresholds a net's estimate of the data dynamically, for images in [-1, 1] under strong guidance.

    With s the quantile of |x0| in an image, where s is above 1 the image is clipped to [-s, s] and divided by s.

    Args:
        net: the net.
        quantile: the share of an image's values that is at most s, above 0, at most 1.

    Raises:
        InputError: it is no net, or quantile is out of range.

    Source: Saharia et al. 2022 (arXiv 2205.11487), section 2.3.
    """
    require_net(net)
    quantile = real_number("quantile", quantile)
    if not 0 < quantile <= 1:
        raise InputError(f"the quantile is {quantile:g}; give a share of the values, above 0 and at most 1 (0.995)")

    def denoise(x: Tensor, level: Tensor, /, **kwargs: Any) -> Tensor:
        x0 = _finite(net(x, level, **kwargs))
        values = x0.flatten(1).abs()
        rank = max(1, round(quantile * values.shape[1]))  # torch.quantile is limited to 2^24 values
        s = values.kthvalue(rank, dim=1).values.clamp(min=1).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.clamp(x0, -s, s) / s

    return around(net, denoise, lambda inner: f"{inner} thresholded at {float(quantile)!r}")


def _finite(x0: Tensor) -> Tensor:
    """Turns infinities into NaN, which no clipping hides: a network that overflows is found in the end."""
    return torch.where(x0.isinf(), torch.nan, x0)
