"""The paper's text-to-image experiment: images of the same prompts and seeds with many samplers, and their figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import remove_folder, remove_partials
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.results import RESULTS, SAMPLES, row_key, take_up
from restart_sampling.comparison.run import keep_first, row_at_stake
from restart_sampling.evaluation.aesthetic import AestheticScore
from restart_sampling.evaluation.clip import ClipScore
from restart_sampling.evaluation.measure import image_batches, measure
from restart_sampling.evaluation.results import append_result
from restart_sampling.evaluation.scores import measure_scores
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.generation.blocks import cut
from restart_sampling.generation.store import BlockStore
from restart_sampling.generation.write import write_missing
from restart_sampling.images.image_set import read_images
from restart_sampling.images.prompts import match_images
from restart_sampling.images.sources import open_source
from restart_sampling.text_to_image.images import TextImages

IMAGES = "images"


@dataclass(frozen=True, eq=False)
class TextRow:
    """One sampler at one guidance scale.

    Attributes:
        images: what it draws.
        about: JSON, all that says what its figures are.
    """

    images: TextImages
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """For the user."""
        return str(self.about["name"])

    @property
    def nfe(self) -> int:
        """Rows of the scheduler."""
        return self.images.drawing.nfe

    @property
    def key(self) -> str:
        """Of the figures."""
        return row_key(self.about)


@dataclass(frozen=True, eq=False)
class TextComparison:
    """What all rows have in common.

    Attributes:
        folder: for the results file and the images.
        setup: what the Fréchet distance is measured with.
        scores: by name, of `text_scores.METRICS`.
        keep: whether the images of a finished row stay.
        device: of one process, for the manifests.
        versions: of what computes.
        ranks: the processes, forgiving.
    """

    folder: Path
    setup: EvaluationSetup
    scores: Mapping[str, ClipScore | AestheticScore]
    keep: bool
    device: str
    versions: dict[str, str]
    ranks: Ranks

    @property
    def results(self) -> Path:
        """The results file."""
        return self.folder / RESULTS

    def take_up(self, rows: Sequence[TextRow]) -> dict[str, dict[str, Any]]:
        """What earlier starts finished, by key. One process calls this.

        Raises:
            InputError: the results file is of another model, detector, reference or the like.
        """
        finished = take_up(self.results, rows[0].about)
        for row in rows:
            if row.key in finished:
                self._tidy(row)  # a kill may have come between the line and this
        return finished

    def measure(self, row: TextRow, advance: Callable[[int], None]) -> dict[str, Any]:
        """Draws the images of a row, measures them, and adds a line to the results file; all processes call this.

        Args:
            row: which.
            advance: called with the number of images of all processes that are there more.

        Returns:
            The line. `drawn` in it is how many images this start has drawn.

        Raises:
            RowError: on all processes, where something went wrong on one of them, or the distance is not finite.
        """
        start = time.perf_counter()
        images, ranks = row.images, self.ranks
        folder = self._images(row)
        samples = Path(SAMPLES) / f"{row.key}.png"
        store = BlockStore(folder, cut(range(len(images.prompts)), images.batch))
        with row_at_stake():
            with ranks.apart():
                if ranks.first:
                    store.check(images.run, images.batch)
            drawn = write_missing(store, images.manifest(self.device, self.versions), images.draw, ranks, advance)
            with ranks.apart():
                source = open_source(folder)
                batches = image_batches(read_images(source), ranks, images.batch)
                prompted = match_images(source, images.prompts)
            figures = measure(
                keep_first(batches, self.folder / samples),
                len(images.prompts),
                self.setup.detector,
                self.setup.reference,
                ranks,
                metrics=self.setup.metrics,
            )
            if not isfinite(figures["frechet_distance"]):
                raise InputError("its distance is not finite")
            if self.scores:
                figures |= measure_scores(prompted, self.scores, ranks, batch_size=images.batch)
            result = {
                **row.about,
                **figures,
                "samples": str(samples),
                "drawn": drawn,
                "seconds": round(time.perf_counter() - start, 3),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            with ranks.apart():
                if ranks.first:
                    append_result(self.results, result)
                    self._tidy(row)
        return result

    def _images(self, row: TextRow) -> Path:
        return self.folder / IMAGES / row.key

    def _tidy(self, row: TextRow) -> None:
        folder = self._images(row)
        if self.keep or not folder.parent.exists():
            return
        if folder.exists():
            remove_folder(folder)
        remove_partials(folder.parent, folder.name)  # a kill may have come while it was removed
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
