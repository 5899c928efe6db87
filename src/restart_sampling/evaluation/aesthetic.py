"""`AestheticScore`: LAION's heads, which rate CLIP features from about 1 to 10."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restart_sampling.base.download import fetch
from restart_sampling.base.errors import InputError
from restart_sampling.base.numerics import full_float32
from restart_sampling.evaluation.clip import Clip

DEFAULT_HEAD = "sac+logos+ava1-l14-linearMSE"

_V2 = "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"  # Apache-2.0
_V1 = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/"  # MIT
_L14 = "openai/clip-vit-large-patch14"

Layer = tuple[Tensor, Tensor]
"""Weight [out, in] and bias [out]."""


@dataclass(frozen=True)
class HeadFile:
    """A published head.

    Attributes:
        url: of its file.
        sha256: of its content.
        clip: the CLIP whose features it takes.
        relu: whether there is a ReLU between its layers; without one all of them are a single linear map.
    """

    url: str
    sha256: str
    clip: str
    relu: bool = False


HEADS = {
    DEFAULT_HEAD: HeadFile(
        f"{_V2}sac%2Blogos%2Bava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        _L14,
    ),
    "ava+logos-l14-linearMSE": HeadFile(
        f"{_V2}ava%2Blogos-l14-linearMSE.pth",
        "390a3aafaf3b37d57148f9b22f30556de38343064b7d915acfa80d3812b4c9ff",
        _L14,
    ),
    "ava+logos-l14-reluMSE": HeadFile(
        f"{_V2}ava%2Blogos-l14-reluMSE.pth",
        "0af3254c651d55b7ea851429c20f26ec880bb0169805a4df85b814bd7966f3e4",
        _L14,
        relu=True,
    ),
    "sa_0_4_vit_l_14_linear": HeadFile(
        f"{_V1}sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        _L14,
    ),
    "sa_0_4_vit_b_32_linear": HeadFile(
        f"{_V1}sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        "openai/clip-vit-base-patch32",
    ),
    "sa_0_4_vit_b_16_linear": HeadFile(
        f"{_V1}sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        "openai/clip-vit-base-patch16",
    ),
}
"""The heads by name. The paper's is the first."""


@dataclass(frozen=True, eq=False)
class AestheticScore:
    """How people would rate an image, by CLIP's features of length 1 and a head.

    Attributes:
        clip: the model.
        head: name of the head.
        layers: of the head, on the device of the model; a ReLU is between them where there are several.
    """

    clip: Clip
    head: str
    layers: Sequence[Layer]

    @torch.no_grad()
    def __call__(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Rates, float32 [B], uint8 images [B, 3, side, side] that `preprocess` made; the texts do not matter."""
        x = self.clip.image_features(images)
        with full_float32():
            x = F.linear(x, *self.layers[0])
            for layer in self.layers[1:]:
                x = F.linear(F.relu(x), *layer)
        return x[:, 0]

    @property
    def about(self) -> dict[str, Any]:
        """What a score depends on, for the results file."""
        return {
            "head": self.head,
            "head_sha256": HEADS[self.head].sha256,
            "model": self.clip.name,
            "identity": self.clip.identity,
        }


def find_head(name: str) -> HeadFile:
    """Finds the published head of this name.

    Raises:
        InputError: there is none.
    """
    if name not in HEADS:
        raise InputError(f"there is no aesthetic head '{name}'; allowed: {', '.join(HEADS)}")
    return HEADS[name]


def load_aesthetic(head: str, clip: Clip) -> AestheticScore:
    """Loads the score of a published head, which is downloaded at first use.

    Args:
        head: of `HEADS`.
        clip: the model whose features it takes.

    Raises:
        InputError: there is no such head, the download failed or is not the published file, or the model has another
            number of features.
    """
    published = find_head(head)
    layers = read_head(fetch(published.url, f"{head}.pth", published.sha256))
    width = layers[0][0].shape[1]
    if width != clip.width:
        raise InputError(
            f"the aesthetic head {head} takes {width} features, and CLIP {clip.name} gives {clip.width}; "
            f"give it {published.clip}, or a folder with that model"
        )
    layers = layers if published.relu else [fold(layers)]
    return AestheticScore(clip, head, [(weight.to(clip.device), bias.to(clip.device)) for weight, bias in layers])


def read_head(path: Path) -> list[Layer]:
    """Reads the linear layers of a published head, in their order, float32 on the CPU. Nothing in the file is run."""
    state = torch.load(path, map_location="cpu", weights_only=True)  # it holds CUDA tensors
    weights = sorted(
        (key for key in state if key.endswith("weight")),
        key=lambda key: [int(number) for number in re.findall("[0-9]+", key)],
    )
    return [(state[key].float(), state[key.removesuffix("weight") + "bias"].float()) for key in weights]


def fold(layers: Sequence[Layer]) -> Layer:
    """Computes, in float64, the one linear map, float32, that linear layers without anything between them are."""
    weight, bias = (part.double() for part in layers[0])
    for next_weight, next_bias in layers[1:]:
        weight, bias = next_weight.double() @ weight, next_weight.double() @ bias + next_bias
    return weight.float(), bias.float()
