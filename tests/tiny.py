"""Small stand-ins: a detector with NVIDIA's call convention, and sets of images."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class TinyDetector(torch.nn.Module):
    """Six features of pooled pixels, with a product so that the mean does not say it all."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.register_buffer("mix", torch.randn(12, width, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        x = torch.nn.functional.adaptive_avg_pool2d((x.float() - 128) / 128, 2).flatten(1) @ self.mix
        return x * torch.tanh(x) if return_features else x[:, :1]


def detector_file(path: Path, width: int = 6) -> Path:
    return torchscript_file(path, TinyDetector(width))


def torchscript_file(path: Path, network: torch.nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    return path


def pictures(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    """uint8 [count, 3, size, size], smooth enough that pooling keeps something."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 3, 2, 2))
    return (coarse.repeat(size // 2, axis=2).repeat(size // 2, axis=3)).astype(np.uint8)


def image_folder(folder: Path, images: np.ndarray, classes: int = 0) -> Path:
    """PNGs, in folders of classes if there are any."""
    for index, image in enumerate(images):
        name = f"{index % classes}/{index:04d}.png" if classes else f"{index:04d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
    return folder
