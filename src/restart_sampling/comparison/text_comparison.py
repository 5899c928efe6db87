"""`TextComparison`: many samplers on the same prompts and seeds, as in the paper."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from restart_sampling.base.files import remove_folder, remove_partials
from restart_sampling.base.machine import versions
from restart_sampling.comparison.comparable import row_key
from restart_sampling.comparison.published_text import find_published
from restart_sampling.comparison.rows import Row, Watch
from restart_sampling.comparison.run import Comparison
from restart_sampling.evaluation.measure import image_batches
from restart_sampling.evaluation.scores import Scores, measure_scores
from restart_sampling.generation.seeds import cut
from restart_sampling.generation.store import BlockStore
from restart_sampling.generation.write import manifest, write_missing
from restart_sampling.images.image_set import read_images
from restart_sampling.images.prompts import match_images
from restart_sampling.images.sources import open_source
from restart_sampling.text_to_image.drawing import TextDrawing

IMAGES = "images"


def text_row(drawing: TextDrawing, prompts_path: Path) -> Row:
    """Makes the row of a sampler at a guidance scale, with the paper's values where it has them.

    Args:
        drawing: of all prompts.
        prompts_path: where the prompts come from, for the line.
    """
    request = drawing.request
    name = str(request.sampler)
    published = find_published(name, request.guidance)
    about: dict[str, Any] = {
        "run": drawing.about,
        "name": f"{name} at {request.guidance:g}",
        "family": request.sampler.family,
        "sampler": name,
        "guidance": request.guidance,
        "model": drawing.model.name,
        "plan": None,
        "nfe": drawing.nfe,
        "network_evaluations": drawing.network_evaluations,
        "published": None if published is None else asdict(published),
        "prompts": str(prompts_path),
    }
    return Row(about["name"], about, drawing, range(len(drawing.prompts)))


@dataclass(frozen=True, eq=False)
class TextComparison(Comparison):
    """A comparison whose images are kept in its folder until they are measured, because scores want them too.

    Attributes:
        prompts: of the images.
        scores: by name.
        keep: whether the images of a finished row stay.
    """

    prompts: Sequence[str] = ()
    scores: Scores = field(default_factory=dict)
    keep: bool = False

    def about(self) -> dict[str, Any]:
        """JSON, what the lines of all rows say alike."""
        return {
            **super().about(),
            "metrics": [*self.setup.metrics, *self.scores],
            **{name: score.about for name, score in self.scores.items()},
            "versions": versions("diffusers", "transformers"),
        }

    def measure(self, row: Row, watch: Watch) -> dict[str, Any]:
        """Draws the images of a row that are not in its folder, and measures them; all processes call this."""
        assert row.drawing is not None
        watch.begin(row, 0)
        folder, ranks, line = self._images(row), self.ranks, self.line(row)
        store = BlockStore(folder, cut(row.seeds, self.batch), line["run"])
        with ranks.failing_together():
            if ranks.first:
                store.check(self.batch)
        said = manifest(row.drawing, line["run"], line["model"], row.images, ranks.device, line["versions"])
        drawn = write_missing(store, said, row.drawing.draw, ranks, lambda images: watch.advance(row, images))
        with ranks.failing_together():
            source = open_source(folder)
            images = read_images(source)
            prompted = match_images(source, self.prompts)
        values = self.measure_batches(replace(row, files=images), image_batches(images, ranks, self.batch), watch)
        if self.scores:
            values |= measure_scores(prompted, self.scores, ranks, batch_size=self.batch)
        return {**values, "drawn": drawn}

    def tidy(self, row: Row) -> None:
        """Removes the images of a finished row."""
        folder = self._images(row)
        if self.keep or not folder.parent.exists():
            return
        if folder.exists():
            remove_folder(folder)
        remove_partials(folder.parent, folder.name)  # a kill may have come while it was removed
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def _images(self, row: Row) -> Path:
        assert self.folder is not None
        return self.folder / IMAGES / row_key(self.line(row))
