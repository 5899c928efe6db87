"""Names of devices and versions of packages, for results files."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from restart_sampling.base.errors import InputError, one_line, shorten

if TYPE_CHECKING:
    import torch


def describe_device(device: torch.device) -> str:
    """Names a device, with its chip."""
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def usable_device(device: str | torch.device) -> torch.device:
    """Returns a device of which torch knows that it is there.

    Raises:
        InputError: it does not, or there is no such kind.
    """
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # of a build without CUDA: the second
        reason = shorten(one_line(error).partition(". ")[0], 100)
        raise InputError(f"device '{device}': torch cannot use it here ({reason}); give another or 'cpu'") from error


_version = cache(version)  # which reads files, and a sweep asks at each row


def versions(*more: str) -> dict[str, str]:
    """Names the versions of what makes a result, with more packages where they are used."""
    from restart_sampling import __version__

    return {
        "restart-sampling": __version__,  # also where the package is used from its folder
        **{name: _version(name) for name in ("torch", "numpy", "pillow", *more)},
        "python": platform.python_version(),
    }
