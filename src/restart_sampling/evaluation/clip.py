"""`Clip`: features of images and texts; `ClipScore`: how well they fit."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from restart_sampling.base.errors import InputError, one_line, require_extra, shorten
from restart_sampling.base.numerics import full_float32, weights_sha256
from restart_sampling.evaluation.tiny_clip import TINY_CLIP, build_clip
from restart_sampling.images.writers import as_picture

DEFAULT_CLIP = "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, of RGB from 0 to 1; LAION's models take the same
_STD = (0.26862954, 0.26130258, 0.27577711)
_STRAIGHT = str.maketrans(
    dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model in full float32.

    Attributes:
        name: as the user wrote it.
        identity: says which weights and preprocessing; scores can be compared where it is equal.
        network: transformers' CLIPModel.
        tokenizer: its CLIPTokenizer.
        device: where it computes.
    """

    name: str
    identity: str
    network: Any
    tokenizer: Any
    device: torch.device

    @property
    def side(self) -> int:
        """Height and width of the images that it takes."""
        return int(self.network.config.vision_config.image_size)

    @property
    def width(self) -> int:
        """How many features there are."""
        return int(self.network.config.projection_dim)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Computes features of length 1, float32 [B, d], of uint8 images [B, 3, side, side] that `preprocess` made."""
        mean, std = (torch.tensor(value, device=self.device).view(3, 1, 1) for value in (_MEAN, _STD))
        with full_float32():
            pooled = self.network.vision_model((images.to(self.device) / 255 - mean) / std).pooler_output
            return F.normalize(self.network.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Computes features of length 1, float32 [B, d], of texts, of which the tokens beyond 77 are left out."""
        length = self.network.config.text_config.max_position_embeddings
        # All get the full length, so that the longest text of a batch does not change how the others are rounded.
        plain = [_plain(text) for text in texts]
        tokens = self.tokenizer(plain, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        with full_float32():
            pooled = self.network.text_model(tokens["input_ids"].to(self.device)).pooler_output
            return F.normalize(self.network.text_projection(pooled), dim=-1)


@dataclass(frozen=True, eq=False)
class ClipScore:
    """How well an image fits its text: the cosine of the angle between their features.

    It is not multiplied by 100, and a negative one is not raised to 0: this is the scale of the paper's tables.

    Attributes:
        clip: The model.
    """

    clip: Clip

    def __call__(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores, float32 [B] from -1 to 1, uint8 images [B, 3, side, side] and as many texts."""
        return (self.clip.image_features(images) * self.clip.text_features(texts)).sum(dim=-1)

    @property
    def about(self) -> dict[str, Any]:
        """What a score depends on, for the results file."""
        return {"model": self.clip.name, "identity": self.clip.identity, "scale": 1, "clamp": None}


def load_clip(name: str, device: torch.device | str = "cpu") -> Clip:
    """Loads a CLIP model of transformers.

    Args:
        name: `tiny-clip`, a name on the Hugging Face hub, or a folder with the model and its tokenizer.
        device: where to compute.

    Raises:
        InputError: it cannot be loaded, is not a CLIP, or the file does not hold all of its weights.
    """
    require_extra("transformers", "text")
    network, tokenizer = build_clip() if name == TINY_CLIP else _read(name)
    network = network.to(torch.device(device), torch.float32).eval()
    return Clip(name, f"clip sha256 {weights_sha256(network)}", network, tokenizer, torch.device(device))


def _read(name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, CLIPModel, CLIPTokenizer

    try:
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        if kind != "clip":
            raise InputError(f"{name} is a model of the kind '{kind}', and has to be a CLIP, such as {DEFAULT_CLIP}")
        loaded: Any = CLIPModel.from_pretrained(name, trust_remote_code=False, output_loading_info=True)
        network, loading = loaded
        tokenizer = CLIPTokenizer.from_pretrained(name, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # the readers of weights and tokenizers raise many kinds
        raise InputError(
            f"CLIP {name} could not be loaded ({shorten(one_line(error), 200)}); without internet give the path of its "
            "folder: --clip for the CLIP score, --head-clip for the aesthetic score"
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would draw them at random
        raise InputError(f"CLIP {name} lacks {len(missing)} of its weights, such as {missing[0]}; get it again")
    return network, tokenizer


def preprocess(image: Image.Image, side: int) -> np.ndarray:
    """Makes a picture as CLIP wants it: bicubic to a short side of `side`, the square in the middle; uint8 [3, S, S].

    Sizes and offsets are rounded as in torchvision's Resize and CenterCrop, which OpenAI's and LAION's code uses.

    Args:
        image: of any size and mode.
        side: of the square.
    """
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    square = image.crop((left, top, left + side, top + side)).convert("RGB")
    return np.asarray(square).transpose(2, 0, 1)


def prepare_images(images: Tensor, side: int) -> Tensor:
    """Makes pictures as CLIP wants them: `preprocess` of uint8 images [B, C, H, W], to uint8 [B, 3, S, S]."""
    if images.shape[1:] == (3, side, side):
        return images
    return torch.from_numpy(np.stack([preprocess(as_picture(image), side) for image in images.cpu().numpy()]))


def _plain(text: str) -> str:
    """Cleans a text as OpenAI's tokenizer does, but for ftfy's mending of Unicode that was decoded wrongly."""
    return " ".join(html.unescape(html.unescape(text.translate(_STRAIGHT))).split())
