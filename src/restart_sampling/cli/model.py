"""`restart-sampling model`: what a model file holds, its conversion to safetensors, and its way to the hub."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Group
from restart_sampling.cli.options import device_option, pick_device, print_json, print_table, set_option
from restart_sampling.cli.sampler_options import pick_plan

if TYPE_CHECKING:
    from restart_sampling.models.checkpoint import Checkpoint


@click.group(cls=Group)
def model() -> None:
    """Look into model files, convert them, share them. Nothing in a file is ever run."""


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
def list_models(as_json: bool) -> None:
    """List the models that have names, and say where each is."""
    from restart_sampling.base.download import cache_folder
    from restart_sampling.models.by_name import BUNDLED, BY_HAND, PUBLISHED
    from restart_sampling.models.default_plans import DEFAULT_PLANS

    def where(file_name: str, otherwise: str) -> str:
        path = cache_folder() / file_name
        return f"here: {path}" if path.is_file() else otherwise

    places = {
        **dict.fromkeys(BUNDLED, "in the package"),
        **{name: where(f"{name}.pkl", f"downloaded when it is used: {url}") for name, url in PUBLISHED.items()},
        **{name: where(file, f"to be fetched by hand: {page}") for name, (page, file) in BY_HAND.items()},
    }
    if as_json:
        models = [{"name": name, "where": at, "plan": DEFAULT_PLANS.get(name)} for name, at in places.items()]
        print_json({"models": models})
        return
    plans = [DEFAULT_PLANS.get(name, "-") for name in places]
    print_table({"model": list(places), "default plan": plans, "where": list(places.values())})
    click.echo("Also: hf://owner/name, an https:// URL, the path of a model file or folder, or file.py:make of yours.")


@model.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
def inspect(file: str, as_json: bool) -> None:
    """Print what the model in FILE holds.

    FILE is a path, a name such as cifar10-small, hf://owner/name, or an https:// URL.
    """
    from restart_sampling.models.edm_pickle import globals_in
    from restart_sampling.models.read_checkpoint import read_checkpoint
    from restart_sampling.models.resolve import resolve

    path = resolve(file)
    try:
        facts = _facts(read_checkpoint(path))
    except InputError:
        _print({"file": str(path), "globals": globals_in(path), "code": "not run"}, as_json)
        raise
    _print(facts, as_json)


@model.command()
@click.argument("file")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--int8", is_flag=True, help="Round the weights to 8 bits: half of float16's size.")
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
def convert(file: str, out: Path, int8: bool, force: bool) -> None:
    """Write the model in FILE to OUT, a .safetensors file. FILE is a path, name or URL."""
    from restart_sampling.base.lock import alone
    from restart_sampling.models.read_checkpoint import read_checkpoint
    from restart_sampling.models.resolve import resolve
    from restart_sampling.models.write_checkpoint import write_safetensors

    if out.suffix != ".safetensors":
        raise InputError(f"OUT is {out}, and has to end in .safetensors")
    checkpoint = read_checkpoint(resolve(file))
    model = checkpoint.build()  # only what can be loaded is worth writing
    with alone(out, "OUT"):
        write_safetensors(checkpoint, out, int8=int8, overwrite=force)
    weights = f", whose weights are {model.weights}" if model.weights else ""
    click.echo(
        f"{out}: {checkpoint.class_name}, {counted(len(checkpoint.state), 'tensor')} from {checkpoint.path}{weights}"
    )


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("out", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--license",
    "license_text",
    required=True,
    metavar="LICENSE",
    help="An identifier of the hub, such as apache-2.0, or the path of a text.",
)
@click.option("--plan", "plan_text", metavar="PLAN", help="That suits the model; see the command 'plan'.")
@set_option
@click.option("--seeds", "seeds_text", default="0-29", show_default=True, metavar="SEEDS", help="Of the samples.")
@click.option("--to", "target", metavar="OWNER/NAME", help="Upload FOLDER to this repository.")
@click.option("--private", is_flag=True, help="Only you are to see the repository.")
@device_option
def push(
    name: str,
    out: Path,
    license_text: str,
    plan_text: str | None,
    settings: tuple[str, ...],
    seeds_text: str,
    target: str | None,
    private: bool,
    device: str,
) -> None:
    """Make FOLDER a repository of MODEL for the Hugging Face hub. With --to it is uploaded.

    It has the model as safetensors, a card with its metadata, the plan, the licence and samples. An upload needs a
    token: 'hf auth login', or HF_TOKEN. To look at the folder first leave --to out, then 'hf upload OWNER/NAME FOLDER'.

    \b
      restart-sampling model push run/model.safetensors flowers --plan "18 [3,2,1.09,3.2]" \\
          --license apache-2.0 --to me/flowers
    """
    from restart_sampling.generation.net_drawing import NetDrawing
    from restart_sampling.generation.repository import COLUMNS, Licence, write_repository
    from restart_sampling.generation.seeds import parse_seeds
    from restart_sampling.models.hub import check_upload, upload
    from restart_sampling.models.read_checkpoint import read_checkpoint
    from restart_sampling.models.resolve import resolve

    licence, seeds = Licence(license_text), parse_seeds(seeds_text)
    if private and target is None:
        raise InputError("--private is for an upload; give --to OWNER/NAME as well")
    if target is not None:
        check_upload(target)
    plan = pick_plan(plan_text, settings, name)
    if plan.guidance is not None:
        raise InputError(
            f"--plan {plan_text}: the plan goes with guidance {plan.guidance:g}, and the plan of a repository has no "
            f"scale; give the text of a plan"
        )
    checkpoint = read_checkpoint(resolve(name))
    net = checkpoint.build(device=pick_device(device))
    classes = {seed: place % COLUMNS % net.label_dim for place, seed in enumerate(seeds)} if net.label_dim else None
    drawing = NetDrawing(net, plan, classes=classes)
    if drawing.note:
        click.echo(f"note: {drawing.note}", err=True)
    write_repository(checkpoint, drawing, seeds, licence, out, target or f"OWNER/{out.name}")
    click.echo(f"{out}: {checkpoint.class_name}, plan {plan}, samples of seeds {seeds_text}", err=True)
    if target is not None:
        click.echo(upload(out, target, private))


def _facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    kwargs = checkpoint.init_kwargs
    code = None
    if checkpoint.source_sha256 is not None:
        code = f"{'EDM' if checkpoint.known_source else 'unknown'}, not run"
    return {
        "file": str(checkpoint.path),
        "format": checkpoint.format,
        "class": checkpoint.class_name,
        "parameters": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "weights": sorted(
            {
                "int8 with scales" if name in checkpoint.quantized else str(tensor.dtype).removeprefix("torch.")
                for name, tensor in checkpoint.state.items()
            }
        ),
        "resolution": kwargs.get("img_resolution"),
        "channels": kwargs.get("img_channels"),
        "labels": kwargs.get("label_dim", 0),
        "D": checkpoint.D,
        "sigma_min": checkpoint.sigma_min,
        "sigma_max": checkpoint.sigma_max,
        "classes": list(checkpoint.classes),
        "init_kwargs": kwargs,
        "metadata": checkpoint.metadata,
        "sha256": checkpoint.sha256,
        "code": code,
        "code_sha256": checkpoint.source_sha256,
    }


def _print(facts: dict[str, Any], as_json: bool) -> None:
    from restart_sampling.models.write_checkpoint import jsonable

    if as_json:
        click.echo(json.dumps(jsonable(facts), allow_nan=False))
        return
    for name, value in facts.items():
        match value:
            case None | []:
                shown = "-"
            case dict():
                shown = json.dumps(jsonable(value))
            case list():
                shown = ", ".join(shorten(str(item)) for item in value)
            case int() if name == "parameters":
                shown = f"{value / 1e6:.1f} M"
            case _:
                shown = shorten(str(value), 400)
        click.echo(f"{name:13}{shown}")
