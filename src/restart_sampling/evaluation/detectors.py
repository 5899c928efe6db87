"""Detectors: networks that turn images into features."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restart_sampling.base.download import fetch
from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.files import sha256
from restart_sampling.base.numerics import full_float32, weights_sha256

INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
DINOV2 = "facebook/dinov2-large"


@dataclass(frozen=True)
class Detector:
    """A network that turns images into features, in full float32.

    Attributes:
        name: as the user wrote it.
        identity: says which weights and preprocessing; equal exactly where features can be compared.
        extract: uint8 [B, 3, H, W] on the detector's device to float32 [B, d].
        device: where it computes.
    """

    name: str
    identity: str
    extract: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [B, d] of uint8 images [B, C, H, W] on any device; grey counts as RGB of equal channels.

        Raises:
            InputError: the detector does not take such images, or gives no [B, d].
        """
        images = images.to(self.device)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        with full_float32():
            features = self.extract(images)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            raise InputError(f"detector '{self.name}' does not turn {len(images)} images into as many rows of features")
        return features.float()


def load_detector(name: str, device: torch.device | str = "cpu") -> Detector:
    """A detector.

    Args:
        name: `inception` (NVIDIA's file, the one that EDM's FIDs come from, downloaded once), `dinov2-hf` (DINOv2
            through transformers), a folder with a DINOv2 of transformers, or a TorchScript file with NVIDIA's call
            convention: `detector(uint8 images [B, 3, H, W], return_features=True)` gives [B, d].
        device: where to compute.

    Raises:
        InputError: no such file, a download that failed or is not the published file, or transformers is missing.
    """
    device = torch.device(device)
    if name == "inception":
        return _torchscript(name, fetch(INCEPTION_URL, INCEPTION_URL.rpartition("/")[2], INCEPTION_SHA256), device)
    if name == "dinov2-hf" or Path(name).is_dir():
        return _dinov2(name, device)
    if not Path(name).is_file():
        raise InputError(
            f"--detector {name}: there is no such file; give inception, dinov2-hf, or the path of a TorchScript file"
        )
    return _torchscript(name, Path(name), device)


def _torchscript(name: str, path: Path, device: torch.device) -> Detector:
    try:
        with warnings.catch_warnings():
            # The published Inception exists as TorchScript alone, so there is nothing to switch to.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--detector {name}: {path} is not a TorchScript file") from error
    if not any(argument.name == "return_features" for argument in network.forward.schema.arguments):
        raise InputError(
            f"--detector {name}: {path} takes no return_features; give a TorchScript file that is called as "
            "detector(images, return_features=True), images uint8 [B, 3, H, W], and gives features [B, d]"
        )
    return Detector(name, f"torchscript sha256 {sha256(path)}", lambda x: network(x, return_features=True), device)


def _dinov2(name: str, device: torch.device) -> Detector:
    """DINOv2's class token after the last normalisation, preprocessed as EDM2 does: bicubic with antialias to 224."""
    require_extra("transformers", "dinov2")
    from transformers import AutoModel

    source = DINOV2 if name == "dinov2-hf" else name
    try:
        network: Any = AutoModel.from_pretrained(source).to(device, torch.float32).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--detector {name}: {source} could not be loaded ({reason}); without internet give the path of its folder"
        ) from error
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def extract(images: Tensor) -> Tensor:
        x = F.interpolate(images.float() / 255, (224, 224), mode="bicubic", antialias=True)
        features: Tensor = network(pixel_values=(x - mean) / std).last_hidden_state[:, 0]
        return features

    return Detector(name, f"dinov2-hf sha256 {weights_sha256(network)}", extract, device)
