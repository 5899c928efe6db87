"""`Comparison`: the loop that draws and measures each row, and adds its line to the results file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError, one_line
from restart_sampling.base.files import check_writable, remove_partials, write_bytes
from restart_sampling.base.lock import lock_beside, lock_in, locked, remove_lock
from restart_sampling.base.machine import describe_device, versions
from restart_sampling.base.meeting import HangingRankError
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.comparable import SAMPLES, check_comparable, row_key
from restart_sampling.comparison.rows import Outcome, Row, Watch
from restart_sampling.evaluation.class_pairs import pair_classes
from restart_sampling.evaluation.measure import Batches, image_batches, measure
from restart_sampling.evaluation.metrics import check_count, notes_on
from restart_sampling.evaluation.partial_sums import PartialSums
from restart_sampling.evaluation.results_file import append_result, read_results
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.generation.drawing import Advance, Drawing
from restart_sampling.generation.net_drawing import check_identity
from restart_sampling.generation.seeds import cut, joined
from restart_sampling.generation.speed import speed_of
from restart_sampling.images.writers import encode_png

KEPT = 16
"""Images that are kept of each row: the first ones, of the same seeds for all rows."""


_SILENT = Watch()


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all rows have in common.

    A row that fails does not end the others. One whose line is in the results file is not drawn again, and one that was
    interrupted goes on.

    Attributes:
        setup: what to measure with.
        ranks: the processes.
        batch: images at a time.
        results: file that gets a line for each row; None: nothing is written.
        folder: of a comparison whose lines are all alike but for their rows, and of which the first images of each row
            are kept; None: the results file may hold others.
    """

    setup: EvaluationSetup
    ranks: Ranks
    batch: int
    results: Path | None
    folder: Path | None = None

    def about(self) -> dict[str, Any]:
        """JSON, what the lines of all rows say alike."""
        return {
            **self.setup.about,
            "device": f"{self.ranks.size} x {describe_device(self.ranks.device)}",
            "arithmetic": "float32 without TF32",
            "versions": versions(),
        }

    def line(self, row: Row) -> dict[str, Any]:
        """Returns what the line of a row says before it is measured."""
        return {**row.about, **self.about()}

    @contextmanager
    def claimed(self, rows: Sequence[Row]) -> Iterator[dict[str, dict[str, Any]]]:
        """Keeps other runs from the folder, or from the rows alone where the results file may hold others.

        The first process calls this; `run` belongs in here.

        Yields:
            What `take_up` returns.

        Raises:
            InputError: another run measures them, or as `check` and `take_up`.
        """
        self.check(rows)
        there = self.take_up(rows)
        with ExitStack() as held:
            if self.folder:
                held.enter_context(locked(lock_in(self.folder), str(self.folder)))
                for folder in {self.folder, *((self.folder / self.samples(row)).parent for row in rows)}:
                    remove_partials(folder, "*")
            elif self.results:
                for row in rows:
                    if row.drawing:
                        own = lock_beside(self.results.with_name(f"{self.results.name}.{row_key(self.line(row))}"))
                        if row.name in there:
                            remove_lock(own)
                        else:
                            held.enter_context(locked(own, f"row '{row.name}' of {self.results}", "--results"))
            yield self.take_up(rows)  # another run may have finished some meanwhile

    def check(self, rows: Sequence[Row]) -> None:
        """Makes sure, before any work, that rows can be measured.

        Raises:
            InputError: a row lacks the classes that a metric needs, or has too few images, or the detector fails or
                does not fit the reference.
        """
        for row in rows:
            try:
                if "per-class" in self.setup.metrics:
                    pair_classes(row.labels(), row.classes, self.setup.reference)
                check_count(row.images, self.setup.blocks)
            except InputError as error:
                raise InputError(f"row '{row.name}': {error}" if len(rows) > 1 else str(error)) from None
        for shape in {row.shape for row in rows}:
            self.setup.try_detector(shape)

    def take_up(self, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Finds what earlier starts finished, and makes sure that more can be written. The first process calls this.

        Returns:
            The lines of finished rows, by the names of the rows.

        Raises:
            InputError: the results file cannot be read or written, a net has no identity, or the file of a folder has a
                line of another model, detector, reference or the like.
        """
        if self.results is None:
            return {}
        for row in rows:
            if row.drawing:
                check_identity(row.about["run"])
        check_writable(self.results)
        lines = [line for line in read_results(self.results) if "run" in line] if self.results.exists() else []
        if self.folder:
            check_comparable(self.results, lines, self.line(rows[0]))
        found = {row_key(line): line for line in lines}
        there = {row.name: found[key] for row in rows if row.drawing and (key := row_key(self.line(row))) in found}
        for row in rows:
            if row.name in there:
                self.tidy(row)  # a kill may have come between the line and this
        return there

    def notes(self, row: Row) -> list[str]:
        """Says what can be said of the values of a row before it is measured."""
        size = row.shape and row.shape[1:]
        return notes_on(row.images, self.setup.blocks, size, self.setup.metrics, self.setup.reference, row.classes)

    def run(
        self, rows: Sequence[Row], there: Mapping[str, dict[str, Any]] | None = None, watch: Watch = _SILENT
    ) -> list[Outcome]:
        """Draws and measures the rows that are not there, one after another. All processes call this.

        Args:
            rows: all of them.
            there: what `take_up` gave to the first process.
            watch: is told what happens.
        """
        measured = {"detector": self.setup.about["detector"], "reference": self.setup.about["reference"]["sha256"]}
        self.ranks.agree(*({**row.about.get("run", {}), **measured} for row in rows))
        there = self.ranks.gather(there or {})[0]
        forgiving = replace(self, ranks=replace(self.ranks, forgiving=True))
        outcomes = []
        for row in rows:
            if row.name in there:
                outcomes.append(Outcome(row, there[row.name]))
                continue
            try:
                outcome = Outcome(row, forgiving._finish(row, watch))
            except HangingRankError:
                raise
            except Exception as error:  # whatever it is, the other rows can be measured
                outcome = Outcome(row, None, one_line(error))
            watch.end(outcome)
            outcomes.append(outcome)
        return outcomes

    def measure(self, row: Row, watch: Watch) -> dict[str, Any]:
        """Draws and measures the images of a row; all processes call this.

        Returns:
            JSON, the values, the same on all processes. Of drawn images, `nfe_counted` is how often the denoiser was
            called for one of them, by this start or an earlier one, and `drawn` how many this start has drawn.
        """
        if row.files is not None:
            watch.begin(row, 0)
            batches = image_batches(row.files, self.ranks, self.batch)
            return self.measure_batches(
                row, batches, watch, advance=lambda count: watch.advance(row, count * self.ranks.size)
            )
        assert row.drawing is not None
        sums = self._sums(row)
        done = sums.load(self.ranks.gather) if sums else frozenset()
        watch.begin(row, len(done))
        watch.advance(row, len(done))
        drawn = row.images - len(done)
        batches = own_batches(row.drawing, row.seeds, self.ranks, done, lambda images: watch.advance(row, images))
        values = self.measure_batches(row, batches, watch, sums)
        values["nfe_counted"] = row.drawing.nfe  # another count is an error
        return values if self.folder else {**values, "drawn": drawn}  # a folder is the same after a kill

    def measure_batches(
        self,
        row: Row,
        batches: Batches,
        watch: Watch,
        sums: PartialSums | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> dict[str, Any]:
        """Measures this process's share of the images of a row, and keeps the first ones where there is a folder."""
        if self.folder:
            batches = keep_first(batches, self.folder / self.samples(row))
        return measure(
            batches,
            row.images,
            self.setup.detector,
            self.setup.reference,
            self.ranks,
            metrics=self.setup.metrics,
            blocks=self.setup.blocks,
            partial=sums,
            classes=row.classes,
            name=row.where,
            advance=advance,
            say=watch.say,
        )

    def samples(self, row: Row) -> str:
        """Names the picture of the first images of a row, in the folder."""
        return f"{SAMPLES}/{row_key(self.line(row))}.png"

    def tidy(self, row: Row) -> None:
        """Removes what a finished row needs no more."""
        if row.drawing and (sums := self._sums(row)):
            sums.remove()

    def _finish(self, row: Row, watch: Watch) -> dict[str, Any]:
        """Measures a row and adds its line to the results file."""
        start = time.perf_counter()
        values = self.measure(row, watch)
        if not isfinite(values["frechet_distance"]):
            raise InputError("its distance is not finite")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"samples": self.samples(row)} if self.folder else {}
        seconds = round(time.perf_counter() - start, 3)
        speed = speed_of(row.drawing) if row.drawing else {}
        result = {**self.line(row), **values, **speed, **kept, "seconds": seconds, "time": now}
        with self.ranks.failing_together():
            if self.ranks.first and self.results:
                append_result(self.results, result)
                self.tidy(row)
        return result

    def _sums(self, row: Row) -> PartialSums | None:
        """Opens the sums that a row keeps until it is finished; None: there is no results file."""
        if self.results is None:
            return None
        folder, line = self.results.with_name(f"{self.results.name}.partial"), self.line(row)
        return self.setup.partial(folder, line["run"], self.batch, line["versions"], self.ranks)


def own_batches(
    drawing: Drawing,
    seeds: Sequence[int],
    ranks: Ranks,
    done: frozenset[int] = frozenset(),
    advance: Advance = lambda images: None,
) -> Batches:
    """Draws this process's share of the images of the seeds, straight from the sampler.

    Args:
        drawing: draws them.
        seeds: of all images.
        ranks: the processes.
        done: places whose images are not needed again; blocks that are done in part are drawn whole.
        advance: is told how those of all processes go on, which are about as far as this one.
    """
    # All are dealt, so that each process goes on with its own, in their order.
    own = [block for block in ranks.deal(cut(range(len(seeds)), drawing.batch)) if not done.issuperset(block)]
    places, left = joined(own), len(seeds) - len(done)
    drawn = drawing.draw([seeds[place] for place in places], lambda images: advance(images * left / len(places)))
    return ((block, batch.images, batch.labels) for block, batch in zip(own, drawn, strict=True))


def keep_first(batches: Batches, path: Path) -> Batches:
    """Passes batches on; of that which begins the set the first images go side by side to a PNG file."""
    for places, images, labels in batches:
        if places[0] == 0:
            write_bytes(path, encode_png(np.concatenate(list(images[:KEPT].numpy()), axis=2)))
        yield places, images, labels
