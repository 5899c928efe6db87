"""The missing images of a folder or zip, made block by block, and what its manifest says of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from restart_sampling.base.machine import describe_device
from restart_sampling.base.parallel import available_cores, in_order
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.drawing import Advance, Drawing
from restart_sampling.generation.seeds import joined
from restart_sampling.generation.speed import speed_of
from restart_sampling.generation.store import BlockStore
from restart_sampling.models.denoiser import Denoiser

_MAX_WORKERS = 4  # of each process; they share the cores


def write_missing(
    store: BlockStore,
    manifest: Mapping[str, Any],
    draw: Callable[[Sequence[int], Advance], Iterator[Batch]],
    ranks: Ranks,
    advance: Advance = lambda images: None,
    together: int = 1,
) -> int:
    """Draws and writes the blocks that are not there yet, with all processes, and finishes the whole.

    Blocks are encoded and written by threads while the next one is drawn.

    Args:
        store: where to; it was checked.
        manifest: JSON, what the images will be.
        draw: batches of images of seeds, of the size of the blocks; is given who is told of its evaluations.
        ranks: the processes; all call this.
        advance: is told how many images are there at the start, and then how those of all processes go on, which are
            about as far as this one.
        together: blocks that are drawn at a time; so many may wait to be written.

    Returns:
        How many images were drawn, by all processes.

    Raises:
        InputError: the disk is full, an image is not finite, or another run has written here.
    """
    missing: list[int] = []
    finished = False
    ranks.agree(store.run)
    with ranks.failing_together():
        if ranks.first:
            with ranks.at_work():
                missing = _missing(store)
                finished = not missing and store.finished()
            if not finished:
                store.start(manifest)
    missing = ranks.gather(missing)[0]
    left = sum(len(store.blocks[number]) for number in missing)
    advance(sum(map(len, store.blocks)) - left)
    with ranks.failing_together():
        _write_share(store, missing, draw, ranks, advance, together)
    ranks.wait()
    with ranks.failing_together():
        if ranks.first and not finished:
            with ranks.at_work():
                store.finish(manifest)
    return left


def _write_share(
    store: BlockStore,
    missing: Sequence[int],
    draw: Callable[[Sequence[int], Advance], Iterator[Batch]],
    ranks: Ranks,
    advance: Advance,
    together: int,
) -> None:
    own = ranks.deal(missing)
    seeds = joined([store.blocks[number] for number in own])
    left = sum(len(store.blocks[number]) for number in missing)
    batches = zip(own, draw(seeds, lambda images: advance(images * left / len(seeds))), strict=True)
    workers = min(available_cores(), _MAX_WORKERS)
    with ThreadPoolExecutor(workers) as encoders, ThreadPoolExecutor(1) as writer:

        def write(item: tuple[int, Batch]) -> None:
            number, batch = item
            labels = [None] * len(batch.seeds) if batch.labels is None else batch.labels.tolist()
            store.write(number, list(batch.images.numpy()), labels, encoders)

        for _ in in_order(writer, write, batches, ahead=together):
            ranks.alive()


def _missing(store: BlockStore) -> list[int]:
    """Numbers the blocks that have to be made."""
    store.clean()
    numbers = range(len(store.blocks))
    with ThreadPoolExecutor(_MAX_WORKERS) as threads:
        return [
            number for number, intact in zip(numbers, threads.map(store.intact, numbers), strict=True) if not intact
        ]


def manifest(
    drawing: Drawing, run: Mapping[str, Any], model: str, images: int, device: torch.device, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Makes JSON that tells of written images what they are.

    Args:
        drawing: draws them.
        run: what defines the images.
        model: as the user names it.
        images: how many.
        device: of one process.
        versions: of what computes.
    """
    net = getattr(drawing, "net", None)
    weights = net.weights if isinstance(net, Denoiser) else None
    return {
        "format": "restart-sampling-images/1",
        "run": run,
        "model": model,
        **({"weights": weights} if weights else {}),
        **({"classes": list(drawing.classes)} if drawing.classes else {}),
        "nfe": drawing.nfe,
        "network_evaluations": drawing.network_evaluations,
        "images": images,
        "device": describe_device(device),
        "batch": drawing.batch,
        **speed_of(drawing),
        "versions": versions,
    }
