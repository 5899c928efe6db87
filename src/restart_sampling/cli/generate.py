"""`restart-sampling generate`: images of seeds, to a folder or a zip."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.cli.options import (
    Progress,
    batch_option,
    describe_device,
    device_option,
    json_option,
    pick_device,
    pick_plan,
    print_json,
    print_settings,
)
from restart_sampling.cli.sampler import Asked, read_source, sampler_options, versions

if TYPE_CHECKING:
    from restart_sampling.generation.generate import Noise


@click.command()
@click.option("--model", "name", required=True, metavar="MODEL", help="cifar10-small, a published name, URL or file.")
@click.option("--plan", "plan_text", metavar="PLAN", help="A plan or a preset; see the command 'plan'.")
@click.option(
    "--seeds", "seeds_text", required=True, metavar="SEEDS", help="Such as 0-63 or 1,5,10-19; one image each."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder, or a file that ends in .zip.")
@batch_option
@sampler_options
@device_option
@json_option
def generate(
    name: str,
    plan_text: str | None,
    settings: tuple[str, ...],
    seeds_text: str,
    out: Path,
    batch: int,
    class_text: str | None,
    guidance: float,
    noise: Noise,
    D: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Draw one image for each seed.

    \b
      restart-sampling generate --model cifar10-small --seeds 0-63 --out images
      restart-sampling generate --model edm-imagenet-64x64-cond-adm --plan imagenet64-edm-203 \\
          --seeds 0-49999 --out imagenet.zip
    """
    from restart_sampling.generation.seeds import parse_seeds

    # What can be wrong without the model comes before it.
    plan = pick_plan(plan_text, settings, name)
    plan.path()
    seeds = parse_seeds(seeds_text)
    chip = pick_device(device)

    from restart_sampling.generation.generate import generate as generate_batches
    from restart_sampling.generation.generate import level_range, network_evaluations
    from restart_sampling.images.writers import check_destination, open_writer
    from restart_sampling.sampling.noise import state_dtype

    source = read_source(name, Asked(class_text, guidance, noise, D))
    run = source.run(plan, seeds_text)
    model = source.checkpoint.build(D).to(chip)
    nfe = plan.path(*level_range(model)).nfe(*plan.solvers)
    evaluations = network_evaluations(nfe, guidance)
    batches = generate_batches(
        model, plan, seeds, batch_size=batch, classes=source.label, guidance=guidance, noise=noise
    )
    check_destination(out, run)
    print_settings(
        {
            "model": source.describe(),
            "plan": plan,
            "NFE": nfe
            if evaluations == nfe
            else f"{nfe} ({evaluations} network evaluations with guidance {guidance:g})",
            "images": f"{len(seeds)} (seeds {seeds_text}), {batch} at a time",
            "device": f"{describe_device(chip)}, network in float32, state in {str(state_dtype(chip))[6:]}",
            "out": out,
        }
    )
    manifest = {
        "format": "restart-sampling-images/1",
        "run": run,
        "model": name,
        "nfe": nfe,
        "network_evaluations": evaluations,
        "images": len(seeds),
        "device": describe_device(chip),
        "batch": batch,
        "versions": versions(),
    }
    start = time.perf_counter()
    with open_writer(out, manifest) as writer, Progress("images", len(seeds)) as advance:
        for made in batches:
            labels = [None] * len(made.seeds) if made.labels is None else made.labels.tolist()
            for seed, image, label in zip(made.seeds, made.images.numpy(), labels, strict=True):
                writer.write(seed, image, label)
            advance(len(made.seeds))
    seconds = time.perf_counter() - start
    click.echo(f"{len(seeds)} images in {seconds:.1f} s ({len(seeds) / seconds:.2f} a second): {out}", err=True)
    if as_json:
        print_json({"images": len(seeds), "plan": str(plan), "nfe": nfe, "seconds": round(seconds, 3), "out": str(out)})
