"""Trains the denoiser and the text encoder of the text-to-image pipeline, on the latents of its autoencoder.

    python benchmarks/text_to_image/train_diffusion.py CIFAR/train --out out/text --minutes 14

Writes out/text/pipeline in diffusers' format, and the denoiser of the first sixth of the run as out/text/early, to
guide by (--guide out/text/early).
"""

# mypy: disable-error-code="no-untyped-call"

from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rounds import Rounds, millions, replace_folder, start
from torch import Tensor, nn
from training_data import Captions, Pictures, read_pictures, write_captions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from words import LENGTH, write_tokenizer

from restart_sampling.training.ema import EMA

EMPTY = 0.1  # part of the captions that are left out, for guidance
SNR = 5.0  # most that a noise level weighs: min-SNR weighting, Hang et al. 2023 (arXiv 2303.09556)
EARLY = 1 / 6  # part of the run after which the weaker denoiser is kept
HALF_LIFE = 1_000_000  # of the average, in images
CAPTIONS = 12  # of a picture
WIDTH = 128  # of the text encoder


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, with steps from the highest level on."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


class Conditional(nn.Module):
    """The text encoder and the denoiser, which are trained together.

    Args:
        tokenizer: of the captions.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=LENGTH,
                projection_dim=WIDTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 96),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            attention_head_dim=4,  # the number of heads: the name is an old mistake of diffusers'
            cross_attention_dim=WIDTH,
            norm_num_groups=16,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        states = self.text(tokens).last_hidden_state
        velocity: Tensor = self.unet(noisy, timesteps, states, return_dict=False)[0]
        return velocity


class Latents:
    """Latents of all pictures and of their mirror images: draws from the autoencoder's distributions.

    Args:
        vae: the autoencoder.
        pictures: to be encoded.
    """

    @torch.no_grad()
    def __init__(self, vae: AutoencoderKL, pictures: Pictures) -> None:
        means, deviations = [], []
        for part in pictures.images.split(1000):
            plain = part / 127.5 - 1
            for images in (plain, plain.flip(3)):
                found = vae.encode(images).latent_dist
                means.append(found.mean)
                deviations.append(found.std)
        # Picture and mirror image lie beside each other: [N, 2, 4, 16, 16].
        self._mean, self._deviation = (
            torch.cat([torch.stack(pair, 1) for pair in zip(found[::2], found[1::2], strict=True)])
            for found in (means, deviations)
        )

    def __getitem__(self, chosen: Tensor) -> Tensor:
        side = torch.randint(2, chosen.shape, device=chosen.device)
        mean = self._mean[chosen, side]
        return mean + self._deviation[chosen, side] * torch.randn_like(mean)


def loss(network: nn.Module, alphas: Tensor, latents: Tensor, tokens: Tensor) -> Tensor:
    """The weighted error of the velocity v = alpha noise - std x0, Salimans & Ho 2022 (arXiv 2202.00512)."""
    count = len(latents)
    # One timestep of each of `count` equal parts: the noise levels of a batch differ less from those of others.
    uniform = (torch.arange(count, device=latents.device) + torch.rand(count, device=latents.device)) / count
    timesteps = (uniform * len(alphas)).long()
    signal = alphas[timesteps]
    alpha, std = (each.sqrt()[:, None, None, None] for each in (signal, 1 - signal))
    noise = torch.randn_like(latents)
    velocity = network(alpha * latents + std * noise, timesteps, tokens).float()
    snr = signal / (1 - signal)
    # An error of v counts 1 / (SNR + 1) as one of x0, and x0's weighs SNR.
    weight = snr.clamp(max=SNR) / (snr + 1)
    return (weight * ((velocity - (alpha * noise - std * latents)) ** 2).flatten(1).mean(1)).mean()


def pipeline(vae: AutoencoderKL, network: Conditional, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The pipeline in float16."""
    network = deepcopy(network).half()
    return StableDiffusionPipeline(
        vae=deepcopy(vae).half(),
        text_encoder=network.text,
        tokenizer=tokenizer,
        unet=network.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder, with the autoencoder in vae/")
@click.option("--minutes", type=float, default=14.0)
@click.option("--batch", type=int, default=1024)
@click.option("--lr", type=float, default=1e-3)
@click.option("--count", type=int, help="of pictures; all by default")
@click.option("--device", help="cuda where there is one")
@click.option("--plain", is_flag=True, help="without torch.compile")
def main(
    source: Path,
    out: Path,
    minutes: float,
    batch: int,
    lr: float,
    count: int | None,
    device: str | None,
    plain: bool,
) -> None:
    place = start(device)
    pictures = read_pictures(source, place, count)
    captions: Captions = write_captions(pictures, out / "tokenizer", CAPTIONS, seed=0)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=LENGTH).input_ids, device=place)
    vae = AutoencoderKL.from_pretrained(out / "vae").to(place)
    latents = Latents(vae, pictures)
    alphas = scheduler().alphas_cumprod.to(place)
    network = Conditional(tokenizer).to(place)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = EMA(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr, (0.9, 0.99), weight_decay=0.01, fused=place.type == "cuda")
    if not plain:
        network.unet.compile(dynamic=False)
    size = {"millions": millions(vae, network), "pictures": len(pictures)}
    print({**size, "example": captions.texts[0]}, flush=True)

    def save(about: dict[str, Any]) -> None:
        def write(folder: Path) -> None:
            pipeline(vae, ema.model, tokenizer).save_pretrained(folder)
            write_tokenizer(folder / "tokenizer")  # also the files that older versions of transformers read

        replace_folder(write, out / "pipeline")
        print({**about, "images": about["steps"] * batch}, flush=True)

    def write_early(folder: Path) -> None:
        deepcopy(ema.model.unet).half().save_pretrained(folder / "unet")
        scheduler().save_pretrained(folder / "scheduler")

    early = False
    rounds = Rounds(minutes, out / "diffusion.jsonl", save, optimizer, ema, batch=batch, lr=lr, half_life=HALF_LIFE)
    for progress in rounds:
        if progress > EARLY and not early:
            replace_folder(write_early, out / "early")
            early = True
        chosen = torch.randint(len(pictures), (batch,), device=place)
        tokens = captions.tokens[chosen, torch.randint(CAPTIONS, (batch,), device=place)]
        tokens = torch.where(torch.rand(batch, 1, device=place) < EMPTY, empty, tokens)
        with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda"):
            error = loss(network, alphas, latents[chosen], tokens)
        rounds.step(error, error=error)


if __name__ == "__main__":
    main()
