"""ADM: the U-Net of Dhariwal and Nichol 2021 (arXiv 2105.05233), as in EDM (arXiv 2206.00364, appendix F).

With other options it is that of Nichol and Dhariwal 2021 (arXiv 2102.09672), which came before it.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.models.layers import (
    PositionalEmbedding,
    ResampleConv2d,
    UNetBlock,
    drop_labels,
    group_norm,
    joined,
)

_NORM_EPS = 1e-5
_CHANNELS_PER_HEAD = 64


class DhariwalUNet(nn.Module):
    """ADM: residual blocks that the embedding scales and shifts, self-attention with 64 channels a head.

    Every resolution has `num_blocks` residual blocks on the way down and one more on the way up.

    Args:
        img_resolution: height and width of the images.
        in_channels: channels of the input.
        out_channels: channels of the output.
        label_dim: number of classes; 0 is unconditional.
        augment_dim: width of the augmentation labels; 0 is none.
        model_channels: channels at full resolution, before the multipliers.
        channel_mult: multiplier of the channels per resolution, from the full one down.
        channel_mult_emb: width of the embedding, in `model_channels`.
        num_blocks: residual blocks per resolution.
        attn_resolutions: resolutions with self-attention.
        dropout: probability in the residual blocks, in training.
        label_dropout: probability to forget the class, in training: what classifier-free guidance needs.
        num_heads: attention heads; None is one for every 64 channels.
        residual_resampling: residual blocks double and halve the resolution; otherwise single convolutions do.
        adaptive_scale: the embedding scales and shifts; otherwise it is only added.
    """

    join = staticmethod(joined)

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[float] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        num_heads: int | None = None,
        residual_resampling: bool = True,
        adaptive_scale: bool = True,
    ) -> None:
        super().__init__()
        self.label_dropout = label_dropout
        self.num_blocks = num_blocks
        resolutions = [img_resolution >> level for level in range(len(channel_mult))]
        self.levels = [f"{resolution}x{resolution}" for resolution in resolutions]

        emb_channels = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(model_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)
        self.map_label = nn.Linear(label_dim, emb_channels, bias=False) if label_dim else None

        block = partial(
            UNetBlock,
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=1.0,
            eps=_NORM_EPS,
            taps=(1, 1),
            project_skip=False,
            adaptive_scale=adaptive_scale,
        )

        def heads_of(width: int) -> int:
            return num_heads or width // _CHANNELS_PER_HEAD

        self.enc = nn.ModuleDict()
        widths = [int(model_channels * mult) for mult in channel_mult]
        channels = widths[0]
        skips: list[int] = []
        for level, resolution, width in zip(self.levels, resolutions, widths, strict=True):
            heads = heads_of(width) if resolution in attn_resolutions else 0
            if level == self.levels[0]:
                self.enc[f"{level}_conv"] = nn.Conv2d(in_channels, channels, 3, padding=1)
            elif residual_resampling:
                self.enc[f"{level}_down"] = block(channels, channels, resample="down")
            else:
                self.enc[f"{level}_down"] = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
            skips.append(channels)
            for index in range(num_blocks):
                self.enc[f"{level}_block{index}"] = block(channels, width, heads=heads)
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level, resolution, width in reversed(list(zip(self.levels, resolutions, widths, strict=True))):
            heads = heads_of(width) if resolution in attn_resolutions else 0
            if level == self.levels[-1]:
                self.dec[f"{level}_in0"] = block(channels, channels, heads=heads_of(channels))
                self.dec[f"{level}_in1"] = block(channels, channels)
            elif residual_resampling:
                self.dec[f"{level}_up"] = block(channels, channels, resample="up")
            else:
                self.dec[f"{level}_up"] = ResampleConv2d(channels, channels, 3, "up", (1, 1))
            for index in range(num_blocks + 1):
                self.dec[f"{level}_block{index}"] = block(channels + skips.pop(), width, heads=heads)
                channels = width
        self.out_norm = group_norm(channels, _NORM_EPS)
        self.out_conv = nn.Conv2d(channels, out_channels, 3, padding=1)

        self._initialize()

    def _initialize(self) -> None:
        """Draws uniform, of variance 1 / (3 fan-in), as torch does by itself; what ends a residual branch is zero."""
        for name, module in self.named_modules():
            if name.endswith(("conv1", "proj", "out_conv", "map_augment")):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
        if self.map_label is not None:
            nn.init.normal_(self.map_label.weight)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Runs the network in the dtype of its parameters; called as `denoiser.NETWORKS` says."""
        emb = self._embed(noise_labels, class_labels, augment_labels)
        skips: list[Tensor] = []
        for level in self.levels:
            x = _resampled(self.enc[f"{level}_{'conv' if level == self.levels[0] else 'down'}"], x, emb)
            skips.append(x)
            for index in range(self.num_blocks):
                x = self.enc[f"{level}_block{index}"](x, emb)
                skips.append(x)
        for level in reversed(self.levels):
            if level == self.levels[-1]:
                x = self.dec[f"{level}_in1"](self.dec[f"{level}_in0"](x, emb), emb)
            else:
                x = _resampled(self.dec[f"{level}_up"], x, emb)
            for index in range(self.num_blocks + 1):
                x = self.dec[f"{level}_block{index}"](self.join(x, skips.pop()), emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out

    def _embed(self, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None) -> Tensor:
        emb = self.map_noise(noise_labels).to(self.map_layer0.weight.dtype)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            if self.training and self.label_dropout:
                class_labels = drop_labels(class_labels, self.label_dropout)
            emb = emb + self.map_label(class_labels)
        return F.silu(emb)


def _resampled(layer: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    """Applies what begins a resolution: a convolution, or a residual block, which takes the embedding too."""
    out: Tensor = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
    return out
