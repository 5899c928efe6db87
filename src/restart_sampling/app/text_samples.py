"""Images of a text-to-image pipeline as they come, with the states on the way."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from math import inf
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restart_sampling.app.samples import BETWEEN, pixels
from restart_sampling.text_to_image.drawing import TextDrawing

_SHARE = 4  # times as long as the decoder takes nothing else is decoded


class _Stopped(Exception):  # noqa: N818  not an error
    """Nobody waits for the images any more."""


def on_the_way(drawing: TextDrawing, seeds: Sequence[int]) -> Generator[tuple[int, list[np.ndarray]]]:
    """Draws the images of seeds, the same as `drawing.draw`, and yields after steps of the scheduler.

    Of steps that take less than a quarter of a second, it yields some. The pipeline runs in a thread of its own, which
    waits while the caller has what was yielded; where the caller closes the iterator, it takes no further step.

    Args:
        drawing: of the pipeline.
        seeds: one for each image.

    Yields:
        Evaluations so far, and the images, uint8 [3, H, W] each: the scheduler's estimates of them, or its states where
        it makes none, of this step or of one before; [] where they cannot be decoded. With all evaluations, once, the
        images of the seeds.

    Raises:
        InputError: as `drawing.draw`, when the pipeline ends.
    """
    made: SimpleQueue[Tensor | list[np.ndarray] | Exception] = SimpleQueue()
    go_on: SimpleQueue[bool] = SimpleQueue()

    def see(latents: Tensor) -> None:
        made.put(latents)
        if not go_on.get():
            raise _Stopped

    def work() -> None:
        try:
            with _watched(drawing.scheduler, see):
                made.put([image for batch in drawing.draw(seeds) for image in batch.images.numpy()])
        except Exception as error:  # which is the caller's
            made.put(error)

    thread = Thread(target=work, daemon=True)  # so that it does not keep a program that ends
    thread.start()
    seen: list[np.ndarray] = []
    evaluations, yielded, due = 0, -inf, -inf
    try:
        while isinstance(latest := made.get(), Tensor):
            evaluations += 1
            now = time.monotonic()
            if now >= yielded + BETWEEN and evaluations < drawing.nfe:
                if now >= due:
                    seen = _decoded(drawing.model.pipe, latest)
                    due = time.monotonic() + _SHARE * (time.monotonic() - now)
                yield evaluations, seen
                yielded = time.monotonic()
            go_on.put(True)
    finally:
        go_on.put(False)
        thread.join()
    if isinstance(latest, Exception):
        raise latest
    yield drawing.nfe, latest


@contextmanager
def _watched(scheduler: Any, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Shows what each step of a scheduler makes: unlike a pipeline's callback it has the estimate, in any pipeline."""
    step = scheduler.step

    @wraps(step)  # pipelines look at its arguments
    def watched(*arguments: Any, **named: Any) -> Any:
        made = step(*arguments, **named)
        state, *estimate = made if isinstance(made, tuple) else made.to_tuple()
        see(estimate[0] if estimate else state)
        return made

    scheduler.step = watched
    try:
        yield
    finally:
        del scheduler.step


@torch.no_grad()
def _decoded(pipe: Any, latents: Tensor) -> list[np.ndarray]:
    """Decodes latents to images, uint8 [3, H, W] each; none where they are not of Stable Diffusion's kind of VAE."""
    vae: Any = getattr(pipe, "vae", None)
    known = getattr(vae, "config", {})
    if latents.ndim != 4 or latents.shape[1] != known.get("latent_channels") or "scaling_factor" not in known:
        return []  # packed, as FLUX's, or of videos
    dtype = vae.dtype
    vae.to(torch.float32 if known.get("force_upcast") else dtype)  # as pipelines do, where float16 overflows
    scaled = latents.to(vae.dtype) / known["scaling_factor"] + (known.get("shift_factor") or 0.0)
    images = vae.decode(scaled, return_dict=False)[0].float()
    vae.to(dtype)
    return [*pixels(images)]
