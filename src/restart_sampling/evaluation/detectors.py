"""Detectors: networks that turn images into features."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restart_sampling.base.download import fetch
from restart_sampling.base.errors import InputError, one_line, require_extra, shorten
from restart_sampling.base.numerics import full_float32, weights_sha256
from restart_sampling.evaluation.clip import load_clip
from restart_sampling.evaluation.tiny_clip import TINY_CLIP

INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
PUBLISHED = frozenset({INCEPTION_SHA256})
"""SHA-256 of the TorchScript detectors that load without a word; any other asks for the user's trust."""

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
        """Computes features float32 [B, d] of uint8 images [B, C, H, W] on any device; grey is RGB of equal channels.

        Raises:
            InputError: the detector does not take such images, or gives no [B, d].
        """
        images = images.to(self.device)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        try:
            with full_float32():
                features = self.extract(images)
        except InputError:
            raise
        except Exception as error:  # somebody's network can fail in any way
            height, width = images.shape[2:]
            raise InputError(
                f"detector '{self.name}' fails on images of {width}x{height} ({_reason(error)})"
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            raise InputError(f"detector '{self.name}' does not turn {len(images)} images into as many rows of features")
        return features.float()

    def try_on(self, shape: Sequence[int]) -> int:
        """Tries it on one image of noise [C, H, W], which costs less than to find out after hours of drawing.

        Returns:
            The number of features.

        Raises:
            InputError: it fails, or what it gives is not finite.
        """
        noise = torch.randint(256, (1, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        features = self(noise)
        if not torch.isfinite(features).all():
            raise InputError(
                f"detector '{self.name}' gives features that are not finite, of an image of noise; give another one"
            )
        return features.shape[1]


def load_detector(name: str, device: torch.device | str = "cpu", *, trust: bool | str = False) -> Detector:
    """Loads a detector.

    Args:
        name: `inception` (NVIDIA's file, the one that EDM's FIDs come from, downloaded once), `dinov2-hf` (DINOv2
            through transformers), `tiny-clip` (that of the package, for pictures like CIFAR-10's), a folder with a
            DINOv2 of transformers, or a TorchScript file with NVIDIA's call convention:
            `detector(uint8 images [B, 3, H, W], return_features=True)` gives [B, d].
        device: where to compute.
        trust: whether a TorchScript file that is not published may be loaded, which can do all that the user can;
            a SHA-256 trusts the file that has it, and no other.

    Raises:
        InputError: no such file, a download that failed or is not the published file, a file that is not trusted, trust
            in what is no TorchScript file, or transformers is missing.
    """
    device = torch.device(device)
    if trust and not is_torchscript(name):
        raise InputError(
            f"--detector {name} runs no code of a file, so there is nothing to trust; leave out --trust-detector "
            f"(trust_detector= in Python)"
        )
    if name == "inception":
        path = fetch(INCEPTION_URL, INCEPTION_URL.rpartition("/")[2], INCEPTION_SHA256)
        return _torchscript(name, path, device, trust=trust)
    if name == TINY_CLIP:
        return _tiny_clip(name, device)
    if not is_torchscript(name):
        return _dinov2(name, device)
    if not Path(name).is_file():
        raise InputError(
            f"--detector {name}: there is no such file; give inception, dinov2-hf, tiny-clip, or the path of a "
            "TorchScript file"
        )
    return _torchscript(name, Path(name), device, trust=trust)


def is_torchscript(name: str) -> bool:
    """Tells whether a detector is a TorchScript file, whose code runs; not whether there is such a file."""
    return name not in (TINY_CLIP, "dinov2-hf") and not Path(name).is_dir()


def _tiny_clip(name: str, device: torch.device) -> Detector:
    clip = load_clip(name, device)

    def extract(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if (width, height) != (clip.side, clip.side):
            size = f"{clip.side}x{clip.side}"
            raise InputError(
                f"detector '{name}' takes images of {size}, and not of {width}x{height}; bring files to that size with "
                f"'restart-sampling dataset --resolution {size}', or take a detector of all sizes, such as inception"
            )
        return clip.image_features(images)

    return Detector(name, clip.identity, extract, device)


def _torchscript(name: str, path: Path, device: torch.device, *, trust: bool | str) -> Detector:
    try:
        content = path.read_bytes()  # once, so that what is loaded is what has the hash
    except OSError as error:
        raise InputError(f"--detector {name}: {path} cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(content).hexdigest()
    unreadable = f"--detector {name}: {path} is not a TorchScript file"
    if not content.startswith(b"PK"):
        raise InputError(unreadable)
    _check_trust(name, digest, trust)
    try:
        with warnings.catch_warnings():
            # The published Inception exists as TorchScript alone, so there is nothing to switch to.
            # Which warning torch gives is its version's: DeprecationWarning, or from 2.14 on FutureWarning.
            for kind in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", kind)
            network = torch.jit.load(io.BytesIO(content), map_location=device).eval()  # type: ignore[no-untyped-call]
            arguments = {argument.name for argument in network.forward.schema.arguments}
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(unreadable) from error
    if "return_features" not in arguments:
        raise InputError(
            f"--detector {name}: {path} takes no return_features; give a TorchScript file that is called as "
            "detector(images, return_features=True), images uint8 [B, 3, H, W], and gives features [B, d]"
        )
    return Detector(name, f"torchscript sha256 {digest}", lambda x: network(x, return_features=True), device)


def _check_trust(name: str, digest: str, trust: bool | str) -> None:
    """Refuses a TorchScript file that the user has not vouched for: loading it is enough to run what it holds."""
    if isinstance(trust, str) and trust.lower() != digest:
        raise InputError(f"--detector {name}: its SHA-256 is {digest}, and the one to trust is {trust}")
    if not trust and digest not in PUBLISHED:
        raise InputError(
            f"--detector {name}: TorchScript runs code, which can change files, and this file is none of the published "
            f"detectors; if you trust who made it, add --trust-detector, or --trust-detector {digest} for this file "
            "alone (trust_detector= in Python)"
        )


def _reason(error: Exception) -> str:
    """Says what went wrong; TorchScript does so last, after its stack."""
    first, _, last = str(error).strip().partition("\n")
    return shorten(last.rpartition("\n")[2] if "TorchScript" in first and last else one_line(error), 200)


def _dinov2(name: str, device: torch.device) -> Detector:
    """Loads DINOv2, for its class token after the last norm, preprocessed as in EDM2: bicubic with antialias to 224."""
    require_extra("transformers", "dinov2")
    from transformers import AutoModel

    source = DINOV2 if name == "dinov2-hf" else name
    try:
        loaded: Any = AutoModel.from_pretrained(source, trust_remote_code=False, output_loading_info=True)
    except Exception as error:  # the readers of configurations and weights raise many kinds
        raise InputError(
            f"--detector {name}: {source} could not be loaded ({shorten(one_line(error), 200)}); without internet give "
            "the path of its folder"
        ) from error
    network, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would draw them at random
        raise InputError(f"--detector {name}: {source} lacks {len(missing)} of its weights, such as {missing[0]}")
    network = network.to(device, torch.float32).eval()
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def extract(images: Tensor) -> Tensor:
        x = F.interpolate(images.float() / 255, (224, 224), mode="bicubic", antialias=True)
        features: Tensor = network(pixel_values=(x - mean) / std).last_hidden_state[:, 0]
        return features

    return Detector(name, f"dinov2-hf sha256 {weights_sha256(network)}", extract, device)
