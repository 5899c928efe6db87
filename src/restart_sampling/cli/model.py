"""`restart-sampling model`: what a model file holds, and its conversion to safetensors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError, shorten

if TYPE_CHECKING:
    from restart_sampling.models.checkpoint import Checkpoint


@click.group()
def model() -> None:
    """Look into model files, and convert them. Nothing in a file is ever run."""


@model.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
def inspect(file: str, as_json: bool) -> None:
    """Print what FILE holds: a path, a name such as cifar10-small, or an https:// URL."""
    from restart_sampling.models.checkpoint import read_checkpoint
    from restart_sampling.models.edm_pickle import globals_in
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
    """Write the model in FILE (a path, name or URL) to OUT, a .safetensors file."""
    from restart_sampling.models.checkpoint import read_checkpoint, write_safetensors
    from restart_sampling.models.resolve import resolve

    if out.suffix != ".safetensors":
        raise InputError(f"OUT is {out}, and has to end in .safetensors")
    checkpoint = read_checkpoint(resolve(file))
    model = checkpoint.build()  # only what can be loaded is worth writing
    write_safetensors(checkpoint, out, int8=int8, overwrite=force)
    weights = f", whose weights are {model.weights}" if model.weights else ""
    click.echo(f"{out}: {checkpoint.class_name}, {len(checkpoint.state)} tensors from {checkpoint.path}{weights}")


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
        "weights": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.values()}),
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
    from restart_sampling.models.checkpoint import jsonable

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
