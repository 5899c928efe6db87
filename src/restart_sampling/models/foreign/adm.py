"""State dicts of guided-diffusion (ADM) and improved-diffusion: their network is `DhariwalUNet` under other names.

The heads, the order of queries, keys and values, the resolution and the schedule cannot be seen in the tensors. They
are those of the published model whose tensors have the same names and shapes, as its project's README gives them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.ddpm import DDPMPrecond
from restart_sampling.models.dhariwal_unet import DhariwalUNet
from restart_sampling.models.foreign.found import RAW, Found, State
from restart_sampling.models.layers import ResampleConv2d, UNetBlock, low_pass

GUIDED, IMPROVED = "guided-diffusion", "improved-diffusion"

_BOTH: dict[str, Any] = {"img_channels": 3, "model_type": "DhariwalUNet", "learned_variance": True}
_ADM = {**_BOTH, "model_channels": 256, "num_blocks": 2, "attn_resolutions": [32, 16, 8]}
_256 = {**_ADM, "img_resolution": 256, "channel_mult": [1, 1, 2, 2, 4, 4]}
_OLD = {**_BOTH, "num_blocks": 3, "attn_resolutions": [16, 8], "num_heads": 4, "residual_resampling": False}
_COSINE = {"schedule": "cosine", "M": 4000}
_64 = {"img_resolution": 64, "channel_mult": [1, 2, 3, 4], "num_blocks": 3}
PUBLISHED: Mapping[tuple[str, ...], dict[str, Any]] = {
    ("64x64_diffusion.pt",): {**_ADM, **_64, "model_channels": 192, "label_dim": 1000, "schedule": "cosine"},
    ("128x128_diffusion.pt",): {
        **_ADM,
        "img_resolution": 128,
        "channel_mult": [1, 1, 2, 3, 4],
        "num_heads": 4,
        "label_dim": 1000,
    },
    ("256x256_diffusion.pt",): {**_256, "label_dim": 1000},
    (
        "256x256_diffusion_uncond.pt",
        "lsun_bedroom.pt",
        "lsun_cat.pt",
        "lsun_horse.pt",
        "lsun_horse_nodropout.pt",
    ): _256,
    ("512x512_diffusion.pt",): {
        **_ADM,
        "img_resolution": 512,
        "channel_mult": [0.5, 1, 1, 2, 2, 4, 4],
        "label_dim": 1000,
    },
    ("cifar10_uncond_50M_500K.pt", "cifar10_uncond_vlb_50M_500K.pt"): {
        **_OLD,
        **_COSINE,
        "img_resolution": 32,
        "model_channels": 128,
        "channel_mult": [1, 2, 2, 2],
        "timestep_scale": 0.25,
    },
    ("imagenet64_uncond_100M_1500K.pt", "imagenet64_uncond_vlb_100M_1500K.pt"): {
        **_OLD,
        **_64,
        **_COSINE,
        "model_channels": 128,
        "timestep_scale": 0.25,
    },
    ("imagenet64_cond_270M_250K.pt",): {**_OLD, **_64, **_COSINE, "model_channels": 192, "label_dim": 1000},
    ("lsun_uncond_100M_1200K_bs128.pt", "lsun_uncond_100M_2400K_bs64.pt"): {
        **_OLD,
        "img_resolution": 256,
        "model_channels": 128,
        "channel_mult": [1, 1, 2, 2, 4, 4],
        "num_blocks": 2,
        "attn_resolutions": [16],
        "num_heads": 1,
        "adaptive_scale": False,
    },
}
"""Arguments of `DDPMPrecond`, by the files that they are of."""

# The one whose qkv gives all queries, then all keys and all values ("new attention order"); else heads come first.
_QUERIES_FIRST = ("64x64_diffusion.pt",)
_RAW_FILE = re.compile(r"model\d+\.\w+")
_BLOCK = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


def read(state: State, path: Path) -> Found | None:
    """Finds the published network that has these tensors; None where they are of another kind.

    Args:
        state: the tensors by their names.
        path: of the file, whose name tells raw weights (model000000.pt) from averages (ema_0.9999_000000.pt).

    Raises:
        UnreadableError: they are of this kind, but of no published model of images.
    """
    if not {"time_embed.0.weight", "input_blocks.0.0.weight"} <= state.keys():
        return None
    if "output_blocks.0.0.in_layers.0.weight" not in state:
        raise UnreadableError("it is a classifier of guided-diffusion, and a diffusion model is needed")
    if state["input_blocks.0.0.weight"].shape[1:2] == (6,):
        raise UnreadableError("it is an upsampler, which asks for a smaller image, and such models are not read")
    shapes = {key: tensor.shape for key, tensor in state.items()}
    for files, kwargs in PUBLISHED.items():
        if shapes["time_embed.0.weight"] != (4 * kwargs["model_channels"], kwargs["model_channels"]):
            continue  # sooner than by all tensors
        with torch.device("meta"):
            network = cast(DhariwalUNet, DDPMPrecond(**kwargs).model)
        places, own = _places(network), network.state_dict()
        if shapes == {theirs: _shape(key, own[key]) for key, theirs in places.items()}:
            tensors = {
                key: _ours(key, state[places[key]], network, files == _QUERIES_FIRST)
                if key in places
                else low_pass((1, 1))
                for key in own
            }
            return Found(
                IMPROVED if "residual_resampling" in kwargs else GUIDED,
                "DDPMPrecond",
                kwargs,
                {f"model.{key}": tensor.contiguous() for key, tensor in tensors.items()},
                {"taken_for": " or ".join(files)} | ({"weights": RAW} if _RAW_FILE.fullmatch(path.name) else {}),
            )
    raise UnreadableError(
        "it is a U-Net as of guided-diffusion or improved-diffusion, but of none of their diffusion models (nor are "
        "consistency models such), and its heads, resolution and schedule are not in the file; build it in Python and "
        "give it to rs.from_eps"
    )


def _places(network: DhariwalUNet) -> dict[str, str]:
    """Maps our names of the tensors to theirs."""
    modules = {"map_layer0": "time_embed.0", "map_layer1": "time_embed.2", "map_label": "label_emb"}
    modules.update(out_norm="out.0", out_conv="out.2")
    for index, (name, layer) in enumerate(network.enc.items()):
        modules.update(_modules(f"enc.{name}", layer, f"input_blocks.{index}", 0))
    stage, index, place = "middle_block", 0, 0
    for name, layer in network.dec.items():
        if "block" in name:
            stage, index, place = f"output_blocks.{index}", index + 1, 0
        modules.update(_modules(f"dec.{name}", layer, stage, place))
        place += 2 if getattr(layer, "heads", 0) else 1
    keys = [key.rpartition(".") for key in network.state_dict()]
    return {f"{module}.{name}": f"{modules[module]}.{name}" for module, _, name in keys if name != "resample_filter"}


def _modules(ours: str, layer: nn.Module, stage: str, place: int) -> Iterator[tuple[str, str]]:
    """Yields the modules of a layer, which stands at a place of a sequence of theirs."""
    if isinstance(layer, UNetBlock):
        yield from ((f"{ours}.{name}", f"{stage}.{place}.{theirs}") for name, theirs in _BLOCK.items())
        yield from ((f"{ours}.{name}", f"{stage}.{place + 1}.{theirs}") for name, theirs in _ATTENTION.items())
    else:
        suffix = ".conv" if isinstance(layer, ResampleConv2d) else ".op" if ours.endswith("_down") else ""
        yield ours, f"{stage}.{place}{suffix}"


def _shape(key: str, tensor: Tensor) -> torch.Size:
    """Computes the shape that a tensor of ours has in their file: convolutions of attention are one-dimensional."""
    if key == "map_label.weight":
        return tensor.shape[::-1]
    return tensor.shape[:3] if key.endswith(("qkv.weight", "proj.weight")) else tensor.shape


def _ours(key: str, tensor: Tensor, network: DhariwalUNet, queries_first: bool) -> Tensor:
    if key == "map_label.weight":
        return tensor.t()
    module, _, _ = key.rpartition(".qkv.")
    if module:
        heads = 1 if queries_first else cast(UNetBlock, network.get_submodule(module)).heads
        tensor = tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    return tensor[..., None] if key.endswith(("qkv.weight", "proj.weight")) else tensor
