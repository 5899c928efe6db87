"""A tokenizer of few words in the files that transformers' CLIPTokenizer reads."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from captions import words
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 32
"""Tokens of a text, with both marks; the longest caption has 15, and an unknown word is one token a letter."""


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes the tokenizer: every byte, and every word of the captions, is one token.

    Args:
        folder: where the files go; made if it is not there.

    Returns:
        The tokenizer, as transformers reads it.
    """
    known = Tokenizer(BPE(end_of_word_suffix="</w>"))
    known.train_from_iterator(words(), BpeTrainer(end_of_word_suffix="</w>", min_frequency=1, show_progress=False))
    with TemporaryDirectory() as place:
        known.model.save(place)
        merges = (Path(place) / "merges.txt").read_text("utf-8").splitlines()[1:]
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *(pair.replace(" ", "") for pair in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, START, END])}
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {**marks, "tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n", "utf-8")
    return CLIPTokenizer.from_pretrained(folder)
