"""`restart-sampling generate`: images of seeds, to a folder or a zip, and what `text generate` does like it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.machine import describe_device, versions
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_images, leaving_no_folder, print_estimate
from restart_sampling.cli.options import (
    ProcessOptions,
    drawn_batch_option,
    json_option,
    print_json,
    print_settings,
    process_options,
)
from restart_sampling.cli.progress import ProgressBar
from restart_sampling.cli.sampler_options import (
    MODEL_HELP,
    SamplerOptions,
    idle_notes,
    pick_plan,
    preset_notes,
    sampler_options,
)

if TYPE_CHECKING:
    from restart_sampling.base.ranks import Ranks
    from restart_sampling.generation.drawing import Drawing
    from restart_sampling.generation.store import BlockStore

_NOT_FOLDERS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif"),
    *(".npz", ".npy", ".tar", ".gz", ".tgz", ".csv", ".html", ".json", ".pdf"),
)


@click.command(cls=Command)
@click.option("--model", "name", required=True, metavar="MODEL", help=MODEL_HELP)
@click.option("--plan", "plan_text", metavar="PLAN", help="A plan or a preset; see the command 'plan'.")
@click.option(
    "--seeds", "seeds_text", required=True, metavar="SEEDS", help="Such as 0-63 or 1,5,10-19; one image each."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder, or a file that ends in .zip.")
@drawn_batch_option
@sampler_options
@process_options
@dry_run_option
@json_option
def generate(
    name: str,
    plan_text: str | None,
    settings: tuple[str, ...],
    seeds_text: str,
    out: Path,
    batch: int | None,
    asked: SamplerOptions,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw one image for each seed. After an interruption the same command goes on; also under torchrun.

    \b
      restart-sampling generate --model cifar10-small --seeds 0-63 --out images
      restart-sampling generate --model edm-imagenet-64x64-cond-adm --plan imagenet64-edm-203 \\
          --seeds 0-49999 --out imagenet.zip
    """
    check_images_place(out)

    from restart_sampling.base.numerics import state_dtype
    from restart_sampling.generation.net_drawing import check_channels, check_identity
    from restart_sampling.generation.seeds import cut, parse_seeds
    from restart_sampling.generation.store import BlockStore

    with processes.ranks() as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            plan = pick_plan(plan_text, settings, name)
            seeds = parse_seeds(seeds_text)
            model = asked.load(name, ranks.device, batch, ranks.first)
            drawing = model.drawing(plan)
            run = {**drawing.about, "seeds": seeds_text}
            check_identity(run)
            check_channels(drawing)
            store = BlockStore(out, cut(seeds, drawing.batch), run)
            held.enter_context(claimed(store, drawing.batch, ranks, dry_run))
        missing = len(seeds) - ranks.gather(store.recorded() if ranks.first else 0)[0]
        speed = model.settle(drawing, ranks, calls=missing * drawing.nfe, dry_run=dry_run)
        if ranks.first:
            print_settings(
                {
                    "model": model.description,
                    "plan": plan.with_guidance,
                    "NFE": describe_nfe(drawing, drawing.guidance),
                    "images": f"{len(seeds)} (seeds {seeds_text}), {drawing.pace.at_once} at a time",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, network in {run['arithmetic']}, "
                    f"state in {str(state_dtype(ranks.device))[6:]}",
                    **speed,
                    "out": out,
                }
            )
            for note in filter(None, [*preset_notes([plan], name), *idle_notes([drawing]), drawing.note]):
                click.echo(f"note: {note}", err=True)
        if dry_run:
            print_estimate(out, estimate_images(drawing, store, ranks.size), as_json, shown=ranks.first)
            return
        written = write_images(drawing, store, run, name, ranks)
        if ranks.first and as_json:
            print_json({**written, "plan": str(plan), "nfe": drawing.nfe})


def check_images_place(out: Path) -> None:
    """Makes sure that a place for images is not named as one file of another kind.

    Raises:
        InputError: it is, and no such folder is there.
    """
    if out.name.lower().endswith(_NOT_FOLDERS) and not out.is_dir():
        raise InputError(f"--out {out}: images go to a folder or a .zip file; give a name without {out.suffix}")


def claimed(store: BlockStore, batch: int, ranks: Ranks, dry_run: bool) -> AbstractContextManager[None]:
    """Keeps other runs from the place of the images, on the first process; a dry run only makes the same checks.

    Raises:
        InputError: as `BlockStore.claimed`.
    """
    if dry_run:
        with leaving_no_folder(store.out):
            store.check(batch)
    elif ranks.first:
        return store.claimed(batch)
    return nullcontext()


def describe_nfe(drawing: Drawing, guidance: float) -> str:
    """Says the calls of the denoiser, and evaluations of the network where guidance takes more."""
    if drawing.network_evaluations == drawing.nfe:
        return str(drawing.nfe)
    return f"{drawing.nfe} ({drawing.network_evaluations} network evaluations with guidance {guidance:g})"


def write_images(
    drawing: Drawing, store: BlockStore, run: dict[str, Any], model: str, ranks: Ranks, *packages: str
) -> dict[str, Any]:
    """Draws and writes the images that are not there yet, with all processes, and says what was done.

    Args:
        drawing: draws them.
        store: where to; it was checked.
        run: what defines the images.
        model: as the user names it.
        ranks: the processes.
        *packages: more of those whose versions go into the manifest.

    Returns:
        JSON: `images`, `drawn`, `seconds` and `out`.
    """
    from restart_sampling.generation.write import manifest, write_missing

    images = sum(map(len, store.blocks))
    said = manifest(drawing, run, model, images, ranks.device, versions(*packages))
    start = time.perf_counter()
    with ProgressBar("images", images, ranks.first) as advance:
        drawn = write_missing(store, said, drawing.draw, ranks, advance, drawing.pace.blocks(drawing.batch))
    seconds = time.perf_counter() - start
    if ranks.first:
        click.echo(_summary(images, drawn, seconds, store.out), err=True)
    return {"images": images, "drawn": drawn, "seconds": round(seconds, 3), "out": str(store.out)}


def _summary(images: int, drawn: int, seconds: float, out: Path) -> str:
    if drawn == 0:
        return f"{out} is complete: {counted(images, 'image')}, there already and intact"
    before = f", {images - drawn} were there before" if drawn < images else ""
    return f"{counted(drawn, 'image')} in {seconds:.1f} s ({drawn / seconds:.2f} a second){before}: {out}"
