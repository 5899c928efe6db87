"""Kernels in Triton for training, beside `models.kernels`: the gradients of what lies between the convolutions."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# ruff: noqa: ANN001, ANN202

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd import Function

from restart_sampling.models import kernels

_WIDTH = 64  # channels of a program at most
_TILE = 64  # pixels
_WARPS = 8
_ROWS = 1024  # pixels of a program that sums


@triton.jit
def _gradient(x, d_out, place, there, middle, rate, factor, offset, SILU: tl.constexpr):
    """The normalised x, and the gradient of the normalisation's result before SiLU; 0 where nothing is there."""
    unit = (tl.load(x + place, mask=there, other=0.0).to(tl.float32) - middle[None, :]) * rate[None, :]
    gradient = tl.load(d_out + place, mask=there, other=0.0).to(tl.float32)
    if SILU:
        value = unit * factor[None, :] + offset[None, :]
        part = tl.sigmoid(value)
        gradient *= part * (1.0 + value * (1.0 - part))
    return unit, gradient


@triton.jit(do_not_specialize=["pixels", "group"])
def _normalize_backward(
    x,
    d_out,
    d_more,
    d_x,
    weight,
    bias,
    center,
    rate,
    d_weight,
    d_bias,
    d_before,
    pixels,
    channels,
    group,  # channels of a group
    span,  # channels of this program
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    image = tl.program_id(1)
    local = tl.arange(0, WIDTH)
    inside = local < span
    channel = tl.program_id(0) * span + local
    rows = tl.arange(0, TILE)
    own = image * channels + channel
    middle = tl.load(center + own, mask=inside, other=0.0)
    speed = tl.load(rate + own, mask=inside, other=0.0)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    start = image.to(tl.int64) * pixels * channels

    sums = tl.zeros([TILE, WIDTH], tl.float32)
    products = tl.zeros([TILE, WIDTH], tl.float32)
    for pixel in range(0, pixels, TILE):
        there = (pixel + rows < pixels)[:, None] & inside[None, :]
        place = start + (pixel + rows)[:, None] * channels + channel[None, :]
        unit, gradient = _gradient(x, d_out, place, there, middle, speed, factor, offset, SILU)
        sums += gradient
        products += gradient * unit
    total = tl.sum(sums, 0)
    product = tl.sum(products, 0)
    tl.store(d_bias + own, total, mask=inside)
    tl.store(d_weight + own, product, mask=inside)

    same = (local[:, None] // group) == (local[None, :] // group)
    mean = tl.sum(tl.where(same, (total * factor)[None, :], 0.0), 1) / (group * pixels)
    slope = tl.sum(tl.where(same, (product * factor)[None, :], 0.0), 1) / (group * pixels)
    sums = tl.zeros([TILE, WIDTH], tl.float32)
    for pixel in range(0, pixels, TILE):
        there = (pixel + rows < pixels)[:, None] & inside[None, :]
        place = start + (pixel + rows)[:, None] * channels + channel[None, :]
        unit, gradient = _gradient(x, d_out, place, there, middle, speed, factor, offset, SILU)
        gradient = (gradient * factor[None, :] - mean[None, :] - unit * slope[None, :]) * speed[None, :]
        if d_before is not None:
            sums += tl.where(there, gradient, 0.0)
        if d_more is not None:
            gradient += tl.load(d_more + place, mask=there, other=0.0).to(tl.float32)
        tl.store(d_x + place, gradient.to(d_x.dtype.element_ty), mask=there)
    if d_before is not None:
        tl.store(d_before + own, tl.sum(sums, 0), mask=inside)


@triton.jit
def _add_backward(
    d_out, d_in, sums, scale, pixels, stride, channels, WIDTH: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr
):
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    total = tl.zeros([TILE, WIDTH], tl.float32)
    for row in range(0, ROWS, TILE):
        pixel = tl.program_id(1) * ROWS + row + tl.arange(0, TILE)
        there = (pixel < pixels)[:, None] & inside[None, :]
        pixel = pixel.to(tl.int64)[:, None]
        value = tl.load(d_out + pixel * stride + channel[None, :], mask=there, other=0.0).to(tl.float32) * scale
        total += value
        tl.store(d_in + pixel * channels + channel[None, :], value.to(d_in.dtype.element_ty), mask=there)
    tl.store(sums + tl.program_id(1) * channels + channel, tl.sum(total, 0), mask=inside)


def normalize_backward(
    x: Tensor,
    norm: nn.GroupNorm,
    d_out: Tensor,
    d_more: Tensor | None,
    center: Tensor,
    rate: Tensor,
    silu: bool,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Computes the gradients of `kernels.normalize`.

    Args:
        x: its input.
        norm: its weights.
        d_out: gradient of its result.
        d_more: gradient of what else was computed from x, or None.
        center, rate: as it filled them.
        silu: as it was asked.
        before: whether the gradient of `before` is wanted.

    Returns:
        Gradients of x (with `d_more`), weight, bias and `before`.
    """
    x, d_out = (each.contiguous(memory_format=torch.channels_last) for each in (x, d_out))
    d_more = None if d_more is None else d_more.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    d_x = torch.empty_like(x)
    d_weight, d_bias = torch.empty_like(center), torch.empty_like(center)
    d_before = torch.empty_like(center) if before else None
    group, span = kernels.grouped(norm, _WIDTH)
    kernels.launch(
        _normalize_backward,
        (channels // span, batch),
        x,
        d_out,
        d_more,
        d_x,
        norm.weight,
        norm.bias,
        center,
        rate,
        d_weight,
        d_bias,
        d_before,
        height * width,
        channels,
        group,
        span,
        SILU=silu,
        WIDTH=max(_WIDTH, triton.next_power_of_2(span)),
        TILE=_TILE,
        num_warps=_WARPS,
    )
    return d_x, d_weight.sum(0), d_bias.sum(0), d_before


def add_backward(d_out: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Computes the gradients of `kernels.add`: of a, which is that of b, and of the bias."""
    _, channels, height, width = d_out.shape
    stride = d_out.stride(3)
    if d_out.stride() != (height * width * stride, 1, width * stride, stride):  # not some channels of channels_last
        d_out, stride = d_out.contiguous(memory_format=torch.channels_last), channels
    pixels = d_out.numel() // channels
    parts = triton.cdiv(pixels, _ROWS)
    d_in = torch.empty(d_out.shape, dtype=d_out.dtype, device=d_out.device, memory_format=torch.channels_last)
    sums = torch.empty(parts, channels, device=d_out.device)
    grid = (triton.cdiv(channels, _WIDTH), parts)
    kernels.launch(
        _add_backward, grid, d_out, d_in, sums, scale, pixels, stride, channels,
        WIDTH=_WIDTH, TILE=_TILE, ROWS=_ROWS, num_warps=_WARPS,
    )  # fmt: skip
    return d_in, sums.sum(0)


def compile_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Compiles all kernels that a training step launches, side by side.

    Args:
        device: where it runs.
        dtype: of its activations.
    """
    x = torch.zeros(1, 64, 8, 8, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    norm = nn.GroupNorm(16, 64, device=device).requires_grad_(False)
    each = torch.zeros(1, 64, device=device)

    def call() -> None:
        for silu, before in ((True, None), (True, each), (False, None)):
            kernels.normalize(x, norm, silu=silu, before=before, center=each, rate=each)
        for silu, more, with_before in ((True, x, False), (True, None, True), (False, x, False), (False, None, False)):
            normalize_backward(x, norm, x, more, each, each, silu, with_before)
        kernels.add(x, x, each[0], 0.5)
        add_backward(x, 0.5)
        kernels.resample(x, "up")
        kernels.resample(x, "down")

    kernels.compile_together(call, device)


def normalize(
    x: Tensor, norm: nn.GroupNorm, *, silu: bool = False, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Computes `kernels.normalize` with gradients.

    Args:
        x: [B, C, H, W].
        norm: its weights.
        silu: whether SiLU comes last.
        before: float32 [B, C], or None.

    Returns:
        What it computes, and x for what else is done with it: that gradient is added in the same kernel.
    """
    both: tuple[Tensor, Tensor] = _Normalize.apply(x, norm.weight, norm.bias, before, norm, silu)
    return both


def add(a: Tensor, b: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Computes `kernels.add` with gradients."""
    out: Tensor = _Add.apply(a, b, bias, scale)
    return out


def resample(x: Tensor, direction: Literal["up", "down"]) -> Tensor:
    """Computes `kernels.resample` with gradients."""
    out: Tensor = _Resample.apply(x, direction)
    return out


class _Normalize(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, norm: nn.GroupNorm, silu: bool
    ) -> tuple[Tensor, Tensor]:
        center, rate = (torch.empty(x.shape[:2], device=x.device) for _ in range(2))
        out = kernels.normalize(x, norm, silu=silu, before=before, center=center, rate=rate)
        ctx.save_for_backward(x, center, rate)
        ctx.norm, ctx.silu, ctx.before = norm, silu, before is not None
        ctx.set_materialize_grads(False)
        return out, x

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_more: Tensor | None) -> tuple[Tensor | None, ...]:
        x, center, rate = ctx.saved_tensors
        gradients = normalize_backward(x, ctx.norm, d_out, d_more, center, rate, ctx.silu, ctx.before)
        return *gradients, None, None


class _Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return kernels.add(a, b, bias, scale)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        d_in, d_bias = add_backward(d_out, ctx.scale)
        return d_in, d_in, d_bias, None


class _Resample(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, direction: Literal["up", "down"]) -> Tensor:
        ctx.back = "down" if direction == "up" else "up"
        return kernels.resample(x, direction)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        return kernels.resample(d_out, ctx.back, gradient=True), None
