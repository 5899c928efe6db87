"""`restart-sampling generate`: images of seeds, to a folder or a zip."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.cli.options import (
    Progress,
    batch_option,
    describe_device,
    describe_nfe,
    device_option,
    json_option,
    pick_device,
    pick_plan,
    print_json,
    print_settings,
    summarize,
)
from restart_sampling.cli.sampler import Asked, read_source, sampler_options, versions

if TYPE_CHECKING:
    from restart_sampling.generation.generate import Batch


@click.command()
@click.option("--model", "name", required=True, metavar="MODEL", help="A bundled or published name, URL or file.")
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
    asked: Asked,
    device: str,
    as_json: bool,
) -> None:
    """Draw one image for each seed. After an interruption the same command goes on; also under torchrun.

    \b
      restart-sampling generate --model cifar10-small --seeds 0-63 --out images
      restart-sampling generate --model edm-imagenet-64x64-cond-adm --plan imagenet64-edm-203 \\
          --seeds 0-49999 --out imagenet.zip
    """
    chip = pick_device(device)

    from restart_sampling.base.numerics import state_dtype
    from restart_sampling.base.ranks import distributed
    from restart_sampling.generation.blocks import cut
    from restart_sampling.generation.generate import generate as generate_batches
    from restart_sampling.generation.generate import level_range, network_evaluations
    from restart_sampling.generation.seeds import parse_seeds
    from restart_sampling.generation.store import BlockStore
    from restart_sampling.generation.write import write_missing

    with distributed(chip) as ranks:
        with ranks.one_goes_first():
            # What can be wrong without the model comes before it.
            plan = pick_plan(plan_text, settings, name)
            plan.path()
            seeds = parse_seeds(seeds_text)
            source = read_source(name, asked, ranks.device)
            run = source.run(plan, seeds_text)
            model = source.build(ranks.device)
            nfe = plan.path(*level_range(model)).nfe(*plan.solvers)
            evaluations = network_evaluations(nfe, asked.guidance)

            def draw(seeds: Sequence[int]) -> Iterator[Batch]:
                return generate_batches(model, plan, seeds, batch_size=batch, **source.options)

            draw(seeds)  # refuses what does not fit the model, and draws nothing yet
            store = BlockStore(out, cut(seeds, batch))
            if ranks.first:
                store.check(run, batch)
        if ranks.first:
            print_settings(
                {
                    "model": source.describe(),
                    "plan": plan,
                    "NFE": describe_nfe(nfe, evaluations, asked.guidance),
                    "images": f"{len(seeds)} (seeds {seeds_text}), {batch} at a time",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, network in {source.arithmetic}, "
                    f"state in {str(state_dtype(ranks.device))[6:]}",
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
            "device": describe_device(ranks.device),
            "batch": batch,
            "versions": versions(),
        }
        start = time.perf_counter()
        with Progress("images", len(seeds), ranks.first) as advance:
            drawn = write_missing(store, manifest, draw, ranks, advance)
        seconds = time.perf_counter() - start
        if ranks.first:
            click.echo(summarize(len(seeds), drawn, seconds, out), err=True)
            if as_json:
                print_json(
                    {
                        "images": len(seeds),
                        "drawn": drawn,
                        "plan": str(plan),
                        "nfe": nfe,
                        "seconds": round(seconds, 3),
                        "out": str(out),
                    }
                )
