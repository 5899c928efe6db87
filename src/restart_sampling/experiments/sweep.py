"""A sweep: figures of many plans of one model, each from the sampler to a line of the results file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from restart_sampling.errors import InputError
from restart_sampling.evaluation.partial import PartialSums
from restart_sampling.evaluation.results import append_result, read_results
from restart_sampling.experiments.evaluate import Batches, measure
from restart_sampling.experiments.evaluation_setup import EvaluationSetup
from restart_sampling.experiments.sweep_results import RESULTS, SAMPLES, check_comparable, row_key
from restart_sampling.experiments.sweep_rows import Row
from restart_sampling.files import atomic
from restart_sampling.generation.distributed import Ranks
from restart_sampling.images.writers import picture_png
from restart_sampling.models.denoiser import Denoiser

KEPT = 16
"""Images that are kept of each row: those of the first seeds, the same for all rows."""


class RowError(Exception):
    """One row could not be measured; the others can."""


@dataclass(frozen=True)
class Job:
    """One figure to make.

    Attributes:
        row: of the sweep.
        about: JSON, all that says what the figure is.
        draw: this process's share of the images whose places are not done.
    """

    row: Row
    about: dict[str, Any]
    draw: Callable[[frozenset[int]], Batches]

    @property
    def nfe(self) -> int:
        """Calls of the model for a batch."""
        return int(self.about["nfe"])

    @property
    def key(self) -> str:
        """Of the figure."""
        return row_key(self.about)


@dataclass(frozen=True)
class Sweep:
    """What all rows have in common.

    Attributes:
        folder: for the results file, the images that are kept and the sums on the way.
        model: that the jobs draw with.
        setup: what to measure with.
        images: of each row, on all processes.
        batch: images at a time.
        versions: of what computes.
        ranks: the processes.
    """

    folder: Path
    model: Denoiser
    setup: EvaluationSetup
    images: int
    batch: int
    versions: dict[str, str]
    ranks: Ranks

    @property
    def results(self) -> Path:
        """The results file."""
        return self.folder / RESULTS

    def take_up(self, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
        """What earlier starts finished, by key. One process calls this.

        Raises:
            InputError: the results file is of another model, detector, reference or the like.
        """
        lines = list(read_results(self.results)) if self.results.exists() else []
        check_comparable(self.results, lines, jobs[0].about)
        finished = {row_key(line): line for line in lines}
        for job in jobs:
            if job.key in finished:
                self._sums(job).remove()  # a kill may have come between the line and this
        return finished

    def _sums(self, job: Job) -> PartialSums:
        folder = self.results.with_name(f"{RESULTS}.partial")
        return self.setup.partial(folder, job.about["run"], self.batch, self.versions, self.ranks.rank)

    def measure(self, job: Job, advance: Callable[[int], None]) -> dict[str, Any]:
        """Draws and measures the images of a row, and adds its line to the results file; all processes call this.

        Args:
            job: the row.
            advance: called with the number of images of all processes that are there more.

        Returns:
            The line. `nfe_counted` in it is how often the model was called for a batch (None where the sums of an
            earlier start left nothing to draw).

        Raises:
            RowError: on all processes, where one of them could not draw, the model was not called as often as it should
                be, or the distance is not finite.
        """
        sums = self._sums(job)
        done = sums.load(self.ranks.gather)
        advance(len(done))
        samples = Path(SAMPLES) / f"{job.key}.png"
        failures: list[Exception] = []
        batches = 0

        def watched() -> Batches:
            nonlocal batches
            try:
                for places, images, labels in job.draw(done):
                    batches += 1
                    if places[0] == 0:
                        _write_strip(images[:KEPT], self.folder / samples)
                    yield places, images, labels
            except Exception as error:  # the other processes wait for this one's sums, so it goes on to them
                failures.append(error)

        with counted_calls(self.model) as calls:
            try:
                figures = measure(
                    watched(),
                    self.images,
                    self.setup.detector,
                    self.setup.reference,
                    self.ranks,
                    metrics=self.setup.metrics,
                    blocks=self.setup.blocks,
                    partial=sums,
                    advance=lambda count: advance(count * self.ranks.size),
                )
            except Exception as error:  # of the figures: the same on all processes
                failures.append(error)
        counted = self._check("".join(map(_one_line, failures[:1])), batches, calls(), job.nfe)
        if not isfinite(figures["frechet_distance"]):
            raise RowError("its distance is not finite")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        result = {**job.about, **figures, "nfe_counted": counted, "samples": str(samples), "time": now}
        if self.ranks.first:
            append_result(self.results, result)
            sums.remove()
        return result

    def _check(self, failure: str, batches: int, calls: int, nfe: int) -> int | None:
        """Calls for a batch, the same on all processes."""
        gathered = self.ranks.gather((failure, batches, calls))
        for failure, _, _ in gathered:
            if failure:
                raise RowError(failure)
        batches, calls = sum(each[1] for each in gathered), sum(each[2] for each in gathered)
        if calls != nfe * batches:
            raise RowError(f"the plan has NFE {nfe}, but {batches} batches took {calls} calls of the model")
        return nfe if batches else None


@contextmanager
def counted_calls(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Counts the calls of a model in the body; gives a function that says how many there were."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = model.register_forward_hook(count)
    try:
        yield lambda: calls
    finally:
        hook.remove()


def _write_strip(images: Tensor, path: Path) -> None:
    """Writes uint8 images [B, C, H, W] side by side as one PNG."""
    strip = np.concatenate(list(images.numpy()), axis=2)
    picture = Image.fromarray(strip[0] if len(strip) == 1 else strip.transpose(1, 2, 0))
    with atomic(path) as temporary:
        temporary.write_bytes(picture_png(picture))


def _one_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
