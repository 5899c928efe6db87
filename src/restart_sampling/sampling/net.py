"""`Net`: what samplers know of a network; nets made of functions, and around other nets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from restart_sampling.sampling.process import Process


class Net(Protocol):
    """A denoiser with its process and the levels that it knows.

    `load_model`, `from_eps`, `from_v`, `from_x0`, `from_flow` and `from_edm` make them.
    """

    @property
    def process(self) -> Process:
        """How its states mix data and noise."""

    @property
    def sigma_min(self) -> float:
        """The lowest level above 0 that it knows, in the process's level (sigma, or t of a flow); 0: any."""

    @property
    def sigma_max(self) -> float:
        """The highest level that it knows; inf: there is no limit."""

    @property
    def D(self) -> int | None:  # noqa: N802  the paper's symbol
        """Augmented dimensions of a PFGM++ model; None: its noise is Gaussian."""

    @property
    def device(self) -> torch.device:
        """Where its states are."""

    @property
    def identity(self) -> str | None:
        """What tells it from other nets, its weights above all, so that a run is resumed with the same; None: unknown.

        It may take seconds to find out.
        """

    def round_level(self, level: float) -> float:
        """Returns the nearest level that it knows: `level` itself, but for networks of discrete timesteps."""

    def evaluations(self, level: float) -> int:
        """Counts the evaluations of networks for one image in a call at this level: 1, and more under guidance."""

    def __call__(self, x: Tensor, level: Tensor, /, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the expected data, like x, of states x [B, ...] at levels [B]; keywords go to the network."""


@dataclass(frozen=True)
class ImageTraits:
    """What a net of images may have beside `Net`, and what holds where it has it not.

    `image_traits` reads it of a net, and a net around another has all of it from that one.

    Attributes:
        shape: (C, H, W) of an image.
        channels: C, where another number is an error.
        label_dim: classes that calls take as `class_labels`; 0: none.
        one_hot: makes rows of weights of class labels, and checks them.
        classes: their names.
        default_plan: one that suits the net.
        latents: what its states are latents of; None: they are images.
        model: the network.
        parameters: iterates over its weights.
    """

    shape: Sequence[int] | None = None
    channels: int | None = None
    label_dim: int = 0
    one_hot: Callable[[Tensor | None], Tensor | None] | None = None
    classes: tuple[str, ...] = ()
    default_plan: str | None = None
    latents: str | None = None
    model: object = None
    parameters: Callable[[], Iterator[Tensor]] | None = None


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
