"""What the commands that draw images share: their options, and a model with what it will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import as_one, set_option

if TYPE_CHECKING:
    import torch

    from restart_sampling.generation.generate import Noise
    from restart_sampling.models.checkpoint import Checkpoint
    from restart_sampling.models.denoiser import Denoiser
    from restart_sampling.sampling.plan import Plan

_OPTIONS = (
    set_option,
    click.option("--class", "class_text", metavar="CLASS", help="Class of all images, number or name; default: drawn."),
    click.option("--guidance", default=1.0, show_default=True, help="Classifier-free guidance scale; 1 is none."),
    click.option(
        "--noise",
        type=click.Choice(["counter", "edm"]),
        default="counter",
        show_default=True,
        help="counter: an image depends on its seed alone; edm: the random numbers of EDM's scripts.",
    ),
    click.option("--D", "D", type=int, metavar="D", help="Augmented dimensions of a PFGM++ checkpoint without them."),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Of the network; auto is float16 on cuda, float32 elsewhere.",
    ),
    click.option(
        "--compile", "compiled", is_flag=True, help="Compile the network: a minute at the start, then faster."
    ),
    click.option("--exact", is_flag=True, help="float32 with the same bits at every run on one kind of device."),
)


@dataclass(frozen=True)
class Asked:
    """What the user asks of a model: the values of `sampler_options`, without those of the plan."""

    class_text: str | None
    guidance: float
    noise: Noise
    D: int | None
    dtype: str
    compiled: bool
    exact: bool


sampler_options = as_one("asked", Asked, _OPTIONS)
"""Adds the options of a sampler, which come to the command as `asked`, and --set, as `settings`."""


@dataclass(frozen=True)
class Source:
    """A checkpoint that was read, but not built, with what is asked of it.

    Attributes:
        name: as the user wrote it.
        checkpoint: what the file holds.
        asked: of it.
        label: class of all images; None: drawn for each seed.
        dtype: name of the network's dtype.
    """

    name: str
    checkpoint: Checkpoint
    asked: Asked
    label: int | None
    dtype: str

    def build(self, device: torch.device) -> Denoiser:
        """The model, ready to draw images on the device."""
        import torch

        from restart_sampling.models.fast import fast

        model = self.checkpoint.build(self.asked.D).to(device)
        return fast(model, getattr(torch, self.dtype), compiled=self.asked.compiled)

    def run(self, plan: Plan, seeds_text: str) -> dict[str, Any]:
        """What defines the images, for manifests and results."""
        return {
            "model_sha256": self.checkpoint.sha256,
            "D": self.checkpoint.D if self.asked.D is None else self.asked.D,
            "plan": str(plan),
            "seeds": seeds_text,
            "class": self.label,
            "guidance": self.asked.guidance,
            "noise": self.asked.noise,
            "arithmetic": self.arithmetic,
        }

    @property
    def options(self) -> dict[str, Any]:
        """What is asked, as arguments of `generate` and `sampler_batches`."""
        asked = self.asked
        return {"classes": self.label, "guidance": asked.guidance, "noise": asked.noise, "exact": asked.exact}

    @property
    def arithmetic(self) -> str:
        """Of the network, in words."""
        return self.dtype + ", compiled" * self.asked.compiled + ", exact" * self.asked.exact

    def describe(self) -> str:
        """For the user, before a run."""
        return f"{self.name} ({self.checkpoint.class_name}, sha256 {self.checkpoint.sha256[:12]})"


def read_source(name: str, asked: Asked, device: torch.device) -> Source:
    """Finds and reads a checkpoint, and checks what is asked of it.

    Raises:
        InputError: the source is unknown or cannot be read, the class is not one of its, or the arithmetic cannot be.
    """
    dtype = _dtype(asked, device)
    from restart_sampling.models.checkpoint import read_checkpoint
    from restart_sampling.models.resolve import resolve

    checkpoint = read_checkpoint(resolve(name))
    label = None if asked.class_text is None else _class_number(asked.class_text, checkpoint)
    return Source(name, checkpoint, asked, label, dtype)


def _dtype(asked: Asked, device: torch.device) -> str:
    if asked.exact and (asked.dtype not in ("auto", "float32") or asked.compiled):
        raise InputError("--exact is for float32 as it is; leave --dtype and --compile out")
    if asked.compiled and device.type != "cuda":
        raise InputError(f"--compile is for NVIDIA devices, and this is {device.type}; leave it out")
    if asked.dtype != "auto":
        return asked.dtype
    return "float16" if device.type == "cuda" and not asked.exact else "float32"


def _class_number(text: str, checkpoint: Checkpoint) -> int:
    """A class by number, or by name where the checkpoint has names."""
    if text in checkpoint.classes:
        return checkpoint.classes.index(text)
    try:
        return int(text)
    except ValueError:
        names = f", or one of {', '.join(checkpoint.classes)}" if checkpoint.classes else ""
        raise InputError(f"--class {text}: give the number of a class{names}") from None


def versions(*more: str) -> dict[str, str]:
    """Of what made a result, with more packages where they were used."""
    import platform
    from importlib.metadata import version

    from restart_sampling import __version__

    return {
        "restart-sampling": __version__,  # also where the package is used from its folder
        **{name: version(name) for name in ("torch", "numpy", "pillow", *more)},
        "python": platform.python_version(),
    }
