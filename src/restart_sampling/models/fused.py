"""Blocks of a U-Net in few passes over memory: convolutions in channels_last, and `models.kernels` between them."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.models import gradient_kernels, kernels
from restart_sampling.models.dhariwal_unet import DhariwalUNet
from restart_sampling.models.layers import GroupNorm, Resample, ResampleConv2d, UNetBlock
from restart_sampling.models.song_unet import SongUNet


def fuse(network: nn.Module) -> bool:
    """Has the blocks and norms of a network run in few passes, in place: the same numbers but for their rounding.

    Args:
        network: in float16 or bfloat16, on an NVIDIA device, for inference.

    Returns:
        Whether it has any.
    """
    ways: list[tuple[type[nn.Module], Callable[..., Tensor]]] = [(UNetBlock, _block), (GroupNorm, _norm)]
    found = [(module, way) for module in network.modules() for kind, way in ways if isinstance(module, kind)]
    for module, way in found:
        module.forward = partial(way, module)
    if isinstance(network, SongUNet | DhariwalUNet):
        network.join = _pair  # type: ignore[assignment]
    if found:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return bool(found)


def _norm(norm: GroupNorm, x: Tensor) -> Tensor:
    if _plainly(x):
        return GroupNorm.forward(norm, x)
    return kernels.normalize(x, norm)


def _plainly(x: Tensor) -> bool:
    """Tells whether the kernels do not serve: they have no gradients, and the network may be on the CPU by now."""
    return x.requires_grad or not x.is_cuda


def _pair(x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
    """Keeps apart what `joined` joins, for `_block`."""
    return x, skip


def _block(block: UNetBlock, inputs: Tensor | tuple[Tensor, Tensor], emb: Tensor) -> Tensor:
    x, *more = inputs if isinstance(inputs, tuple) else (inputs,)
    if _plainly(x) or (more and not isinstance(block.skip, nn.Conv2d)):
        x, more = torch.cat([x, *more], dim=1), []
    if _plainly(x):
        return UNetBlock.forward(block, x, emb)
    h = convolved(block.conv0, kernels.normalize(x, block.norm0, more=more[0] if more else None, silu=True))
    shift = block.affine(emb)
    before = bias_of(block.conv0)
    if block.adaptive_scale:
        scale, shift = shift.chunk(2, dim=1)
        h = kernels.normalize(h, block.norm1, silu=True, before=before, scale=scale, shift=shift)
    else:
        h = kernels.normalize(h, block.norm1, silu=True, before=shift + before)
    bias = bias_of(block.conv1)
    if isinstance(block.skip, nn.Conv2d):
        skip, bias = convolved(block.skip, x, *more), bias + bias_of(block.skip)
    else:
        skip = resampled(block.skip, x)
    out = kernels.add(convolved(block.conv1, h), skip, bias, block.skip_scale)
    if not block.heads:
        return out
    attended = attention(block, kernels.normalize(out, block.norm2))
    return kernels.add(attended, out, bias_of(block.proj), block.skip_scale)


def attention(block: UNetBlock, x: Tensor) -> Tensor:
    """Computes the self-attention of x, which is normalised, without its last bias.

    There is no copy of the pixels: it sorts the weights, which are small.
    """
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    weight, bias = (
        each.view(block.heads, -1, 3, *each.shape[1:]).movedim(2, 0).reshape(each.shape)
        for each in (block.qkv.weight.flatten(1), bias_of(block.qkv))
    )
    qkv = F.linear(pixels, weight, bias).view(batch, height * width, 3, block.heads, -1)
    out = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
    out = F.linear(out.transpose(1, 2).reshape(pixels.shape), block.proj.weight.flatten(1))
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


def convolved(conv: nn.Conv2d, x: Tensor, *more: Tensor) -> Tensor:
    """Computes a convolution without its bias, which the next kernel adds; of 1 x 1 also of channels in two tensors."""
    if more:
        rows, more_rows = (each.permute(0, 2, 3, 1).flatten(0, 2) for each in (x, *more))
        weight, own = conv.weight.flatten(1), x.shape[1]
        out = F.linear(rows, weight[:, :own]).addmm_(more_rows, weight[:, own:].T)
        return out.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
    if isinstance(conv, ResampleConv2d):
        x = resampled(conv, x)
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def resampled(layer: nn.Module, x: Tensor) -> Tensor:
    """Resamples x as a layer does before its convolution, or alone."""
    if isinstance(layer, ResampleConv2d | Resample) and layer.box and x.shape[-1] % 2 == x.shape[-2] % 2 == 0:
        return gradient_kernels.resample(x, layer.direction)
    return layer.resampled(x) if isinstance(layer, ResampleConv2d) else cast(Tensor, layer(x))


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Returns the bias [C] of a convolution that has one."""
    return cast(Tensor, conv.bias)
