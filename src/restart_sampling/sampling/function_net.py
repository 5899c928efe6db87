"""`FunctionNet`: a net made of functions, by itself or around another net."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from restart_sampling.sampling.net import ImageTraits, Net
from restart_sampling.sampling.process import Process


@dataclass(frozen=True)
class FunctionNet:
    """A net made of functions; for its attributes see `Net`.

    Its `ImageTraits` are those of `inner`.

    Attributes:
        denoise: denoise(x, level, **kwargs) -> x0.
        identify: returns the net's identity.
        label_dim: classes that `denoise` takes as `class_labels`; 0: none.
        inner: the net that this one is around; None: there is none.
    """

    denoise: Callable[..., Tensor]
    process: Process
    sigma_min: float
    sigma_max: float
    device: torch.device
    D: int | None = None
    identify: Callable[[], str | None] = lambda: None
    round_level: Callable[[float], float] = lambda level: level
    evaluations: Callable[[float], int] = lambda level: 1
    label_dim: int = 0
    inner: Net | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ImageTraits.__annotations__ and self.inner is not None:
            return getattr(self.inner, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @property
    def identity(self) -> str | None:
        """What `identify` returns."""
        return self.identify()

    def __call__(self, x: Tensor, level: Tensor, /, **kwargs: Any) -> Tensor:
        """Calls `denoise`."""
        return self.denoise(x, level, **kwargs)


def around(
    net: Net, denoise: Callable[..., Tensor], identify: Callable[[str], str | None], **changes: Any
) -> FunctionNet:
    """Makes a net around another, like it but for its denoiser, its identity, and the attributes in `changes`.

    Drawings of it have the shape, the classes and the default plan of the inner one.

    Args:
        net: the inner one.
        denoise: denoise(x, level, **kwargs) -> x0.
        identify: makes its identity of the inner one's, where that is known.
        **changes: attributes of `FunctionNet`.
    """

    def identity() -> str | None:
        inner = net.identity
        return inner and identify(inner)

    kept = {entry.name: getattr(net, entry.name) for entry in fields(FunctionNet) if hasattr(net, entry.name)}
    return FunctionNet(**{**kept, "inner": net, **changes, "denoise": denoise, "identify": identity})
