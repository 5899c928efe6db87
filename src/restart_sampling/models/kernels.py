"""Kernels in Triton, for NVIDIA devices: what lies between the convolutions of a U-Net, in one pass over memory each.

Torch's own group normalisation copies a tensor from the layout channels_last, which convolutions are fastest in, and
back, and its SiLU and sums each read and write the memory once more.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: ANN001, ANN202

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_WIDTH = 64  # channels of a program at most: whole groups
_TILE = 64  # pixels
_WARPS = 8
_NORM_TILE = 64
_NORM_WARPS = 8
_wanted = ContextVar[list[Any] | None]("wanted", default=None)  # kernels that are compiled and not launched


@triton.jit
def _load(x, more, image, row, channel, there, pixels, own, channels):
    """Pixels [TILE] of an image by channels [WIDTH]: of x, which has the first `own` of them, and of more."""
    first = image.to(tl.int64) * pixels
    mask = there & (channel < own)[None, :]
    value = tl.load(x + first * own + row[:, None] * own + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    if more is not None:
        rest = channels - own
        mask = there & (channel >= own)[None, :]
        place = more + first * rest + row[:, None] * rest + (channel - own)[None, :]
        value += tl.load(place, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit(do_not_specialize=["pixels", "group"])
def _normalize(
    x,
    more,
    out,
    weight,
    bias,
    before,
    scale,
    shift,
    center,
    rate,
    before_stride,
    scale_stride,
    pixels,
    own,  # channels of x
    channels,  # in all
    group,  # channels of a group
    span,  # channels of this program
    eps,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    image = tl.program_id(0)
    local = tl.arange(0, WIDTH)
    inside = local < span
    channel = tl.program_id(1) * span + local
    rows = tl.arange(0, TILE)

    # Sums of differences to a channel's first number: those of the numbers themselves would cancel.
    one = tl.arange(0, 1)
    first = tl.sum(_load(x, more, image, one, channel, inside[None, :], pixels, own, channels), 0)
    sums = tl.zeros([TILE, WIDTH], tl.float32)
    squares = tl.zeros([TILE, WIDTH], tl.float32)
    for pixel in range(0, pixels, TILE):
        there = (pixel + rows < pixels)[:, None] & inside[None, :]
        tile = _load(x, more, image, pixel + rows, channel, there, pixels, own, channels)
        tile = tl.where(there, tile - first[None, :], 0.0)
        sums += tile
        squares += tile * tile
    total = tl.sum(sums, 0)
    mean = first + total / pixels
    spread = tl.sum(squares, 0) - total * total / pixels
    added = tl.zeros([WIDTH], tl.float32)
    if before is not None:
        added = tl.load(before + image * before_stride + channel, mask=inside, other=0.0).to(tl.float32)
        mean += added

    # Of each channel's group: sums over the channels with the same number of the group.
    same = (local[:, None] // group) == (local[None, :] // group)
    group_mean = tl.sum(tl.where(same, mean[None, :], 0.0), 1) / group
    off = mean - group_mean
    spread += pixels * off * off
    variance = tl.sum(tl.where(same, spread[None, :], 0.0), 1) / (group * pixels)
    inverse = tl.rsqrt(variance + eps)
    if center is not None:  # for the gradients
        tl.store(center + image * channels + channel, group_mean - added, mask=inside)
        tl.store(rate + image * channels + channel, inverse, mask=inside)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) * inverse
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) + (added - group_mean) * factor
    if scale is not None:
        times = 1.0 + tl.load(scale + image * scale_stride + channel, mask=inside, other=0.0).to(tl.float32)
        factor *= times
        offset = offset * times + tl.load(shift + image * scale_stride + channel, mask=inside, other=0.0).to(tl.float32)

    for pixel in range(0, pixels, TILE):
        there = (pixel + rows < pixels)[:, None] & inside[None, :]
        tile = _load(x, more, image, pixel + rows, channel, there, pixels, own, channels)
        tile = tile * factor[None, :] + offset[None, :]
        if SILU:
            tile = tile * tl.sigmoid(tile)
        place = out + image.to(tl.int64) * pixels * channels + (pixel + rows)[:, None] * channels + channel[None, :]
        tl.store(place, tile.to(out.dtype.element_ty), mask=there)


@triton.jit
def _add(a, b, out, bias, scale, pixels, channels, WIDTH: tl.constexpr, TILE: tl.constexpr):
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    value = tl.load(a + place, mask=there).to(tl.float32) + tl.load(b + place, mask=there).to(tl.float32)
    value += tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    tl.store(out + place, (value * scale).to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["width"])
def _resample(x, out, factor, width, pixels, channels, UP: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr):
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)  # of the output, as its width
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    row, column = (pixel // width).to(tl.int64), pixel % width  # rows of all images
    if UP:
        source = (row // 2) * (width // 2) + column // 2
        value = tl.load(x + source[:, None] * channels + channel[None, :], mask=there).to(tl.float32)
    else:
        corner = x + (4 * row * width + 2 * column)[:, None] * channels + channel[None, :]
        value = tl.load(corner, mask=there).to(tl.float32)
        value += tl.load(corner + channels, mask=there).to(tl.float32)
        value += tl.load(corner + 2 * width * channels, mask=there).to(tl.float32)
        value += tl.load(corner + (2 * width + 1) * channels, mask=there).to(tl.float32)
    place = out + pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(place, (value * factor).to(out.dtype.element_ty), mask=there)


def normalize(
    x: Tensor,
    norm: nn.GroupNorm,
    *,
    more: Tensor | None = None,
    silu: bool = False,
    before: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    center: Tensor | None = None,
    rate: Tensor | None = None,
) -> Tensor:
    """Computes the group normalisation of x + before, times 1 + scale, plus shift, and its SiLU on request.

    Args:
        x: [B, C, H, W], float16 or bfloat16; or its first channels.
        norm: its weights.
        more: the other channels, without a copy of both to one tensor.
        silu: whether SiLU comes last.
        before: [C] or [B, C].
        scale, shift: [B, C], both or none, of equal strides.
        center, rate: float32 [B, C], both or none, to be filled: x is normalised as (x - center) * rate.

    Returns:
        [B, C, H, W] in channels_last, dtype as x. All arithmetic between is in float32.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    more = None if more is None else more.contiguous(memory_format=torch.channels_last)
    batch, own, height, width = x.shape
    channels = norm.num_channels
    shape = (batch, channels, height, width)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    group, span = grouped(norm)
    launch(
        _normalize,
        (batch, channels // span),
        x,
        more,
        out,
        norm.weight,
        norm.bias,
        before,
        scale,
        shift,
        center,
        rate,
        0 if before is None or before.ndim == 1 else before.stride(0),
        0 if scale is None else scale.stride(0),
        height * width,
        own,
        channels,
        group,
        span,
        norm.eps,
        SILU=silu,
        WIDTH=max(_WIDTH, triton.next_power_of_2(span)),
        TILE=_NORM_TILE,
        num_warps=_NORM_WARPS,
    )
    return out


def grouped(norm: nn.GroupNorm, width: int = _WIDTH) -> tuple[int, int]:
    """Returns the channels of a group, and those of a program: whole groups, `width` channels at most."""
    group = span = norm.num_channels // norm.num_groups
    while norm.num_groups % (2 * span // group) == 0 and 2 * span <= width:
        span *= 2
    return group, span


def add(a: Tensor, b: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Computes (a + b + bias) * scale.

    Args:
        a, b: [B, C, H, W], float16 or bfloat16.
        bias: [C].
        scale: factor.

    Returns:
        [B, C, H, W] in channels_last, dtype as a. All arithmetic between is in float32.
    """
    a, b = (each.contiguous(memory_format=torch.channels_last) for each in (a, b))
    out = torch.empty_like(a)
    channels = a.shape[1]
    pixels = a.numel() // channels
    grid = (triton.cdiv(pixels, _TILE), triton.cdiv(channels, _WIDTH))
    launch(_add, grid, a, b, out, bias, scale, pixels, channels, WIDTH=_WIDTH, TILE=_TILE, num_warps=_WARPS)
    return out


def resample(x: Tensor, direction: Literal["up", "down"], *, gradient: bool = False) -> Tensor:
    """Makes each pixel two by two, or each two by two their mean.

    Args:
        x: [B, C, H, W], float16 or bfloat16; H and W even for "down".
        direction: which.
        gradient: whether it is that of the other direction: a quarter of each pixel two by two, or sums.

    Returns:
        [B, C, 2H, 2W] or [B, C, H / 2, W / 2] in channels_last, dtype as x.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    height, width = (2 * height, 2 * width) if direction == "up" else (height // 2, width // 2)
    shape = (batch, channels, height, width)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    pixels = batch * height * width
    grid = (triton.cdiv(pixels, _TILE), triton.cdiv(channels, _WIDTH))
    up = direction == "up"
    factor = 1.0 if up != gradient else 0.25
    launch(_resample, grid, x, out, factor, width, pixels, channels, UP=up, WIDTH=_WIDTH, TILE=_TILE, num_warps=_WARPS)
    return out


def compile_together(call: Callable[[], object], device: torch.device) -> None:
    """Compiles the kernels that a call launches, side by side, where one after another takes seconds.

    Args:
        call: is made once, and launches none of them, so that what it returns is of no use.
        device: where it runs.
    """
    wanted: list[Any] = []

    def finish(kernel: Any) -> None:
        with torch.cuda.device(device):
            _ = kernel.run  # has the launcher compiled, which is C, and loads both

    with ThreadPoolExecutor() as threads:
        before = _wanted.set(wanted)
        try:
            with triton.AsyncCompileMode(threads):
                call()
        finally:
            _wanted.reset(before)
        deque(threads.map(finish, {each.result() if hasattr(each, "result") else each for each in wanted}), maxlen=0)


def launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *rest: object, **options: object) -> None:
    """Launches a kernel on the device of x, or notes that it is to be compiled."""
    wanted = _wanted.get()
    with torch.cuda.device(x.device):
        if wanted is None:
            kernel[grid](x, *rest, **options)
        else:
            wanted.append(kernel.warmup(x, *rest, grid=grid, **options))
