"""`Pace`: how many images a device draws at a time, where the user does not say, and back to the user's batches."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.generation.batch import Batch

T = TypeVar("T")

BLOCK = 64
"""Images that are written, measured and taken up again as a whole, where the user names no batch.

It is no device's choice, so that a run goes on on any other device.
"""
_ON_THE_CPU = 16  # 0.84 of the time that 64 take, whose layers do not stay in the cache, and a whole part of a block
_MOST = 512  # the largest batch that was measured, on an H100 and an H200: it keeps both of them busy
_SHARE = 0.5  # of the free memory: convolutions want more for larger batches, and others may come

_log = logging.getLogger(__name__)


@dataclass
class Pace:
    """How many images a device draws at a time. The drawings of one net share it, and learn from one another.

    Attributes:
        at_once: so many.
        automatic: whether it may change: more where a device has the memory, fewer where it has not.
        measured: whether the device's memory has been looked at.
    """

    at_once: int
    automatic: bool = False
    measured: bool = False

    def measure(self, call: Callable[[int], object], device: torch.device, images: float) -> None:
        """Finds, once, how many images pay: on NVIDIA devices up to 512 that half of the free memory holds.

        Args:
            call: evaluates the denoiser on so many images.
            device: where.
            images: that are to come.
        """
        if self.measured or not self.automatic or (device.type == "cuda" and images <= self.at_once):
            return
        self.measured = True
        if device.type == "cpu":
            self.at_once = min(self.at_once, _ON_THE_CPU)
        if device.type != "cuda":
            return
        before = _allocated(device)
        for _ in fitting(range(self.at_once), self, lambda images: call(len(images))):
            break
        self._learn(before, device)

    @contextmanager
    def watching(self, device: torch.device, images: int) -> Iterator[None]:
        """Finds the same, once, from a batch that is drawn in the body.

        Args:
            device: where.
            images: of the batch; one that is not full says nothing.
        """
        if not self.finds_more(device) or images < self.at_once:
            yield
            return
        before = _allocated(device)
        yield
        self.measured = True
        self._learn(before, device)

    def finds_more(self, device: torch.device) -> bool:
        """Says whether the next full batch will show how many images pay."""
        return self.automatic and not self.measured and device.type == "cuda"

    def _learn(self, before: int, device: torch.device) -> None:
        """Takes the memory that a batch of `at_once` images took."""
        taken = torch.cuda.max_memory_allocated(device) - before
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - before
        self.at_once = images_that_pay(self.at_once, taken, free)

    def blocks(self, size: int) -> int:
        """Counts the blocks of this size that are drawn together, in whole or in part."""
        return max(1, self.at_once // size)

    def halve(self) -> None:
        """Takes half as many images from now on, and says so."""
        _log.warning(f"{self.at_once} images do not fit in the device's memory at a time; going on with half as many")
        self.at_once //= 2


def _allocated(device: torch.device) -> int:
    """Counts the bytes of memory that are taken now; the peak is counted anew from here."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def own_pace(batch: int | None, exact: bool = False) -> Pace:
    """Makes the pace of a user who asks for a batch or leaves it to us; exact images have those of one batch size."""
    return Pace(BLOCK if batch is None else batch, automatic=batch is None and not exact)


def images_that_pay(images: int, taken: int, free: int) -> int:
    """Doubles a number of images as long as they fit in memory and pay.

    Args:
        images: so many were tried.
        taken: bytes of memory that they took.
        free: bytes of memory that there are for more images.
    """
    while 2 * images <= _MOST and 2 * taken <= _SHARE * free:
        images, taken = 2 * images, 2 * taken
    return images


def fitting(seeds: Sequence[int], pace: Pace, make: Callable[[Sequence[int]], T]) -> Iterator[T]:
    """Yields what is made of batches of the seeds; a batch that does not fit in memory is tried again in halves.

    Args:
        seeds: in batches of the pace's size.
        pace: is told of what does not fit.
        make: of a batch.

    Raises:
        InputError: a batch does not fit, and is one image or the size that the user gave.
    """
    start = 0
    while start < len(seeds):
        chosen = seeds[start : start + pace.at_once]
        try:
            made = make(chosen)
        except torch.OutOfMemoryError as error:
            if not pace.automatic or pace.at_once == 1:
                raise InputError(
                    f"a batch of {counted(len(chosen), 'image')} does not fit in the device's memory; give a smaller "
                    f"one, or a device with more of it"
                ) from error
        else:
            start += len(chosen)
            yield made
            continue
        # Out here nothing of the failed batch is held any more.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        pace.halve()


def in_batches(made: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Yields the images in batches of this size, the last may be shorter, whatever sizes they were drawn in."""
    rest: Batch | None = None
    for batch in made:
        rest = batch if rest is None else rest + batch
        while len(rest.seeds) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and rest.seeds:
        yield rest
