"""Tiny random pipelines with text encoders and tokenizers, as folders that diffusers reads."""

from pathlib import Path

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_pipelines import flux, stable_diffusion, stable_diffusion_3, stable_diffusion_xl
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from tiny_clip import END, START, letters

WIDTH = 8


def spread(network, std=0.5):
    """With the libraries' own scale all prompts look alike."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    return network.eval()


def tokenizer():
    return CLIPTokenizer(vocab=letters(), merges=[], model_max_length=16)


def text_encoder(kind=CLIPTextModel, projection=WIDTH, width=WIDTH):
    vocabulary = letters()
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(vocabulary),
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
        max_position_embeddings=16,
        projection_dim=projection,
    )
    return spread(kind(config))


def t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(letters()), d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return spread(T5EncoderModel(config))


def networks(pipe, name):
    """The network and the decoder of a pipeline without texts, livelier than they are made."""
    torch.manual_seed(1)
    return {name: spread(getattr(pipe, name), 0.2), "vae": pipe.vae, "scheduler": pipe.scheduler}


def sd_folder(folder: Path) -> Path:
    parts = networks(stable_diffusion(), "unet")
    none = dict.fromkeys(("safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(
        **parts, **none, text_encoder=text_encoder(), tokenizer=tokenizer(), requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    return folder


def sdxl_folder(folder: Path) -> Path:
    parts = networks(stable_diffusion_xl(), "unet")
    second = text_encoder(CLIPTextModelWithProjection, width=4)
    pipe = StableDiffusionXLPipeline(
        **parts,
        text_encoder=text_encoder(width=4),
        tokenizer=tokenizer(),
        text_encoder_2=second,
        tokenizer_2=tokenizer(),
        add_watermarker=False,
    )
    pipe.save_pretrained(folder)
    return folder


def sd3_folder(folder: Path) -> Path:
    parts = networks(stable_diffusion_3(), "transformer")
    encoders = {
        f"text_encoder{which}": text_encoder(CLIPTextModelWithProjection, width=4, projection=8) for which in ("", "_2")
    }
    tokenizers = {f"tokenizer{which}": tokenizer() for which in ("", "_2", "_3")}
    pipe = StableDiffusion3Pipeline(**parts, **encoders, **tokenizers, text_encoder_3=t5())
    pipe.save_pretrained(folder)
    return folder


def flux_folder(folder: Path) -> Path:
    parts = networks(flux(), "transformer")
    pipe = FluxPipeline(
        **parts,
        text_encoder=text_encoder(width=16),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
    )
    pipe.save_pretrained(folder)
    return folder


FOLDERS = {"sd": sd_folder, "sdxl": sdxl_folder, "sd3": sd3_folder, "flux": flux_folder}
