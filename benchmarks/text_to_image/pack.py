"""Packs a trained pipeline and CLIP as they come with the package: weights in 8 bit, one file each.

    python benchmarks/text_to_image/pack.py out/text CIFAR src/restart_sampling

Beside them go captions of the test set, and statistics of the CLIP's features of it.
"""

# mypy: disable-error-code="no-untyped-call"

import json
import random
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import torch
from captions import CLASSES, NOTHING, write
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_data import read_pictures

from restart_sampling.base.numerics import weights_sha256
from restart_sampling.evaluation.clip import Clip
from restart_sampling.evaluation.statistics import statistics_of
from restart_sampling.evaluation.tiny_clip import REFERENCE, TINY_CLIP, build_clip
from restart_sampling.images.prompts import write_prompts
from restart_sampling.models.int8 import quantized
from restart_sampling.text_to_image.bundled import TINY, WEIGHTS

NETWORKS = ("vae", "unet", "text_encoder")
PROMPTS = 500
OWN = ("dtype", "torch_dtype", "_name_or_path")
"""Settings that say something of the training alone."""


def pack_pipeline(source: Path, out: Path) -> None:
    """Packs a folder of diffusers' `StableDiffusionPipeline`."""
    state: dict[str, Tensor] = {}
    for part in NETWORKS:
        _copy(source / part / "config.json", out / part / "config.json")
        for key, weight in _weights(source / part).items():
            # Older versions of transformers have a prefix.
            state[f"{part}.{key.removeprefix('text_model.')}"] = weight
    _copy(source / "scheduler" / "scheduler_config.json", out / "scheduler" / "scheduler_config.json")
    _copy_tokenizer(source / "tokenizer", out / "tokenizer")
    save_file(quantized(state), out / WEIGHTS)


def pack_clip(source: Path, out: Path) -> None:
    """Packs a folder of transformers' `CLIPModel`."""
    _copy(source / "config.json", out / "config.json")
    _copy_tokenizer(source, out / "tokenizer")
    save_file(quantized(_weights(source)), out / WEIGHTS)


def _weights(folder: Path) -> Mapping[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return {key: weight for key, weight in load_file(file).items() if not key.endswith("position_ids")}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in json.loads(source.read_text("utf-8")).items() if key not in OWN}
    target.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, target / name)


def captions_of(pictures: Path, count: int) -> list[str]:
    """Captions of as many pictures, spread evenly over the classes; each mentions colour or light."""
    draw, found = random.Random(3), read_pictures(pictures, torch.device("cpu"))
    per_class = count // len(CLASSES)
    captions: list[str] = []
    for kind in range(len(CLASSES)):
        rows = found.attributes[found.attributes[:, 0] == kind].tolist()
        written = (write(row, draw) for row in draw.sample(rows, len(rows)))
        captions += [one.text for one in written if max(one.says[1:]) != NOTHING][:per_class]
    draw.shuffle(captions)
    return captions


def write_reference(pictures: Path, clip: Path, out: Path) -> None:
    """Writes the statistics of all pictures, in float32, which halves the file."""
    found = read_pictures(pictures, torch.device("cpu"))
    network, tokenizer = build_clip(clip)
    whole = Clip(TINY_CLIP, f"clip sha256 {weights_sha256(network)}", network, tokenizer, torch.device("cpu"))
    moments = statistics_of(torch.cat([whole.image_features(part) for part in found.images.split(500)]))
    np.savez_compressed(
        out,
        mu=moments.mu.float().numpy(),
        sigma=moments.sigma.float().numpy(),
        images=np.array(len(found)),
        size=np.array(found.images.shape[2:]),
        detector=np.array(whole.identity),
        source=np.array(sha256(found.images.numpy().tobytes()).hexdigest()),
    )


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("cifar", type=click.Path(exists=True, path_type=Path))
@click.argument("package", type=click.Path(exists=True, path_type=Path))
def main(source: Path, cifar: Path, package: Path) -> None:
    pipeline, clip = package / "text_to_image" / TINY, package / "evaluation" / TINY_CLIP
    pack_pipeline(source / "pipeline", pipeline)
    pack_clip(source / "clip", clip)
    write_prompts(captions_of(cifar / "test", PROMPTS), pipeline / "prompts.csv")
    write_reference(cifar / "test", clip, clip / REFERENCE.name)


if __name__ == "__main__":
    main()
