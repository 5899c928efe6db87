"""The magnitude-preserving U-Net of EDM2 [Karras et al. 2024, arXiv 2312.02696, figure 21 and appendix B].

Equations are those of the paper. The names of parameters and buffers are those of EDM2's checkpoints.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.models.layers import Direction, ExactBuffers, Resample

_EPS = 1e-4  # of the normalisations


def _normalize(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Divides the vectors of x along `dim` by their root mean squares, which are float32; zeros stay zeros."""
    rms = x.float().square().mean(dim, keepdim=True).sqrt()
    return x / (rms + _EPS).to(x.dtype)


def _silu(x: Tensor) -> Tensor:
    """Computes the SiLU that keeps the magnitude of normal numbers [equation 81]."""
    return F.silu(x) / 0.596


def _blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Computes (1 - t) a + t b, divided so that the magnitude stays [equation 88]."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def _concatenate(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Joins channels of a and b, which contribute as 1 - t and t whatever their numbers are [equation 103]."""
    n_a, n_b = a.shape[1], b.shape[1]
    scale = math.sqrt(n_a + n_b) / math.hypot(1 - t, t)
    return torch.cat([a * (scale * (1 - t) / math.sqrt(n_a)), b * (scale * t / math.sqrt(n_b))], dim=1)


class _Fourier(ExactBuffers):
    """Cosines of the noise label at random frequencies and phases [equation 75]."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, labels: Tensor) -> Tensor:
        """Embeds labels [B] of any dtype as float32 [B, channels]."""
        angles = labels.to(torch.float32).outer(self.freqs) + self.phases
        return angles.cos() * math.sqrt(2)


class _Layer(nn.Module):
    """A convolution (or, with `size` 0, a linear layer) without bias, its weights normalised [equations 47 and 66]."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *([size, size] if size else [])))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Transforms x [B, in_channels] or [B, in_channels, H, W], times the gain."""
        weight = _normalize(self.weight.to(torch.float32), tuple(range(1, self.weight.ndim)))
        weight = (weight * (gain / math.sqrt(weight[0].numel()))).to(x.dtype)
        return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class _Block(nn.Module):
    """Residual block of the encoder or the decoder, with optional resampling and self-attention [figure 21]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        encodes: bool,
        direction: Direction | None = None,
        attention: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
    ) -> None:
        super().__init__()
        self.encodes = encodes
        self.resample = Resample(direction, resample_filter, saved=False) if direction else None
        self.heads = out_channels // channels_per_head if attention else 0
        self.dropout = dropout
        self.res_balance = res_balance
        self.attn_balance = attn_balance
        self.clip_act = clip_act
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = _Layer(out_channels if encodes else in_channels, out_channels, 3)
        self.emb_linear = _Layer(emb_channels, out_channels)
        self.conv_res1 = _Layer(out_channels, out_channels, 3)
        self.conv_skip = _Layer(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.attn_qkv = _Layer(out_channels, 3 * out_channels, 1) if self.heads else None
        self.attn_proj = _Layer(out_channels, out_channels, 1) if self.heads else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transforms x [B, in_channels, H, W] under the embedding emb [B, emb_channels]."""
        if self.resample is not None:
            x = self.resample(x)
        if self.encodes:
            x = _normalize(x if self.conv_skip is None else self.conv_skip(x), 1)
        scale = self.emb_linear(emb, self.emb_gain) + 1
        y = _silu(self.conv_res0(_silu(x)) * scale[:, :, None, None])
        y = self.conv_res1(F.dropout(y, self.dropout, self.training))
        if not self.encodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = _blend(x, y, self.res_balance)
        if self.attn_qkv is not None and self.attn_proj is not None:
            x = _blend(x, self.attn_proj(self._attention(self.attn_qkv(x))), self.attn_balance)
        return x if self.clip_act is None else x.clip(-self.clip_act, self.clip_act)

    def _attention(self, qkv: Tensor) -> Tensor:
        batch, channels, height, width = qkv.shape
        qkv = qkv.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = _normalize(qkv, 2).permute(3, 0, 1, 4, 2).contiguous().unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(2, 3).reshape(batch, channels // 3, height, width)


class EDM2UNet(nn.Module):
    """EDM2's U-Net: no biases, no group normalisation; all layers keep the magnitude of what goes through them.

    Every resolution has `num_blocks` residual blocks on the way down and one more on the way up.

    Args:
        img_resolution: height and width of the images or latents.
        in_channels: channels of the input.
        out_channels: channels of the output.
        label_dim: number of classes; 0 is unconditional.
        model_channels: channels at full resolution, before the multipliers.
        channel_mult: multiplier of the channels per resolution, from the full one down.
        channel_mult_noise: width of the noise label's embedding, in `model_channels`; None: the first multiplier.
        channel_mult_emb: width of the embedding, in `model_channels`; None: the largest multiplier.
        num_blocks: residual blocks per resolution.
        attn_resolutions: resolutions with self-attention.
        label_balance: weight of the class in the embedding, 0 to 1.
        concat_balance: weight of the skip connections, 0 to 1.
        resample_filter: taps of the low-pass filter.
        channels_per_head: channels of an attention head.
        dropout: probability in the residual blocks, in training.
        res_balance: weight of the residual branches, 0 to 1.
        attn_balance: weight of the self-attention, 0 to 1.
        clip_act: largest magnitude of an activation; None: any.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        resample_filter: Sequence[float] = (1, 1),
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
    ) -> None:
        super().__init__()
        self.label_balance = label_balance
        self.concat_balance = concat_balance
        widths = [model_channels * mult for mult in channel_mult]
        noise_channels = model_channels * (channel_mult_noise or channel_mult[0])
        emb_channels = model_channels * (channel_mult_emb or max(channel_mult))
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = _Fourier(noise_channels)
        self.emb_noise = _Layer(noise_channels, emb_channels)
        self.emb_label = _Layer(label_dim, emb_channels) if label_dim else None

        block = partial(
            _Block,
            emb_channels=emb_channels,
            resample_filter=resample_filter,
            channels_per_head=channels_per_head,
            dropout=dropout,
            res_balance=res_balance,
            attn_balance=attn_balance,
            clip_act=clip_act,
        )
        levels = [(img_resolution >> level, width) for level, width in enumerate(widths)]
        self.enc = nn.ModuleDict()
        channels = widths[0]
        skips: list[int] = []
        for resolution, width in levels:
            name, attention = f"{resolution}x{resolution}", resolution in attn_resolutions
            if resolution == img_resolution:
                self.enc[f"{name}_conv"] = _Layer(in_channels + 1, channels, 3)
            else:
                self.enc[f"{name}_down"] = block(channels, channels, encodes=True, direction="down")
            skips.append(channels)
            for index in range(num_blocks):
                self.enc[f"{name}_block{index}"] = block(channels, width, encodes=True, attention=attention)
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for resolution, width in reversed(levels):
            name, attention = f"{resolution}x{resolution}", resolution in attn_resolutions
            if resolution == levels[-1][0]:
                self.dec[f"{name}_in0"] = block(channels, channels, encodes=False, attention=True)
                self.dec[f"{name}_in1"] = block(channels, channels, encodes=False)
            else:
                self.dec[f"{name}_up"] = block(channels, channels, encodes=False, direction="up")
            for index in range(num_blocks + 1):
                self.dec[f"{name}_block{index}"] = block(
                    channels + skips.pop(), width, encodes=False, attention=attention
                )
                channels = width
        self.out_conv = _Layer(channels, out_channels, 3)

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Runs the network in the dtype of its parameters; called as `denoiser.NETWORKS` says."""
        emb = self.emb_noise(self.emb_fourier(noise_labels).to(x.dtype))
        if self.emb_label is not None:
            # A one-hot vector of n entries times sqrt(n) has unit mean square, like the other inputs.
            labels = self.emb_label(class_labels * math.sqrt(class_labels.shape[1]))
            emb = _blend(emb, labels, self.label_balance)
        emb = _silu(emb)
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)  # a channel of ones instead of biases
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, emb)
            skips.append(x)
        for name, layer in self.dec.items():
            if "block" in name:
                x = _concatenate(x, skips.pop(), self.concat_balance)
            x = layer(x, emb)
        out: Tensor = self.out_conv(x, self.out_gain)
        return out
