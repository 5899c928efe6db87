"""Checkpoints of score_sde_pytorch: their DDPM++ and NCSN++ are `SongUNet` under other names.

Their modules stand in one list, in the order in which they are run. The averages of the weights are a list as well, in
the order of the parameters. Source: Song et al. 2021 (arXiv 2011.13456), appendix H, and the project's configurations.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import torch
from torch import Size, Tensor, nn

from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.foreign.found import RAW, Found, State
from restart_sampling.models.layers import ConvDownsample2d, FourierEmbedding, UNetBlock, low_pass
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.models.song_unet import SongUNet

FORMAT = "score_sde"

_BOTH: dict[str, Any] = {"img_channels": 3, "model_type": "SongUNet"}
_DDPMPP = {**_BOTH, "img_resolution": 32}
_NCSNPP = {**_BOTH, "embedding_type": "fourier", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}
_CIFAR = {**_NCSNPP, "img_resolution": 32, "encoder_type": "residual"}
_LARGE = {**_NCSNPP, "encoder_type": "skip", "decoder_type": "skip"}
PUBLISHED: Mapping[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("vp/cifar10_ddpmpp_continuous",): ("VPPrecond", _DDPMPP),
    ("vp/cifar10_ddpmpp_deep_continuous",): ("VPPrecond", {**_DDPMPP, "num_blocks": 8}),
    ("ve/cifar10_ncsnpp_continuous",): ("VEPrecond", _CIFAR),
    ("ve/cifar10_ncsnpp_deep_continuous",): ("VEPrecond", {**_CIFAR, "num_blocks": 8}),
    (
        "ve/bedroom_ncsnpp_continuous",
        "ve/church_ncsnpp_continuous",
        "ve/ffhq_256_ncsnpp_continuous",
        "ve/celebahq_256_ncsnpp_continuous",
    ): (
        "VEPrecond",
        {**_LARGE, "img_resolution": 256, "channel_mult": [1, 1, 2, 2, 2, 2, 2], "num_blocks": 2},
    ),
    ("ve/ffhq_1024_ncsnpp_continuous",): (
        "VEPrecond",
        {
            **_LARGE,
            "img_resolution": 1024,
            "model_channels": 16,
            "channel_mult": [1, 2, 4, 8, 16, 32, 32, 32],
            "num_blocks": 1,
        },
    ),
}
"""The class of the preconditioning and its arguments, by the folders of the checkpoints."""

_BLOCK = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
    "skip": "Conv_2",
}


def read(state: State, averages: Sequence[Tensor] | None, path: Path) -> Found | None:
    """Finds the published network that has these tensors; None where they are of another kind.

    Args:
        state: of the model.
        averages: of its weights, in their order; None: the file has none.
        path: of the file.

    Raises:
        UnreadableError: they are of this kind, but of no published model, or the averages are of another.

    Warns:
        UserWarning: the file does not say which SDE it is of.
    """
    if not any(key.startswith("all_modules.") for key in state):
        return None
    if "subvp" in path.parts:
        raise UnreadableError("it lies in a folder subvp, and models of the sub-VP SDE are not read")
    shapes = {key: tensor.shape for key, tensor in state.items() if key != "sigmas"}
    for folders, (class_name, kwargs) in PUBLISHED.items():
        theirs, places = _published(folders)
        if shapes == theirs:
            trained = state if averages is None else _averaged(state, averages)
            taps = kwargs.get("resample_filter", (1, 1))
            tensors = {
                f"model.{key}": _ours(key, [trained[part] for part in parts]) if parts else low_pass(taps)
                for key, parts in places.items()
            }
            if class_name == "VPPrecond":
                warnings.warn(
                    f"{path.name} is taken for a model of the VP SDE; one of the sub-VP SDE has the same tensors, and "
                    f"would make wrong images",
                    stacklevel=2,
                )
            return Found(FORMAT, class_name, {**kwargs, **_range(class_name, state)}, tensors, _said(folders, averages))
    published = ", ".join(folder for folders in PUBLISHED for folder in folders)
    raise UnreadableError(f"it is a network of score_sde, but none of those that load: {published}")


@cache
def _published(folders: tuple[str, ...]) -> tuple[dict[str, Size], dict[str, list[str]]]:
    """Finds the shapes of a network's tensors by their names in the file, and those names by ours; [] for a filter.

    It is a network of `PUBLISHED`.
    """
    class_name, kwargs = PUBLISHED[folders]
    with torch.device("meta"):
        network = cast(SongUNet, DENOISERS[class_name](**kwargs).model)
    places, own = _places(network), network.state_dict()
    shapes = {part: _shape(parts, own[key]) for key, parts in places.items() for part in parts}
    return shapes, {key: places.get(key, []) for key in own}


def _averaged(state: State, averages: Sequence[Tensor]) -> State:
    """Puts the averages in place of the weights: those that are trained, in the order of the state dict."""
    keys = [key for key in state if key not in ("sigmas", "all_modules.0.W")]
    if [state[key].shape for key in keys] != [average.shape for average in averages]:
        raise UnreadableError("its averages, in ema, are not of the weights in model")
    return {**state, **dict(zip(keys, averages, strict=True))}


def _range(class_name: str, state: State) -> dict[str, float]:
    """Reads the range of noise levels of a VE model, which the file has for data of 0 to 1; ours are of -1 to 1."""
    if class_name != "VEPrecond":
        return {}
    sigmas = state.get("sigmas", torch.zeros(1)).double()
    low, high = (float(f"{2 * sigma.item():.6g}") for sigma in (sigmas.min(), sigmas.max()))
    if not 0 < low < high < math.inf:
        raise UnreadableError("it has no sigmas, the noise levels that its model was trained with")
    return {"sigma_min": low, "sigma_max": high}


def _said(folders: Sequence[str], averages: Sequence[Tensor] | None) -> dict[str, str]:
    said = {"taken_for": " or ".join(folders)}
    return said if averages is not None else {**said, "weights": RAW}


def _places(network: SongUNet) -> dict[str, list[str]]:
    """Maps our names of the tensors to theirs: one of theirs, or those of queries, keys and values."""
    place = (f"all_modules.{index}" for index in count())
    places = {"map_noise.freqs": [f"{next(place)}.W"]} if isinstance(network.map_noise, FourierEmbedding) else {}
    modules = {"map_layer0": next(place), "map_layer1": next(place)}
    for side in ("enc", "dec"):
        for name, layer in network.get_submodule(side).named_children():
            ours = f"{side}.{name}"
            match layer:
                case UNetBlock():
                    theirs = next(place)
                    modules |= {f"{ours}.{own}": f"{theirs}.{name}" for own, name in _BLOCK.items()}
                    if layer.heads:
                        theirs = next(place)
                        modules[f"{ours}.norm2"] = f"{theirs}.GroupNorm_0"
                        for own, parts in (("qkv", "012"), ("proj", "3")):
                            for tensor, letter in (("weight", "W"), ("bias", "b")):
                                places[f"{ours}.{own}.{tensor}"] = [f"{theirs}.NIN_{part}.{letter}" for part in parts]
                case ConvDownsample2d():
                    modules[ours] = f"{next(place)}.Conv2d_0"
                case nn.Conv2d() | nn.GroupNorm():
                    modules[ours] = next(place) + ".Conv_0" * name.endswith("aux_skip")
    for key in network.state_dict():
        module, _, tensor = key.rpartition(".")
        if key not in places and tensor != "resample_filter":
            places[key] = [f"{modules[module]}.{tensor}"]
    return places


def _shape(parts: list[str], tensor: Tensor) -> Size:
    """Computes the shape that each part of our tensor has in their file, where layers of attention are matrices."""
    if ".NIN_" not in parts[0]:
        return tensor.shape
    return Size([tensor.shape[0] // len(parts), *tensor.shape[1:2]])


def _ours(key: str, parts: list[Tensor]) -> Tensor:
    if key.endswith((".qkv.weight", ".proj.weight")):
        parts = [part.t()[:, :, None, None] for part in parts]
    # Ours are ordered by channel, and then as queries, keys and values.
    return torch.stack(parts, dim=1).flatten(0, 1).contiguous() if len(parts) == 3 else parts[0].contiguous()
