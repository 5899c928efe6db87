"""A sweep: figures of many plans of one model, each from the sampler to a line of the results file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from torch import nn

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.results import RESULTS, SAMPLES, row_key, take_up
from restart_sampling.comparison.rows import Row
from restart_sampling.comparison.run import keep_first, row_at_stake
from restart_sampling.evaluation.measure import Batches, measure
from restart_sampling.evaluation.partial import PartialSums
from restart_sampling.evaluation.results import append_result
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.models.denoiser import Denoiser


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
    def name(self) -> str:
        """Of the row."""
        return self.row.name

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
        ranks: the processes, forgiving.
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
        finished = take_up(self.results, jobs[0].about)
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
        batches = 0

        def counted_batches() -> Batches:
            nonlocal batches
            for batch in job.draw(done):
                batches += 1
                yield batch

        with row_at_stake():
            with counted_calls(self.model) as calls:
                figures = measure(
                    keep_first(counted_batches(), self.folder / samples),
                    self.images,
                    self.setup.detector,
                    self.setup.reference,
                    self.ranks,
                    metrics=self.setup.metrics,
                    blocks=self.setup.blocks,
                    partial=sums,
                    advance=lambda count: advance(count * self.ranks.size),
                )
            counted = self._check(batches, calls(), job.nfe)
            if not isfinite(figures["frechet_distance"]):
                raise InputError("its distance is not finite")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            result = {**job.about, **figures, "nfe_counted": counted, "samples": str(samples), "time": now}
            with self.ranks.apart():
                if self.ranks.first:
                    append_result(self.results, result)
                    sums.remove()
        return result

    def _check(self, batches: int, calls: int, nfe: int) -> int | None:
        """Calls for a batch, the same on all processes."""
        batches, calls = (sum(each) for each in zip(*self.ranks.gather((batches, calls)), strict=True))
        if calls != nfe * batches:
            raise InputError(f"the plan has NFE {nfe}, but {batches} batches took {calls} calls of the model")
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
