"""Trains the autoencoder of the text-to-image pipeline: 32x32 pixels to latents of 16x16x4.

    python benchmarks/text_to_image/train_autoencoder.py CIFAR/train --out out/text --minutes 4

Latents have mean 0 and deviation 1 a channel: that is made part of its 1x1 convolutions around them.
"""

# mypy: disable-error-code="no-untyped-call"

from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from rounds import Rounds, millions, replace_folder, start
from torch import Tensor
from training_data import Pictures, read_pictures

from restart_sampling.training.ema import EMA

KL = 5e-4  # beside a mean squared error of about 0.002
EDGES = 0.05  # weight of the error of differences between neighbours
HALF_LIFE = 200_000  # of the average, in images


def build() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=32,
        scaling_factor=1.0,
    )


def loss(network: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared error, the absolute one of neighbours' differences, and the divergence a latent."""
    posterior = network.encode(images).latent_dist
    made = network.decode(posterior.sample()).sample.float()
    error = made - images
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    return F.mse_loss(made, images), edges, divergence


@torch.no_grad()
def standardised(network: AutoencoderKL, images: Tensor) -> AutoencoderKL:
    """A copy whose latents have mean 0 and deviation 1 a channel, and that gives the same pictures."""
    network = deepcopy(network)
    latents = torch.cat([network.encode(part).latent_dist.mean for part in images.split(1000)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    # The first half of the channels of `quant_conv` are means, the second log variances.
    count = len(mean)
    network.quant_conv.weight[:count] /= deviation[:, None, None, None]
    network.quant_conv.bias[:count] = (network.quant_conv.bias[:count] - mean) / deviation
    network.quant_conv.bias[count:] -= 2 * deviation.log()
    weight = network.post_quant_conv.weight
    network.post_quant_conv.bias += weight[:, :, 0, 0] @ mean
    weight *= deviation[:, None, None]
    return network


@torch.no_grad()
def psnr(network: AutoencoderKL, images: Tensor) -> float:
    """Of pictures in [-1, 1], in dB: the mean over pictures."""
    errors = []
    for part in images.split(1000):
        made = network.decode(network.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append(((made - part) ** 2).flatten(1).mean(1))
    return round((10 * torch.log10(4 / torch.cat(errors))).mean().item(), 3)


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder; the network goes into vae/")
@click.option("--minutes", type=float, default=4.0)
@click.option("--batch", type=int, default=512)
@click.option("--lr", type=float, default=1e-3)
@click.option("--count", type=int, help="of pictures; all by default")
@click.option("--device", help="cuda where there is one")
def main(source: Path, out: Path, minutes: float, batch: int, lr: float, count: int | None, device: str | None) -> None:
    place = start(device)
    data: Pictures = read_pictures(source, place, count)
    network = build().to(place, memory_format=torch.channels_last)
    ema = EMA(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr, (0.9, 0.99), weight_decay=0.0, fused=place.type == "cuda")
    some = data.images[:: max(1, len(data) // 5000)] / 127.5 - 1

    def save(about: dict[str, Any]) -> None:
        finished = standardised(ema.model, some)
        replace_folder(finished.half().save_pretrained, out / "vae")
        print({**about, "millions": millions(network), "psnr": psnr(finished.float(), some)}, flush=True)

    rounds = Rounds(minutes, out / "autoencoder.jsonl", save, optimizer, ema, batch=batch, lr=lr, half_life=HALF_LIFE)
    for _ in rounds:
        chosen = torch.randint(len(data), (batch,), device=place)
        images = data.images[chosen] / 127.5 - 1
        flipped = torch.rand(batch, device=place) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda"):
            error, edges, divergence = loss(network, images)
        rounds.step(error + EDGES * edges + KL * divergence, error=error, edges=edges, divergence=divergence)


if __name__ == "__main__":
    main()
