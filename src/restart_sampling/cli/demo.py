"""`restart-sampling demo`: three samplers side by side."""

from __future__ import annotations

from pathlib import Path

import click

from restart_sampling.base.errors import require_extra
from restart_sampling.base.files import check_writable
from restart_sampling.base.machine import describe_device
from restart_sampling.cli import Command
from restart_sampling.cli.options import (
    check_suffix,
    device_option,
    drawn_batch_option,
    json_option,
    pick_device,
    print_json,
    print_settings,
    print_table,
)
from restart_sampling.cli.progress import ProgressBar
from restart_sampling.models.default_plans import DEFAULT_PLANS

# All of 40 evaluations (Heun's method: 39). SDE and Restart are the finalists of a search by `tune` for
# cifar10-small.
SAMPLERS = {
    "ODE": "20",
    "SDE": "20 churn=50.65 s_min=0.04512 s_max=80 solver=midpoint grid=time sigma_min=0.002372 sigma_max=73.66",
    "Restart": "cifar10-small-tuned-40",
}


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo.png"),
    show_default=True,
    help="Picture.",
)
@click.option("--seeds", "seeds_text", default="0-9", show_default=True, metavar="SEEDS", help="One column each.")
@click.option("--model", "name", type=click.Choice(list(DEFAULT_PLANS)), default="cifar10-small", show_default=True)
@drawn_batch_option
@device_option
@json_option
def demo(out: Path, seeds_text: str, name: str, batch: int | None, device: str, as_json: bool) -> None:
    """Draw the same seeds with ODE, SDE and Restart at equal cost.

    Makes one picture and one table. Uses a model that comes with the package; where it has classes, column k is
    class k.
    """
    from restart_sampling.generation.seeds import parse_seeds

    require_extra("matplotlib", "figures")
    check_suffix(out, "picture", ".png")
    check_writable(out)
    seeds = parse_seeds(seeds_text)
    chip = pick_device(device)

    import torch

    from restart_sampling.base.numerics import multiplies_bfloat16
    from restart_sampling.generation.net_drawing import NetDrawing
    from restart_sampling.models.fast import fast
    from restart_sampling.models.read_checkpoint import read_checkpoint
    from restart_sampling.models.resolve import resolve
    from restart_sampling.pictures.side_by_side import draw_sampled, plot_side_by_side

    checkpoint = read_checkpoint(resolve(name))
    model = checkpoint.build(device=chip)
    # A picture bears what bfloat16 rounds, half a grey level, and is then there in two thirds of the time.
    dtype = torch.bfloat16 if multiplies_bfloat16(chip) else torch.float32
    fast(model, dtype)
    print_settings(
        {
            "model": name,
            "samplers": ", ".join(SAMPLERS),
            "images": f"{len(seeds)} a sampler (seeds {seeds_text})",
            "device": f"{describe_device(chip)}, network in {str(dtype)[6:]}",
            "out": out,
        }
    )
    classes = {seed: column % model.label_dim for column, seed in enumerate(seeds)} if model.label_dim else None
    drawings = {name: NetDrawing(model, plan, batch=batch, classes=classes) for name, plan in SAMPLERS.items()}
    with ProgressBar("images", len(drawings) * len(seeds)) as advance:
        samplers = [draw_sampled(sampler, drawing, seeds, advance) for sampler, drawing in drawings.items()]
    columns = [f"seed {seed}" for seed in seeds]
    if checkpoint.classes:
        columns = [checkpoint.classes[column % len(checkpoint.classes)] for column in range(len(seeds))]
    plot_side_by_side(samplers, columns, out)
    print_table(
        {
            "sampler": [each.name for each in samplers],
            "plan": [str(drawings[each.name].plan) for each in samplers],
            "NFE": [str(each.nfe) for each in samplers],
            "seconds": [f"{each.seconds:.1f}" for each in samplers],
            "images/s": [f"{len(seeds) / each.seconds:.2f}" for each in samplers],
        },
        err=as_json,
    )
    click.echo(f"picture: {out}", err=True)
    if as_json:
        rows = [
            {
                "name": each.name,
                "plan": str(drawings[each.name].plan),
                "nfe": each.nfe,
                "seconds": round(each.seconds, 3),
            }
            for each in samplers
        ]
        print_json({"samplers": rows, "images": len(seeds), "out": str(out)})
