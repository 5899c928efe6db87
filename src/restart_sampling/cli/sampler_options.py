"""Options shared by the commands that draw images with a plan, and the model they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import as_one, dtype_option, set_option

if TYPE_CHECKING:
    import torch

    from restart_sampling.base.ranks import Ranks
    from restart_sampling.comparison.rows import Row
    from restart_sampling.generation.net_drawing import NetDrawing, NoiseKind
    from restart_sampling.sampling.net import Net
    from restart_sampling.sampling.plan import Plan

MODEL_HELP = (
    "A bundled or published name, hf://owner/name, URL or file; or file.py:make, a function of yours, which is run."
)
_NET_OPTIONS = (
    click.option("--class", "class_text", metavar="CLASS", help="Class of all images, number or name; default: drawn."),
    click.option(
        "--guidance",
        type=float,
        help="Classifier-free guidance scale; 1 is none.  [default: that of the plan's file, where it has one, else 1]",
    ),
    click.option(
        "--noise",
        type=click.Choice(["counter", "edm"]),
        default="counter",
        show_default=True,
        help="counter: an image depends on its seed alone; edm: the random numbers of EDM's scripts.",
    ),
    click.option("--D", "D", type=int, metavar="D", help="Augmented dimensions of a PFGM++ checkpoint without them."),
    dtype_option,
    click.option(
        "--compile",
        "compiled",
        flag_value="--compile",
        help="Compile the network, a minute at the start; default: on cuda where it pays (not for EDM's U-Nets).",
    ),
    click.option("--no-compile", "compiled", flag_value="--no-compile", help="Never compile it."),
    click.option(
        "--autotune",
        "compiled",
        flag_value="--autotune",
        help="Compile it with the fastest kernels, which are searched for minutes, once.",
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
        options: those of `NetDrawing`, but for the plan.
        may_compile: whether the user leaves it to us.
        any_model: whether it may have a plan that was found for another.
    """

    name: str
    net: Net
    description: str
    options: dict[str, Any]
    may_compile: bool
    any_model: bool = False

    def drawing(self, plan: Plan) -> NetDrawing:
        """Makes a drawing of what the user asks, with a plan.

        Raises:
            InputError: it does not fit together.
        """
        from restart_sampling.generation.net_drawing import NetDrawing

        plan = replace(plan, made_for=None) if self.any_model else plan
        return NetDrawing(self.net, plan, **self.options)

    def settle(
        self, drawing: NetDrawing, ranks: Ranks, *, calls: float = 0.0, seconds: float = 0.0, dry_run: bool = False
    ) -> dict[str, str]:
        """Settles what the user left to us, as `generation.speed.settle` does; returns a row for `print_settings`.

        A dry run compiles nothing.
        """
        from restart_sampling.generation.speed import settle

        may_compile = self.may_compile and not dry_run
        said = settle(drawing, ranks, may_compile=may_compile, calls=calls, seconds=seconds)
        return {"network": said} if said else {}

    def settle_rows(self, rows: Sequence[Row], there: Mapping[str, Any], ranks: Ranks, dry_run: bool) -> dict[str, str]:
        """Does the same for the rows of a comparison, without those that the first process finds there."""
        finished = ranks.gather(list(there))[0]
        calls = sum(row.cost * row.images for row in rows if row.name not in finished)
        return self.settle(cast("NetDrawing", rows[0].drawing), ranks, calls=calls, dry_run=dry_run)


def pick_plan(text: str | None, settings: Iterable[str], model: str) -> Plan:
    """Reads the plan that the user wrote, or the model's default, with settings over it.

    Raises:
        InputError: not a plan, or none was given and the model has no default.
    """
    from restart_sampling.models.resolve import default_plan_of
    from restart_sampling.sampling.plan import Plan

    text = text or (None if is_net_file(model) else default_plan_of(model))
    if text is None:
        raise InputError(
            f"--plan is missing: a plan suits a model, and '{model}' has no default; "
            f"write one such as '18 [3,2,0.06,0.30]', or a preset ('restart-sampling plan --list' shows all)"
        )
    plan = Plan.parse(text).set(*settings)
    if not is_net_file(model):  # whose levels may be others, such as those of a flow
        plan.path()  # what can be wrong with it without the model comes before the model
    return plan


def preset_notes(plans: Iterable[Plan], model: str) -> list[str]:
    """Says what has to be known of plans that are presets for other models than this, a sentence for each of these."""
    from restart_sampling.sampling.presets import PRESETS, suits

    strange = {PRESETS[plan.preset].checkpoint for plan in plans if plan.preset}
    return [
        f"a preset here was made for {checkpoint}, and this model is {model}; a plan that helps one network can harm "
        f"another ('tune' finds one that suits)"
        for checkpoint in sorted(strange)
        if not suits(checkpoint, model)
    ]


def idle_notes(drawings: Iterable[NetDrawing]) -> list[str]:
    """Says which settings of plans do nothing, a sentence for each plan."""
    from restart_sampling.sampling.net_plan import levels_of

    return [
        f"the plan '{plan}' draws the same without {' or '.join(idle)}"
        for plan, net in ((each.plan, each.net) for each in drawings)
        if (idle := plan.idle(levels_of(net)))
    ]


@dataclass(frozen=True)
class SamplerOptions:
    """What the user asks of a model: the values of `sampler_options`, without those of the plan."""

    class_text: str | None
    guidance: float | None
    noise: NoiseKind
    D: int | None
    dtype: str
    compiled: Literal["--compile", "--no-compile", "--autotune"] | None
    exact: bool
    any_model: bool = False

    def load(self, name: str, device: torch.device, batch: int | None, shown: bool = True) -> NamedNet:
        """Finds, reads and builds a model, and makes it fast on the device.

        Args:
            name: as the user wrote it.
            device: where to compute.
            batch: images at a time; None: that is left to us.
            shown: whether this process speaks to the user.

        Raises:
            InputError: the model is unknown or cannot be read, or what is asked is not for it.
        """
        from restart_sampling.generation.pace import own_pace

        if device.type == "cuda":
            from restart_sampling.models.fast import start_device

            start_device(device)
        options: dict[str, Any] = {"guidance": self.guidance, "noise": self.noise, "exact": self.exact}
        options |= {"batch": batch, "pace": own_pace(batch, self.exact)}
        dtype = self._dtype(device)
        classes: tuple[str, ...] = ()
        if is_net_file(name):
            given = ("--D" if self.D is not None else None, "--dtype" if self.dtype != "auto" else None, self.compiled)
            for option in filter(None, given):
                raise InputError(f"{option} is for checkpoints; the function in {name} decides that itself")
            net, description = open_net(name, device, shown), name
        else:
            net, description, classes = self._load_checkpoint(name, device, dtype, shown)
        if self.class_text is not None:
            options["classes"] = _class_number(self.class_text, classes)
        may_compile = self.compiled is None and not self.exact and not is_net_file(name)
        return NamedNet(name, net, description, options, may_compile, self.any_model)

    def _load_checkpoint(
        self, name: str, device: torch.device, dtype: str, shown: bool
    ) -> tuple[Net, str, tuple[str, ...]]:
        """Builds a model and makes it fast; returns it with its description and the names of its classes."""
        from restart_sampling.models.read_checkpoint import read_checkpoint
        from restart_sampling.models.resolve import resolve

        checkpoint = read_checkpoint(resolve(name))
        model = checkpoint.build(self.D, device)
        if shown and model.weights:
            click.echo(f"--model {name}: its weights are {model.weights}", err=True)
        if dtype != "float32" or self._compiling:
            import torch

            from restart_sampling.models.fast import fast

            fast(model, getattr(torch, dtype), compiled=self._compiling, autotuned=self.compiled == "--autotune")
        return model, f"{name} ({checkpoint.class_name}, sha256 {checkpoint.sha256[:12]})", checkpoint.classes

    @property
    def _compiling(self) -> bool:
        return self.compiled in ("--compile", "--autotune")

    def _dtype(self, device: torch.device) -> str:
        if self.exact and (self.dtype not in ("auto", "float32") or self._compiling):
            raise InputError("--exact is for float32 as it is; leave --dtype and --compile out")
        if self._compiling and device.type != "cuda":
            raise InputError(f"{self.compiled} is for NVIDIA devices, and this is {device.type}; leave it out")
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
    """Opens a model as it is, or what the function in a user's file makes, after a word about that.

    Raises:
        InputError: there is no such model, or the file fails.
    """
    import torch

    from restart_sampling.models.read_checkpoint import load_model
    from restart_sampling.models.user_file import load_net_file

    device = device or torch.device("cpu")
    if not is_net_file(name):
        return load_model(name, device=device)
    if shown and Path(name.partition(".py:")[0] + ".py").is_file():
        click.echo(f"--model {name}: the code in this file is run", err=True)
    return load_net_file(name, device)


def is_net_file(name: str) -> bool:
    """Tells whether a model is what a function in a Python file makes: `file.py:make`."""
    return re.fullmatch(r"(?!hf://).+\.py(:\w+)?", name) is not None


def _class_number(text: str, classes: Sequence[str]) -> int:
    """Finds a class by number, or by name where the model has names.

    Raises:
        InputError: there is no such name, several classes have it, or it is the number of another class.
    """
    prefix, _, rest = text.partition("=")
    kind, value = (prefix, rest) if prefix in ("name", "number") and text not in classes else ("", text)
    named = [place for place, each in enumerate(classes) if each == value and kind != "number"]
    if len(named) > 1:
        raise InputError(f"--class {text} is the name of classes {', '.join(map(str, named))}; write number={named[0]}")
    name = named[0] if named else None
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
