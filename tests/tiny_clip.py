"""A CLIP with random weights and a tokenizer of single letters, as a folder that transformers reads."""

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def letters() -> dict[str, int]:
    """A vocabulary of single letters, and its two marks."""
    alphabet = sorted(ByteLevel.alphabet())
    return {token: number for number, token in enumerate([*alphabet, *(f"{a}</w>" for a in alphabet), START, END])}


def clip_folder(folder: Path, *, features: int = 12, side: int = 32, seed: int = 0) -> Path:
    vocabulary = letters()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(vocabulary),
            "bos_token_id": vocabulary[START],
            "eos_token_id": vocabulary[END],
            "pad_token_id": vocabulary[END],
        },
        vision_config={**small, "image_size": side, "patch_size": 8},
        projection_dim=features,
    )
    torch.manual_seed(seed)
    network = CLIPModel(config)
    for parameter in network.parameters():
        if parameter.ndim > 1:  # with transformers' own scale all texts look alike
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
