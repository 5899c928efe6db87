"""Options shared by the commands that draw images with a plan, and the model they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import as_one, set_option

if TYPE_CHECKING:
    import torch

    from restart_sampling.generation.drawing import NetDrawing, NoiseKind
    from restart_sampling.sampling.net import Net
    from restart_sampling.sampling.plan import Plan

MODEL_HELP = "A bundled or published name, URL or file; or file.py:make, a function of yours, which is run."
_NET_OPTIONS = (
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
class NamedNet:
    """A net with what the user asks of it.

    Attributes:
        name: as the user wrote it.
        net: ready to draw images.
        description: of the net, for the user.
        options: those of `NetDrawing`, but for the plan and the batch.
        any_model: whether it may have a plan that was found for another.
    """

    name: str
    net: Net
    description: str
    options: dict[str, Any]
    any_model: bool = False

    def drawing(self, plan: Plan, batch: int) -> NetDrawing:
        """What the user asks, with a plan.

        Raises:
            InputError: it does not fit together.
        """
        from restart_sampling.generation.drawing import NetDrawing

        plan = replace(plan, made_for=None) if self.any_model else plan
        return NetDrawing(self.net, plan, batch=batch, **self.options)


@dataclass(frozen=True)
class SamplerOptions:
    """What the user asks of a model: the values of `sampler_options`, without those of the plan."""

    class_text: str | None
    guidance: float
    noise: NoiseKind
    D: int | None
    dtype: str
    compiled: bool
    exact: bool
    any_model: bool = False

    def load(self, name: str, device: torch.device, shown: bool = True) -> NamedNet:
        """Finds, reads and builds a model, and makes it fast on the device.

        Args:
            name: as the user wrote it.
            device: where to compute.
            shown: whether this process speaks to the user.

        Raises:
            InputError: the model is unknown or cannot be read, or what is asked is not for it.
        """
        options: dict[str, Any] = {"guidance": self.guidance, "noise": self.noise, "exact": self.exact}
        dtype = self._dtype(device)
        classes: Sequence[str] = ()

        from restart_sampling.models.checkpoint import read_checkpoint
        from restart_sampling.models.resolve import resolve

        if is_net_file(name):
            given = {"--D": self.D is not None, "--dtype": self.dtype != "auto", "--compile": self.compiled}
            for option in [option for option, is_given in given.items() if is_given]:
                raise InputError(f"{option} is for checkpoints; the function in {name} decides that itself")
            net, description = open_net(name, device, shown), name
        else:
            checkpoint = read_checkpoint(resolve(name))
            classes = checkpoint.classes
            net = model = checkpoint.build(self.D).to(device)
            if shown and model.weights:
                click.echo(f"--model {name}: its weights are {model.weights}", err=True)
            if dtype != "float32" or self.compiled:
                import torch

                from restart_sampling.models.fast import fast

                fast(model, getattr(torch, dtype), compiled=self.compiled)
            description = f"{name} ({checkpoint.class_name}, sha256 {checkpoint.sha256[:12]})"
        if self.class_text is not None:
            options["classes"] = _class_number(self.class_text, classes)
        return NamedNet(name, net, description, options, self.any_model)

    def _dtype(self, device: torch.device) -> str:
        if self.exact and (self.dtype not in ("auto", "float32") or self.compiled):
            raise InputError("--exact is for float32 as it is; leave --dtype and --compile out")
        if self.compiled and device.type != "cuda":
            raise InputError(f"--compile is for NVIDIA devices, and this is {device.type}; leave it out")
        if self.dtype != "auto":
            return self.dtype
        return "float16" if device.type == "cuda" and not self.exact else "float32"


any_model_option = click.option(
    "--any-model", is_flag=True, help="Use the .json of a plan that 'tune' found for another model."
)
net_options = as_one("asked", SamplerOptions, _NET_OPTIONS)
"""Adds the options of a model, which come to the command as `asked`."""
sampler_options = as_one("asked", SamplerOptions, (set_option, *_NET_OPTIONS, any_model_option))
"""Adds the options of a sampler, which come to the command as `asked`, and --set, as `settings`."""


def open_net(name: str, device: torch.device | None = None, shown: bool = True) -> Net:
    """A model as it is, or what the function in a user's file makes, after a word about that.

    Raises:
        InputError: there is no such model, or the file fails.
    """
    import torch

    from restart_sampling.models.checkpoint import load_model
    from restart_sampling.models.user_file import load_net_file

    device = device or torch.device("cpu")
    if not is_net_file(name):
        return load_model(name, device=device)
    if shown and Path(name.partition(".py:")[0] + ".py").is_file():
        click.echo(f"--model {name}: the code in this file is run", err=True)
    return load_net_file(name, device)


def is_net_file(name: str) -> bool:
    """Whether a model is what a function in a Python file makes: `file.py:make`."""
    return re.fullmatch(r".+\.py(:\w+)?", name) is not None


def _class_number(text: str, classes: Sequence[str]) -> int:
    """A class by number, or by name where the model has names.

    Raises:
        InputError: there is no such name, or it is the number of another class.
    """
    prefix, _, rest = text.partition("=")
    kind, value = (prefix, rest) if prefix in ("name", "number") and text not in classes else ("", text)
    name = classes.index(value) if value in classes and kind != "number" else None
    number = int(value) if re.fullmatch(r"[+-]?[0-9]+", value) and kind != "name" else None
    if name is not None and number is not None and name != number < len(classes):
        raise InputError(
            f"--class {text} is the number of class '{classes[number]}' and the name of class {name}; write "
            f"number={text} or name={text}"
        )
    found = number if name is None else name
    if found is None:
        names = f", or one of {', '.join(classes)}" if classes else ""
        raise InputError(f"--class {text}: give the number of a class{names}")
    return found
