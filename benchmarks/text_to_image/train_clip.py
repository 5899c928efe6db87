"""Trains a small CLIP on the captions of another seed, by which pictures of the pipeline are scored.

    python benchmarks/text_to_image/train_clip.py CIFAR/train --test CIFAR/test --out out/text --minutes 4

Many captions of a batch fit a picture, not its own alone: all that say nothing wrong of it count as right. So what the
network learns is which captions fit.
"""

# mypy: disable-error-code="no-untyped-call"

from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from captions import CLASSES, with_article
from rounds import Rounds, millions, replace_folder, start
from torch import Tensor
from training_data import Pictures, read_pictures, write_captions
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer
from words import LENGTH, write_tokenizer

from restart_sampling.evaluation.clip import Clip
from restart_sampling.training.ema import EMA

HALF_LIFE = 300_000  # of the average, in images
SHIFT = 3  # pixels that pictures are moved by, at most
CAPTIONS = 12  # of a picture
FEATURES = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, of RGB from 0 to 1
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {
        **marks,
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
    }
    vision = {
        "image_size": 32,
        "patch_size": 4,
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "attention_dropout": 0.1,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=FEATURES))


def moved(images: Tensor) -> Tensor:
    """Mirrors half of pictures [B, 3, H, W] and moves each by up to SHIFT pixels; the border repeats."""
    count, _, height, width = images.shape
    device = images.device
    images = torch.where(torch.rand(count, device=device)[:, None, None, None] < 0.5, images.flip(3), images)
    rows, columns = (
        (torch.arange(side, device=device) + torch.randint(-SHIFT, SHIFT + 1, (count, 1), device=device)).clamp(
            0, side - 1
        )
        for side in (height, width)
    )
    first = torch.arange(count, device=device)[:, None, None]
    return images.permute(0, 2, 3, 1)[first, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def loss(network: CLIPModel, images: Tensor, tokens: Tensor, fits: Tensor) -> Tensor:
    """The cross entropy of both directions, with all that fits equally likely: `fits` is bool [pictures, texts]."""
    seen = F.normalize(network.visual_projection(network.vision_model(images).pooler_output).float(), dim=-1)
    read = F.normalize(network.text_projection(network.text_model(tokens).pooler_output).float(), dim=-1)
    logits = network.logit_scale.exp().clamp(max=50) * seen @ read.T
    both = [(logits, fits.float()), (logits.T, fits.T.float())]
    errors = [-(F.log_softmax(made, 1) * right / right.sum(1, keepdim=True)).sum(1).mean() for made, right in both]
    return torch.stack(errors).mean()


@torch.no_grad()
def accuracy(network: CLIPModel, tokenizer: CLIPTokenizer, pictures: Pictures) -> float:
    """How often 'a photo of a CLASS' of a picture's own class fits it best."""
    clip = Clip("", "", network.float().eval(), tokenizer, pictures.images.device)
    texts = clip.text_features([f"a photo of {with_article(names[0])}" for names in CLASSES])
    found = torch.cat([(clip.image_features(part) @ texts.T).argmax(1) for part in pictures.images.split(1000)])
    return round((found == pictures.attributes[:, 0]).float().mean().item(), 4)


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--test", type=click.Path(exists=True, path_type=Path), required=True, help="pictures of the test set")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder; the network goes into clip/")
@click.option("--minutes", type=float, default=4.0)
@click.option("--batch", type=int, default=1024)
@click.option("--lr", type=float, default=1e-3)
@click.option("--count", type=int, help="of pictures; all by default")
@click.option("--device", help="cuda where there is one")
def main(
    source: Path, test: Path, out: Path, minutes: float, batch: int, lr: float, count: int | None, device: str | None
) -> None:
    place = start(device)
    torch.manual_seed(1)  # not that of the pipeline
    pictures = read_pictures(source, place, count)
    tests = read_pictures(test, place, count)
    captions = write_captions(pictures, out / "clip-tokenizer", CAPTIONS, seed=1)
    tokenizer = CLIPTokenizer.from_pretrained(out / "clip-tokenizer")
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_mean=MEAN, image_std=DEVIATION)
    network: Any = build(tokenizer)
    network.to(place)
    ema = EMA(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr, (0.9, 0.98), weight_decay=0.1, fused=place.type == "cuda")
    mean, deviation = (torch.tensor(value, device=place)[:, None, None] for value in (MEAN, DEVIATION))
    print({"millions": millions(network), "pictures": len(pictures)}, flush=True)

    def save(about: dict[str, Any]) -> None:
        def write(folder: Path) -> None:
            deepcopy(ema.model).half().save_pretrained(folder)
            write_tokenizer(folder)
            processor.save_pretrained(folder)

        replace_folder(write, out / "clip")
        print({**about, "accuracy": accuracy(deepcopy(ema.model), tokenizer, tests)}, flush=True)

    rounds = Rounds(minutes, out / "clip.jsonl", save, optimizer, ema, batch=batch, lr=lr, half_life=HALF_LIFE)
    for _ in rounds:
        chosen = torch.randint(len(pictures), (batch,), device=place)
        which = torch.randint(CAPTIONS, (batch,), device=place)
        says, shown = captions.says[chosen, which], pictures.attributes[chosen]
        fits = ((says[None] == shown[:, None]) | (says[None] < 0)).all(2)
        images = (moved(pictures.images[chosen]) / 255 - mean) / deviation
        with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda"):
            error = loss(network, images, captions.tokens[chosen, which], fits)
        rounds.step(error, error=error)


if __name__ == "__main__":
    main()
