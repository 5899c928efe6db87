"""Whether guidance works: how often the pictures show the class, colour and brightness of their captions.

    python benchmarks/text_to_image/judge.py out/text --test CIFAR/test --classifier cifar10-classifier.torchscript.pt

Captions are those of pictures of the test set. Writes judge.json, and samples.png: one row a prompt, four pictures of
the same seeds for each guidance scale.
"""

# mypy: disable-error-code="no-untyped-call"

import json
import random
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from captions import BRIGHTNESS, CLASSES, COLOURS, NOTHING, Caption, measure, with_article
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from rounds import start
from torch import Tensor
from training_data import read_pictures

from restart_sampling.evaluation.clip import ClipScore, load_clip

SCALES = (1.0, 2.0, 3.0, 6.0)
STEPS = 25
SHOWN = (
    "a bright photo of a red ship",
    "a dark photo of a red truck",
    "a photo of a blue car on a white background",
    "a photo of a green frog",
    "a bright photo of a white airplane on a blue background",
    "a photo of a brown horse on a green background",
    "a dark high contrast photo of a black cat",
    "a photo of a white dog",
    "a photo of an orange bird",
    "a picture of a deer",
    "a strange zeppelin of an unknown kind",
    "",
)


def prompts(attributes: Tensor, count: int) -> list[Caption]:
    """Captions of pictures with a main colour: 'a dark photo of a red truck'."""
    draw = random.Random(2)
    coloured = [row for row in attributes.tolist() if COLOURS[row[3]]]
    made = []
    for kind, brightness, _, colour, _ in draw.sample(coloured, min(count, len(coloured))):
        light, shade = BRIGHTNESS[brightness], COLOURS[colour]
        words = f"a {light} photo of {with_article(shade)} {CLASSES[kind][0]}"
        says = (kind, brightness if light else NOTHING, NOTHING, colour, NOTHING)
        made.append(Caption(" ".join(words.split()), says))
    return made


def draw(pipe: StableDiffusionPipeline, texts: list[str], seeds: list[int], scale: float, batch: int) -> Tensor:
    """Pictures uint8 [B, 3, H, W]."""
    parts = []
    for begin in range(0, len(texts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[begin : begin + batch]]
        made = pipe(
            texts[begin : begin + batch],
            num_inference_steps=STEPS,
            guidance_scale=scale,
            generator=generators,
            output_type="np",
        ).images
        parts.append(torch.from_numpy((made * 255).round().astype(np.uint8)).permute(0, 3, 1, 2).contiguous())
    return torch.cat(parts)


def save_grid(columns: list[Tensor], path: Path, zoom: int = 2, gap: int = 8) -> None:
    """Pictures [rows, 4, 3, H, W] of each guidance scale, side by side."""
    blocks = [block.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1) for block in columns]
    space = torch.full((len(blocks[0]), gap, 3), 255, dtype=torch.uint8)
    whole = torch.cat([part for block in blocks for part in (block, space)][:-1], 1)
    picture = Image.fromarray(whole.numpy())
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--test", type=click.Path(exists=True, path_type=Path), required=True, help="pictures of the test set")
@click.option("--classifier", type=click.Path(exists=True, path_type=Path), help="TorchScript file")
@click.option("--count", type=int, default=1000, help="of captions")
@click.option("--batch", type=int, default=250)
@click.option("--device", help="cuda where there is one")
def main(folder: Path, test: Path, classifier: Path | None, count: int, batch: int, device: str | None) -> None:
    place = start(device)
    pictures = read_pictures(test, torch.device("cpu"))
    asked = prompts(pictures.attributes, count)
    texts, says = [one.text for one in asked], torch.tensor([one.says for one in asked])
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    pipe = StableDiffusionPipeline.from_pretrained(folder / "pipeline", torch_dtype=dtype).to(place)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    score = ClipScore(load_clip(str(folder / "clip"), place))
    classify = torch.jit.load(str(classifier), map_location=place) if classifier else None
    kinds = score.clip.text_features([f"a photo of {with_article(names[0])}" for names in CLASSES])

    def values(images: Tensor) -> dict[str, Any]:
        scores = torch.cat([score(*pair) for pair in zip(images.split(batch), _parts(texts, batch), strict=True)])
        best = torch.cat([(score.clip.image_features(part) @ kinds.T).argmax(1).cpu() for part in images.split(batch)])
        shown = measure(images)
        lit = says[:, 1] != NOTHING
        found = {
            "clip_score": scores.mean().item(),
            "clip_score_error": (scores.std() / len(scores) ** 0.5).item(),
            "class_by_clip": _share(best == says[:, 0]),
            "colour": _share(shown[:, 2] == says[:, 3]),
            "brightness": _share(shown[lit, 0] == says[lit, 1]),
        }
        if classify is not None:
            with torch.no_grad():
                best = torch.cat([classify(part.to(place)).argmax(1).cpu() for part in images.split(batch)])
            found["class_by_classifier"] = _share(best == says[:, 0])
        return {name: round(value, 4) for name, value in found.items()}

    result: dict[str, Any] = {"captions": len(asked), "steps": STEPS}
    for scale in SCALES:
        result[f"guidance {scale:g}"] = values(draw(pipe, texts, list(range(len(texts))), scale, batch))
        print(scale, result[f"guidance {scale:g}"], flush=True)
        (folder / "judge.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    shown = [text for text in SHOWN for _ in range(4)]
    columns = [draw(pipe, shown, list(range(4)) * len(SHOWN), scale, batch) for scale in SCALES]
    save_grid([each.unflatten(0, (-1, 4)) for each in columns], folder / "samples.png")


def _parts(texts: list[str], size: int) -> list[list[str]]:
    return [texts[begin : begin + size] for begin in range(0, len(texts), size)]


def _share(found: Tensor) -> float:
    return found.float().mean().item()


if __name__ == "__main__":
    main()
