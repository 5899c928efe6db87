"""`restart-sampling text preview`: one prompt across samplers, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

import click

from restart_sampling.base.errors import require_extra
from restart_sampling.base.files import check_writable
from restart_sampling.base.machine import describe_device
from restart_sampling.cli import Command
from restart_sampling.cli.options import (
    check_suffix,
    device_option,
    json_option,
    pick_device,
    print_json,
    print_settings,
    print_table,
)
from restart_sampling.cli.progress import ProgressBar
from restart_sampling.cli.text.pipeline_options import (
    SAMPLER_HELP,
    PipelineOptions,
    check_texts,
    describe_model,
    describe_notes,
    drawing_options,
    guidance_option,
    pick_samplers,
)

if TYPE_CHECKING:
    from restart_sampling.generation.drawing import Advance
    from restart_sampling.pictures.side_by_side import Sampled
    from restart_sampling.text_to_image.drawing import TextDrawing

SAMPLERS = ("ddim:50", "ddpm:100", "heun:26", "restart")


@click.command(cls=Command)
@click.option("--prompt", required=True, metavar="TEXT", help="Of all images.")
@click.option(
    "--sampler",
    "sampler_texts",
    multiple=True,
    metavar="SAMPLER",
    help=f"A row each; {SAMPLER_HELP}  [default: {', '.join(SAMPLERS)}]",
)
@click.option("--seeds", "seeds_text", default="0-3", show_default=True, metavar="SEEDS", help="A column each.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("preview.png"),
    show_default=True,
    help="Picture.",
)
@guidance_option
@drawing_options
@device_option
@json_option
def preview(
    prompt: str,
    sampler_texts: tuple[str, ...],
    seeds_text: str,
    out: Path,
    guidance: float | None,
    asked: PipelineOptions,
    device: str,
    as_json: bool,
) -> None:
    """Draw one prompt with several samplers and the same seeds.

    Makes a picture, with the path of noise levels of each.

    \b
      restart-sampling text preview --prompt "a bright photo of a red ship"
      restart-sampling text preview --model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
          --prompt "a photo of an astronaut riding a horse on mars" \\
          --sampler ddim:50 --sampler ddpm:100 --sampler restart --out preview.png
    """
    require_extra("matplotlib", "figures")
    check_suffix(out, "picture", ".png")
    check_writable(out)
    chip = pick_device(device)

    from restart_sampling.generation.seeds import parse_seeds
    from restart_sampling.pictures.side_by_side import plot_side_by_side
    from restart_sampling.text_to_image.drawing import prepare
    from restart_sampling.text_to_image.samplers import Sampler

    seeds = parse_seeds(seeds_text)
    for text in sampler_texts:
        Sampler.parse(text)  # what can be wrong without the model comes before it
    check_texts([prompt])
    model = asked.load(chip)
    scales = None if guidance is None else [guidance]
    rows = pick_samplers(sampler_texts, model, SAMPLERS, scales, [asked.scale(None)])
    drawings = [prepare(model, asked.request(*row, seed=0), prompt, asked.batch) for row in rows]
    print_settings(
        {
            "model": describe_model(model),
            **describe_notes(drawings),
            "samplers": ", ".join(str(sampler) for sampler, _ in rows),
            "guidance": ", ".join(dict.fromkeys(f"{scale:g}" for _, scale in rows)),
            "images": f"{len(seeds)} a sampler (seeds {seeds_text})",
            "device": f"{describe_device(chip)}, networks in {model.dtype}",
            "out": out,
        }
    )
    with ProgressBar("images", len(drawings) * len(seeds)) as advance:
        taken = [sample_prompt(drawing, seeds, advance) for drawing in drawings]
    with catch_warnings(record=True) as warned:
        filterwarnings("always", ".*missing from font")
        plot_side_by_side(taken, [f"seed {seed}" for seed in seeds], out, title=prompt)
    if any("missing from font" in str(each.message) for each in warned):
        click.echo("note: the picture's font lacks characters of the prompt, which its title shows as boxes", err=True)
    evaluations = [drawing.network_evaluations for drawing in drawings]
    if as_json:
        said = [
            {
                "sampler": each.name,
                "nfe": each.nfe,
                "network_evaluations": network,
                "seconds": round(each.seconds, 3),
            }
            for each, network in zip(taken, evaluations, strict=True)
        ]
        print_json({"samplers": said, "images": len(seeds), "out": str(out)})
    else:
        print_table(
            {
                "sampler": [each.name for each in taken],
                "NFE": [str(each.nfe) for each in taken],
                "network evaluations": list(map(str, evaluations)),
                "seconds": [f"{each.seconds:.1f}" for each in taken],
            }
        )
    click.echo(f"picture: {out}", err=True)


def sample_prompt(drawing: TextDrawing, seeds: Sequence[int], advance: Advance) -> Sampled:
    """Draws a prompt with each of the seeds.

    Args:
        drawing: of the prompt; a seed is added to that of its request.
        seeds: one for each image.
        advance: is told how it goes on.
    """
    from restart_sampling.pictures.side_by_side import Sampled, take_images

    taken = take_images(drawing.draw(seeds, advance))
    sampler, nfe, network = drawing.request.sampler, drawing.nfe, drawing.network_evaluations
    cost = f"NFE {nfe}" + (f", {network} network evaluations" if network != nfe else "")
    return Sampled(str(sampler), f"{sampler.family} ({sampler})", cost, nfe, drawing.path, *taken)
