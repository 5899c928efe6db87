"""EDM2's snapshots, of training and of post-hoc averages: EDM's pickles with another class and other names."""

from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")

FORMAT, CLASS = "edm2-pickle", "Precond"
LATENTS = "the VAE stabilityai/sd-vae-ft-mse"  # of its models of ImageNet at 512 pixels, which have 4 channels


def renamed(table: Mapping[str, Value]) -> dict[str, Value]:
    """Names a network's tensors or numbers as ours; its estimate of the uncertainty, for training, is left out."""
    kept = {key: value for key, value in table.items() if not key.startswith("logvar_")}
    return {f"model.{key.removeprefix('unet.')}" if key.startswith("unet.") else key: kept[key] for key in kept}


def arguments(init_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `EDM2Precond` of those of EDM2's class."""
    return {key: value for key, value in init_kwargs.items() if key != "logvar_channels"}
