"""Names of devices and versions of packages, for results files."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def describe_device(device: torch.device) -> str:
    """The device with the name of its chip."""
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def versions(*more: str) -> dict[str, str]:
    """Of what makes a result, with more packages where they are used."""
    from restart_sampling import __version__

    return {
        "restart-sampling": __version__,  # also where the package is used from its folder
        **{name: version(name) for name in ("torch", "numpy", "pillow", *more)},
        "python": platform.python_version(),
    }
