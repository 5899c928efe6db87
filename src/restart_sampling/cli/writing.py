"""What the commands that write images share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.machine import versions
from restart_sampling.cli.options import ProgressBar

if TYPE_CHECKING:
    from restart_sampling.base.ranks import Ranks
    from restart_sampling.generation.drawing import Drawing
    from restart_sampling.generation.store import BlockStore


def describe_nfe(drawing: Drawing, guidance: float) -> str:
    """Calls of the denoiser, and evaluations of the network where guidance takes more."""
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
    from restart_sampling.generation.drawing import manifest
    from restart_sampling.generation.write import write_missing

    images = sum(map(len, store.blocks))
    said = manifest(drawing, run, model, images, ranks.device, versions(*packages))
    start = time.perf_counter()
    with ProgressBar("images", images, ranks.first) as advance:
        drawn = write_missing(store, said, drawing.draw, ranks, advance)
    seconds = time.perf_counter() - start
    if ranks.first:
        click.echo(_summary(images, drawn, seconds, store.out), err=True)
    return {"images": images, "drawn": drawn, "seconds": round(seconds, 3), "out": str(store.out)}


def _summary(images: int, drawn: int, seconds: float, out: Path) -> str:
    if drawn == 0:
        return f"{out} is complete: all {images} images were there already, and are intact"
    before = f", {images - drawn} were there before" if drawn < images else ""
    return f"{drawn} images in {seconds:.1f} s ({drawn / seconds:.2f} a second){before}: {out}"
