"""The CLIP that comes with the package: of CIFAR-10's pictures, and captions of their class, colours and light."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from restart_sampling.models.int8 import dequantized

TINY_CLIP = "tiny-clip"
FOLDER = Path(__file__).parent / TINY_CLIP
REFERENCE = FOLDER / "cifar10-test.npz"
"""Statistics of its features of CIFAR-10's test set."""
SIDE = 32
WEIGHTS = "weights.safetensors"


def build_clip(folder: Path = FOLDER) -> tuple[Any, Any]:
    """Builds transformers' `CLIPModel`, float32 on the CPU, and its tokenizer.

    Args:
        folder: in transformers' layout, but for weights of 8 bit and the tokenizer's own folder.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    config = CLIPConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    network: Any = CLIPModel(config)
    network.load_state_dict(dequantized(load_file(folder / WEIGHTS)))
    return network.eval(), CLIPTokenizer.from_pretrained(folder / "tokenizer")
