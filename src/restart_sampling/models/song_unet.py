"""DDPM++ and NCSN++: the U-Nets of Song et al. 2021 (arXiv 2011.13456), as in EDM (arXiv 2206.00364, appendix F)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.base.numbers import require_one_of
from restart_sampling.models.layers import (
    ConvDownsample2d,
    FourierEmbedding,
    PositionalEmbedding,
    Resample,
    UNetBlock,
    drop_labels,
    group_norm,
    joined,
)

_NORM_EPS = 1e-6
_HEADS = 1


class SongUNet(nn.Module):
    """DDPM++ (the defaults) or NCSN++ (fourier, residual, `channel_mult_noise=2`, `resample_filter=(1, 3, 3, 1)`).

    Every resolution has `num_blocks` residual blocks on the way down and one more on the way up. Beside this trunk,
    smaller copies of the input can join on the way down, and smaller copies of the output be summed on the way up.

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
        embedding_type: embedding of the noise label.
        channel_mult_noise: width of the noise label's embedding, in `model_channels`.
        encoder_type: the copies of the input: none ("standard"), low-passed ("skip") or learned ("residual").
        decoder_type: the output comes from the full resolution ("standard") or is a sum over all ("skip").
        resample_filter: taps of the low-pass filter.

    Raises:
        InputError: a type that is not one of those above.
    """

    join = staticmethod(joined)

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: Literal["positional", "fourier"] = "positional",
        channel_mult_noise: int = 1,
        encoder_type: Literal["standard", "skip", "residual"] = "standard",
        decoder_type: Literal["standard", "skip"] = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        require_one_of("embedding_type", embedding_type, ("positional", "fourier"))
        require_one_of("encoder_type", encoder_type, ("standard", "skip", "residual"))
        require_one_of("decoder_type", decoder_type, ("standard", "skip"))
        self.label_dropout = label_dropout
        self.num_blocks = num_blocks
        self.encoder_type = encoder_type
        self.decoder_type = decoder_type
        resolutions = [img_resolution >> level for level in range(len(channel_mult))]
        self.levels = [f"{resolution}x{resolution}" for resolution in resolutions]

        noise_channels = model_channels * channel_mult_noise
        emb_channels = model_channels * channel_mult_emb
        self.map_noise: nn.Module
        if embedding_type == "positional":
            self.map_noise = PositionalEmbedding(noise_channels, endpoint=True)
        else:
            self.map_noise = FourierEmbedding(noise_channels)
        self.map_label = nn.Linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = nn.Linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(noise_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)

        block = partial(
            UNetBlock,
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=_NORM_EPS,
            taps=resample_filter,
            project_skip=True,
            adaptive_scale=False,
        )

        self.enc = nn.ModuleDict()
        channels, aux_channels = model_channels, in_channels
        skips: list[int] = []
        for level, resolution, mult in zip(self.levels, resolutions, channel_mult, strict=True):
            if level == self.levels[0]:
                self.enc[f"{level}_conv"] = nn.Conv2d(in_channels, channels, 3, padding=1)
            else:
                self.enc[f"{level}_down"] = block(channels, channels, resample="down")
                if encoder_type == "skip":
                    self.enc[f"{level}_aux_down"] = Resample("down", resample_filter)
                    self.enc[f"{level}_aux_skip"] = nn.Conv2d(in_channels, channels, 1)
                elif encoder_type == "residual":
                    self.enc[f"{level}_aux_residual"] = ConvDownsample2d(aux_channels, channels, 3, resample_filter)
                    aux_channels = channels
            skips.append(channels)
            for index in range(num_blocks):
                heads = _HEADS if resolution in attn_resolutions else 0
                self.enc[f"{level}_block{index}"] = block(channels, model_channels * mult, heads=heads)
                channels = model_channels * mult
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level, resolution, mult in reversed(list(zip(self.levels, resolutions, channel_mult, strict=True))):
            if level == self.levels[-1]:
                self.dec[f"{level}_in0"] = block(channels, channels, heads=_HEADS)
                self.dec[f"{level}_in1"] = block(channels, channels)
            else:
                self.dec[f"{level}_up"] = block(channels, channels, resample="up")
            for index in range(num_blocks + 1):
                heads = _HEADS if index == num_blocks and resolution in attn_resolutions else 0
                self.dec[f"{level}_block{index}"] = block(channels + skips.pop(), model_channels * mult, heads=heads)
                channels = model_channels * mult
            if decoder_type == "skip" and level != self.levels[-1]:
                self.dec[f"{level}_aux_up"] = Resample("up", resample_filter)
            if decoder_type == "skip" or level == self.levels[0]:
                self.dec[f"{level}_aux_norm"] = group_norm(channels, _NORM_EPS)
                self.dec[f"{level}_aux_conv"] = nn.Conv2d(channels, out_channels, 3, padding=1)

        self._initialize()

    def _initialize(self) -> None:
        """Draws Xavier-uniform; what ends a residual branch starts near zero, and so do the logits of the attention."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                ends_branch = name.endswith(("conv1", "proj", "aux_conv"))
                gain = 1e-5 if ends_branch else math.sqrt(0.2) if name.endswith("qkv") else 1.0
                nn.init.xavier_uniform_(module.weight, gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Runs the network in the dtype of its parameters; called as `denoiser.NETWORKS` says."""
        emb = self._embed(noise_labels, class_labels, augment_labels)
        return self._decode(self._encode(x, emb), emb)

    def _embed(self, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None) -> Tensor:
        cos, sin = self.map_noise(noise_labels).chunk(2, dim=1)
        emb = torch.cat([sin, cos], dim=1).to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            if self.training and self.label_dropout:
                class_labels = drop_labels(class_labels, self.label_dropout)
            # A one-hot vector of n entries times sqrt(n) has unit mean square, like the other inputs.
            emb = emb + self.map_label(class_labels * math.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        aux = x
        skips: list[Tensor] = []
        for level in self.levels:
            if level == self.levels[0]:
                x = self.enc[f"{level}_conv"](x)
            else:
                x = self.enc[f"{level}_down"](x, emb)
                if self.encoder_type == "skip":
                    aux = self.enc[f"{level}_aux_down"](aux)
                    x = x + self.enc[f"{level}_aux_skip"](aux)
                elif self.encoder_type == "residual":
                    x = aux = (x + self.enc[f"{level}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
            for index in range(self.num_blocks):
                x = self.enc[f"{level}_block{index}"](x, emb)
                skips.append(x)
        return skips

    def _decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        x = skips[-1]
        image: Tensor | None = None
        for level in reversed(self.levels):
            if level == self.levels[-1]:
                x = self.dec[f"{level}_in1"](self.dec[f"{level}_in0"](x, emb), emb)
            else:
                x = self.dec[f"{level}_up"](x, emb)
            for index in range(self.num_blocks + 1):
                x = self.dec[f"{level}_block{index}"](self.join(x, skips.pop()), emb)
            if self.decoder_type == "skip" or level == self.levels[0]:
                detail = self.dec[f"{level}_aux_conv"](F.silu(self.dec[f"{level}_aux_norm"](x)))
                image = detail if image is None else self.dec[f"{level}_aux_up"](image) + detail
        assert image is not None  # the full resolution always adds its part
        return image
