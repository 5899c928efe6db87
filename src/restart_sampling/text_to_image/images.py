"""Images of prompts, by their numbers: what they are, and how they are drawn."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from restart_sampling.generation.generate import Batch
from restart_sampling.text_to_image.generate import Drawing, generate


@dataclass(frozen=True, eq=False)
class TextImages:
    """Images of prompts; that of the i-th prompt has the number i.

    Attributes:
        drawing: the pipeline with its sampler.
        prompts: all of them.
        batch: images at a time.
    """

    drawing: Drawing
    prompts: Sequence[str]
    batch: int

    @property
    def run(self) -> dict[str, Any]:
        """JSON, what defines the images."""
        digest = hashlib.sha256(json.dumps(list(self.prompts)).encode()).hexdigest()
        about = self.drawing.about
        return {
            "model_sha256": about.pop("model_sha256"),
            "prompts": f"{len(self.prompts)}, sha256 {digest}",
            **about,
        }

    def manifest(self, device: str, versions: dict[str, str]) -> dict[str, Any]:
        """JSON, what the images will be, for `write_missing`."""
        return {
            "format": "restart-sampling-images/1",
            "run": self.run,
            "model": self.drawing.model.name,
            "nfe": self.drawing.nfe,
            "network_evaluations": self.drawing.network_evaluations,
            "images": len(self.prompts),
            "device": device,
            "batch": self.batch,
            "versions": versions,
        }

    def draw(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """The images of these numbers, in batches."""
        return generate(self.drawing, [self.prompts[number] for number in numbers], numbers, batch_size=self.batch)
