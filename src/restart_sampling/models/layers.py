"""Layers that the DDPM++/NCSN++ network (song_unet.py), the ADM network (dhariwal_unet.py) and others share.

The names of parameters and buffers are those of EDM's checkpoints.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Direction = Literal["up", "down"]


class ExactBuffers(nn.Module):
    """A module whose own buffers keep their dtype when `.to(dtype)` and the like change that of the weights.

    Tables of noise levels and of frequencies are no weights: in bfloat16 they would ask the network another question.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = {name: buffer for name, buffer in self._buffers.items() if buffer is not None and not buffer.is_meta}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            self._buffers[name] = buffer.to(getattr(self, name).device)
        return self


class PositionalEmbedding(nn.Module):
    """Cosines and sines of the noise label at geometrically spaced frequencies, from 1 to about 1/10000.

    Args:
        channels: width of the embedding; even.
        endpoint: whether the lowest frequency is exactly 1/10000 (DDPM++), or the next one would be (ADM).

    Raises:
        ValueError: the width is odd.
    """

    def __init__(self, channels: int, endpoint: bool = False) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"an embedding has as many sines as cosines, and {channels} channels are odd")
        self.channels = channels
        self.endpoint = endpoint

    def forward(self, labels: Tensor) -> Tensor:
        """Embeds labels [B] of any dtype as float32 [B, channels]: the cosines, then the sines."""
        count = self.channels // 2
        steps = torch.arange(count, dtype=torch.float32, device=labels.device)
        frequencies = (1 / 10_000) ** (steps / (count - self.endpoint))
        return _cos_sin(labels, frequencies)


class FourierEmbedding(ExactBuffers):
    """Cosines and sines of the noise label at fixed random frequencies [NCSN++, Song et al. 2021].

    Args:
        channels: width of the embedding; even.
        scale: standard deviation of the frequencies.
    """

    freqs: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", scale * torch.randn(channels // 2))

    def forward(self, labels: Tensor) -> Tensor:
        """Embeds labels [B] of any dtype as float32 [B, channels]: the cosines, then the sines."""
        return _cos_sin(labels, 2 * math.pi * self.freqs)


def _cos_sin(labels: Tensor, frequencies: Tensor) -> Tensor:
    angles = labels.to(torch.float32).outer(frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def drop_labels(class_labels: Tensor, probability: float) -> Tensor:
    """Zeroes each row of one-hot labels [B, label_dim], so that it means no class, with this probability."""
    keep = torch.rand(class_labels.shape[0], 1, device=class_labels.device) >= probability
    return class_labels * keep


class GroupNorm(nn.GroupNorm):
    """Group normalisation; in a compiled training step, written out so that it keeps the layout channels_last.

    torch's own does not on CUDA, and then the gradient of each convolution is copied to another layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, H, W]; written out, the result is float32."""
        if not (self.training and torch.compiler.is_compiling()):
            return super().forward(x)
        x = x.float()
        groups = (self.num_groups, -1)
        # First over each channel, then over its group: each sum runs along the memory of channels_last.
        variances, means = (each.reshape(len(x), *groups) for each in torch.var_mean(x, dim=(2, 3), correction=0))
        mean = means.mean(dim=2, keepdim=True)
        variance = (variances + (means - mean) ** 2).mean(dim=2, keepdim=True)
        scale = (variance + self.eps).rsqrt() * self.weight.view(groups)
        shift = self.bias.view(groups) - mean * scale
        return x * scale.flatten(1)[:, :, None, None] + shift.flatten(1)[:, :, None, None]


def group_norm(channels: int, eps: float) -> GroupNorm:
    """Makes a group normalisation with 32 groups, or fewer so that each has at least 4 channels."""
    return GroupNorm(min(32, channels // 4), channels, eps=eps)


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """Makes the input of a block on the way up: both [B, C, H, W], by channels."""
    return torch.cat([x, skip], dim=1)


def low_pass(taps: Sequence[float]) -> Tensor:
    """Makes the 2-D filter [1, 1, n, n] of sum 1 whose rows and columns are both proportional to `taps` [n]."""
    line = torch.tensor(taps, dtype=torch.float32, device="cpu")
    return (line.outer(line) / line.sum() ** 2)[None, None]


def _resample(x: Tensor, kernel: Tensor, direction: Direction, box: bool) -> Tensor:
    """Doubles or halves height and width of x [B, C, H, W], each channel filtered by itself by kernel [1, 1, n, n]."""
    if box:  # the same numbers, far sooner than by a convolution of each channel
        return _doubled(x) if direction == "up" else F.avg_pool2d(x, 2)
    channels, padding = x.shape[1], (kernel.shape[-1] - 1) // 2
    filters = kernel.expand(channels, -1, -1, -1)
    if direction == "up":
        # Three of four inputs of the filter are the zeros between the old pixels: 4 keeps the mean.
        return F.conv_transpose2d(x, 4 * filters, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, filters, stride=2, padding=padding, groups=channels)


def _doubled(x: Tensor) -> Tensor:
    """Makes each pixel of x [B, C, H, W] two by two."""
    if not torch.compiler.is_compiling():
        return F.interpolate(x, scale_factor=2, mode="nearest")
    # The same numbers, but the gradient is a sum, which fuses; that of `interpolate` is compiled to atomic additions.
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None, :].expand(-1, -1, 2, -1, 2, -1)
    return pixels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Resample(nn.Module):
    """Doubles or halves height and width of [B, C, H, W] with the low-pass filter `taps`; `saved`: in checkpoints."""

    resample_filter: Tensor

    def __init__(self, direction: Direction, taps: Sequence[float], saved: bool = True) -> None:
        super().__init__()
        self.direction = direction
        self.box = tuple(taps) == (1, 1)
        self.register_buffer("resample_filter", low_pass(taps), persistent=saved)

    def forward(self, x: Tensor) -> Tensor:
        """Resamples x [B, C, H, W]."""
        return _resample(x, self.resample_filter, self.direction, self.box)


class ResampleConv2d(nn.Conv2d):
    """`Resample`, then a convolution that keeps the size: one module, because the checkpoints name them as one."""

    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, direction: Direction, taps: Sequence[float]
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.direction = direction
        self.box = tuple(taps) == (1, 1)
        self.register_buffer("resample_filter", low_pass(taps))

    def forward(self, x: Tensor) -> Tensor:
        """Resamples and convolves x [B, in_channels, H, W]."""
        return super().forward(self.resampled(x))

    def resampled(self, x: Tensor) -> Tensor:
        """Resamples alone."""
        return _resample(x, self.resample_filter, self.direction, self.box)


class ConvDownsample2d(nn.Conv2d):
    """A convolution, then the halving, in NCSN++'s order; all zero padding comes before the convolution."""

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, taps: Sequence[float]) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2 + (len(taps) - 1) // 2)
        self.register_buffer("resample_filter", low_pass(taps))

    def forward(self, x: Tensor) -> Tensor:
        """Convolves x [B, in_channels, H, W] and halves it."""
        x = super().forward(x)
        return F.conv2d(x, self.resample_filter.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])


class UNetBlock(nn.Module):
    """Residual block with the noise embedding, optional resampling and optional self-attention [EDM, appendix F].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        emb_channels: width of the embedding.
        resample: resample by 2 in this direction, or keep the size (None).
        heads: attention heads; 0 leaves the attention out.
        dropout: probability, before the second convolution; only in training.
        skip_scale: factor after each residual sum; sqrt(1/2) keeps the variance.
        eps: of the group normalisations.
        taps: low-pass filter of the resampling.
        project_skip: a resampled skip connection has a 1x1 convolution even where the number of channels stays.
        adaptive_scale: the embedding scales and shifts (ADM); otherwise it is only added (DDPM++, NCSN++).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        resample: Direction | None = None,
        heads: int = 0,
        dropout: float,
        skip_scale: float,
        eps: float,
        taps: Sequence[float],
        project_skip: bool,
        adaptive_scale: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.skip_scale = skip_scale
        self.adaptive_scale = adaptive_scale

        self.norm0 = group_norm(in_channels, eps)
        self.conv0: nn.Conv2d
        self.skip: nn.Module
        if resample is None:
            self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        else:
            self.conv0 = ResampleConv2d(in_channels, out_channels, 3, resample, taps)
        self.affine = nn.Linear(emb_channels, 2 * out_channels if adaptive_scale else out_channels)
        self.norm1 = group_norm(out_channels, eps)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if resample is None:
            self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        elif project_skip or in_channels != out_channels:
            self.skip = ResampleConv2d(in_channels, out_channels, 1, resample, taps)
        else:
            self.skip = Resample(resample, taps)
        if heads:
            self.norm2 = group_norm(out_channels, eps)
            self.qkv = nn.Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transforms x [B, in_channels, H, W] under the embedding emb [B, emb_channels]."""
        h = self.conv0(F.silu(self.norm0(x)))
        shift = self.affine(emb)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = shift.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + shift)
        h = self.conv1(F.dropout(F.silu(h), self.dropout, self.training))
        h = (self.skip(x) + h) * self.skip_scale
        return (h + self._attention(h)) * self.skip_scale if self.heads else h

    def _attention(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(batch, self.heads, channels // self.heads, 3, height * width)
        # The fused kernels want the channels of a head side by side in memory.
        q, k, v = qkv.permute(3, 0, 1, 4, 2).contiguous().unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(x.shape))
