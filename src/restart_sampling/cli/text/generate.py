"""`restart-sampling text generate`: images of prompts, to a folder or a zip."""

from __future__ import annotations

import glob
from contextlib import ExitStack
from pathlib import Path

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.machine import describe_device
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_images, print_estimate
from restart_sampling.cli.generate import check_images_place, claimed, describe_nfe, write_images
from restart_sampling.cli.options import ProcessOptions, json_option, print_json, print_settings, process_options
from restart_sampling.cli.text.pipeline_options import (
    PACKAGES,
    SAMPLER_HELP,
    PipelineOptions,
    check_texts,
    describe_model,
    describe_notes,
    drawing_options,
    guidance_option,
    images_option,
    prompts_option,
    read_captions,
    seed_option,
)


@click.command(cls=Command)
@click.option("--prompt", "prompt_texts", multiple=True, metavar="TEXT", help="What an image shows; may be repeated.")
@prompts_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder, or a file that ends in .zip.")
@click.option(
    "--scheduler", "scheduler_text", default="restart", show_default=True, metavar="SAMPLER", help=SAMPLER_HELP
)
@click.option("--steps", type=click.IntRange(1), help="num_inference_steps; default: the sampler's.")
@guidance_option
@seed_option
@images_option
@drawing_options
@process_options
@dry_run_option
@json_option
def generate(
    prompt_texts: tuple[str, ...],
    prompts_path: Path | None,
    out: Path,
    scheduler_text: str,
    steps: int | None,
    guidance: float | None,
    seed: int,
    count: int | None,
    asked: PipelineOptions,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw an image of each prompt. After an interruption the same command goes on; also under torchrun.

    \b
      restart-sampling text generate --prompt "a bright photo of a red ship" --out ship
      restart-sampling text generate --images 64 --out images
      restart-sampling text generate --model stable-diffusion-v1-5/stable-diffusion-v1-5 --prompts coco/subset.csv \\
          --scheduler ddim --steps 50 --out images
      restart-sampling text score images --prompts images/subset.csv

    Image i is that of prompt i, counted from 0. The prompts are written beside the images: DIR/subset.csv, or
    FILE.subset.csv beside FILE.zip. A safety checker is left out, because it makes images black.
    """
    if prompt_texts and prompts_path:
        raise InputError("give either --prompt, or --prompts with a file")
    check_images_place(out)
    prompts_path = None if prompt_texts else asked.captions(prompts_path)

    from restart_sampling.base.files import remove_partials
    from restart_sampling.generation.seeds import cut
    from restart_sampling.generation.store import BlockStore
    from restart_sampling.images.prompts import write_prompts
    from restart_sampling.images.writers import SUBSET
    from restart_sampling.text_to_image.drawing import prepare
    from restart_sampling.text_to_image.samplers import Sampler

    with processes.ranks() as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            sampler = Sampler.parse(scheduler_text, steps)
            guidance = asked.scale(guidance, sampler)
            prompts = read_captions(prompts_path, count) if prompts_path else check_texts(prompt_texts, count)
            drawing = prepare(asked.load(ranks.device), asked.request(sampler, guidance, seed), prompts, asked.batch)
            notes = describe_notes([drawing])
            store = BlockStore(out, cut(range(len(prompts)), drawing.batch), drawing.about)
            held.enter_context(claimed(store, drawing.batch, ranks, dry_run))
        model = drawing.model
        if ranks.first:
            print_settings(
                {
                    "model": describe_model(model),
                    **notes,
                    "sampler": f"{sampler}, guidance {guidance:g}",
                    "NFE": describe_nfe(drawing, guidance),
                    "images": f"{len(prompts)} of {prompts_path or '--prompt'} "
                    f"(seeds {seed}-{seed + len(prompts) - 1}), {drawing.batch} at a time"
                    f"{', then as many as pay' if drawing.pace.finds_more(ranks.device) else ''}",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, networks in {model.dtype}",
                    "out": out,
                }
            )
        if dry_run:
            print_estimate(out, estimate_images(drawing, store, ranks.size), as_json, shown=ranks.first)
            return
        written = write_images(drawing, store, drawing.about, model.name, ranks, *PACKAGES)
        if ranks.first:
            table = out.with_suffix(f".{SUBSET}") if out.suffix == ".zip" else out / SUBSET
            if prompts_path is None or table.resolve() != prompts_path.resolve():
                remove_partials(table.parent, glob.escape(table.name))
                write_prompts(prompts, table)
            if as_json:
                print_json(
                    {
                        **written,
                        "sampler": str(sampler),
                        "guidance": guidance,
                        "nfe": drawing.nfe,
                        "network_evaluations": drawing.network_evaluations,
                        "prompts": str(table),
                    }
                )
