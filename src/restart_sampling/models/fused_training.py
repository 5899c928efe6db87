"""Blocks of a U-Net in training as in `models.fused`: convolutions, and kernels with gradients between them."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.models.fused import attention, bias_of, convolved, resampled
from restart_sampling.models.gradient_kernels import add, normalize
from restart_sampling.models.layers import GroupNorm, UNetBlock


def fuse_for_training(network: nn.Module) -> None:
    """Has the blocks and norms of a network run in few passes, in place: the same numbers but for their rounding.

    Args:
        network: of blocks to whose images the embedding is added (`adaptive_scale` is False), on an NVIDIA device.
    """
    for module in network.modules():
        if isinstance(module, UNetBlock):
            module.forward = partial(_block, module)  # type: ignore[method-assign]
        elif isinstance(module, GroupNorm):
            module.forward = partial(_norm, module)  # type: ignore[method-assign]


def _norm(norm: GroupNorm, x: Tensor) -> Tensor:
    return normalize(x, norm)[0]


def _block(block: UNetBlock, x: Tensor, emb: Tensor) -> Tensor:
    h, x = normalize(x, block.norm0, silu=True)
    h = convolved(block.conv0, h)
    h, _ = normalize(h, block.norm1, silu=True, before=block.affine(emb).float() + bias_of(block.conv0))
    h = convolved(block.conv1, F.dropout(h, block.dropout, block.training))
    bias = bias_of(block.conv1)
    if isinstance(block.skip, nn.Conv2d):
        x, bias = convolved(block.skip, x), bias + bias_of(block.skip)
    else:
        x = resampled(block.skip, x)
    x = add(h, x, bias, block.skip_scale)
    if not block.heads:
        return x
    h, x = normalize(x, block.norm2)
    return add(attention(block, h), x, bias_of(block.proj), block.skip_scale)
