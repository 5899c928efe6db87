"""The text-to-image pipeline that comes with the package: tiny, and trained on CIFAR-10's pictures with captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TINY = "tiny-text-to-image"
GUIDANCE = 3.0
"""The guidance scale that suits it."""
FOLDER = Path(__file__).parent / TINY
"""In diffusers' layout, but for the weights of all networks in one file of 8 bit."""
PROMPTS = FOLDER / "prompts.csv"
"""Captions of pictures of CIFAR-10's test set."""
WEIGHTS = "weights.safetensors"


def usual_guidance(name: str) -> float:
    """Finds the guidance scale of a pipeline where none is asked for."""
    return GUIDANCE if name == TINY else 7.5


def build_pipeline() -> Any:
    """Builds diffusers' own `StableDiffusionPipeline`, float32 on the CPU."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from restart_sampling.models.int8 import dequantized

    state = dequantized(load_file(FOLDER / WEIGHTS))

    def config(part: str, name: str = "config.json") -> dict[str, Any]:
        return json.loads((FOLDER / part / name).read_text(encoding="utf-8"))

    def weights(part: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{part}."): state[key] for key in state if key.startswith(f"{part}.")}

    vae = AutoencoderKL.from_config(config("vae"))
    vae.load_state_dict(weights("vae"))
    unet = UNet2DConditionModel.from_config(config("unet"))
    unet.load_state_dict(weights("unet"))
    text_encoder: Any = CLIPTextModel(CLIPTextConfig(**config("text_encoder")))
    getattr(text_encoder, "text_model", text_encoder).load_state_dict(weights("text_encoder"))  # before transformers 5
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=CLIPTokenizer.from_pretrained(FOLDER / "tokenizer"),
        unet=unet.eval(),
        scheduler=DDIMScheduler.from_config(config("scheduler", "scheduler_config.json")),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
