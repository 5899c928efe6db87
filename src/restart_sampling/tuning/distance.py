"""`Distance`: gives plans their scores by the Fréchet distance of their images to a reference."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.run import keep_first, own_batches
from restart_sampling.evaluation.clip import ClipScore, prepare_images
from restart_sampling.evaluation.collect import Collector, Features
from restart_sampling.evaluation.detectors import is_torchscript
from restart_sampling.evaluation.distances import distances_of_blocks
from restart_sampling.evaluation.metrics import METRICS, check_metrics, on_gpu
from restart_sampling.evaluation.neighbours import recall
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.setup import EvaluationSetup, open_setup
from restart_sampling.evaluation.statistics import Moments
from restart_sampling.evaluation.values import recall_draws, share_error
from restart_sampling.generation.drawing import Drawing
from restart_sampling.generation.seeds import cut
from restart_sampling.tuning.objective import CLIP_SCORE, Key, Scores
from restart_sampling.tuning.score import Score

NEIGHBOURS = 5000
"""Images on either side of recall, whose cost grows with their product, where there are so many."""


@dataclass(frozen=True)
class Captions:
    """How well images fit their prompts.

    Attributes:
        score: of an image and its prompt.
        prompts: of `TextDrawing`.
        always: whether it is measured in all stages, and not in the confirmation alone.
    """

    score: ClipScore
    prompts: Sequence[str]
    always: bool = False

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Scores uint8 images [B, 3, H, W] of these seeds; float32 [B], on the CPU."""
        prepared = prepare_images(images, self.score.clip.side)
        return self.score(prepared, [self.prompts[seed] for seed in seeds]).cpu()


@dataclass(frozen=True)
class Distance:
    """The Fréchet distance of images to a reference.

    Attributes:
        draw: makes the drawing of a plan.
        setups: detectors with their references, by name; the search goes by the first.
        captions: for the CLIP score; None: without it.
        images: JSON, what determines the images beside plan and seed and may not change in a run.
    """

    draw: Callable[[str], Drawing]
    setups: Mapping[str, EvaluationSetup]
    captions: Captions | None = None
    images: Mapping[str, Any] = field(default_factory=dict)
    about_before: ClassVar[Mapping[str, Any]] = {}

    @property
    def about(self) -> dict[str, Any]:
        """The references and the detectors, and what determines the images."""
        known = ("detector", "reference")
        detectors = {name: {key: each.about[key] for key in known} for name, each in self.setups.items()}
        clip = {"clip": self.captions.score.about} if self.captions else {}
        return {"detectors": detectors, **clip, **self.images}

    @property
    def features(self) -> dict[str, int]:
        """How many features the detectors have."""
        return {name: setup.reference.width for name, setup in self.setups.items()}

    def nfe(self, plan: str) -> int:
        """Returns the calls of the denoiser for an image."""
        return self.draw(plan).nfe

    def measure(self, key: Key, ranks: Ranks, keep: Path | None = None) -> Scores:
        """Measures as `Objective.measure` says; the confirmation has further metrics as the references allow."""
        setups = dict(islice(self.setups.items(), None if key.confirm else 1))
        collectors = {
            name: Collector(setup.detector, len(key.seeds), 1, blocks=key.parts, keep=key.confirm or not key.groups)
            for name, setup in setups.items()
        }
        drawing = self.draw(key.plan)
        batches = own_batches(drawing, key.seeds, ranks)
        captions = self.captions if self.captions and (key.confirm or self.captions.always) else None
        fits = torch.zeros(len(key.seeds), dtype=torch.float64)
        with ranks.failing_together():
            for places, images, labels in keep_first(batches, keep) if keep else batches:
                for collector in collectors.values():
                    collector.add(images, places, labels)
                if captions:
                    fits[list(places)] = captions(images, [key.seeds[place] for place in places]).double()
        scores = {}
        for name, collector in collectors.items():
            reference, moments = setups[name].reference, collector.reduced(ranks.all_reduce, ranks.gather)
            features = collector.features(ranks.gather, drawing.classes) if collector.keep else None
            more = _more if key.confirm else _recall
            metrics = more(features, reference, collector.detector.device) if features else {}
            scores[name] = _score(moments, reference, key.blocks, key.groups, metrics)
        if captions:
            fits = torch.stack(ranks.gather(fits)).sum(dim=0)  # each image is one process's
            scores[CLIP_SCORE] = Score.of_means(fits.view(key.parts, -1).mean(dim=1).tolist(), key.blocks, key.groups)
        return scores


def open_setups(
    pairs: Sequence[tuple[str, str | Path]], device: torch.device, trust: bool | str
) -> list[EvaluationSetup]:
    """Loads detectors with their references.

    Args:
        pairs: (detector, reference).
        device: where to compute.
        trust: as of `open_setup`, for those that are TorchScript files.

    Raises:
        InputError: they do not fit together.
    """
    # Where none is a file, trust is refused; of several that are trusted one may be none.
    trusted = [detector for detector, _ in pairs if is_torchscript(detector)] or [detector for detector, _ in pairs]
    return [
        open_setup(str(each), detector, ("fd",), 1, device, trust_detector=detector in trusted and trust)
        for detector, each in pairs
    ]


def by_name(setups: Sequence[EvaluationSetup], shape: Sequence[int] | None) -> dict[str, EvaluationSetup]:
    """Names each setup by its detector, and where that is taken by its reference too.

    Args:
        setups: of one detector and reference each.
        shape: [C, H, W] of the images, on one of which each detector is tried; None: not known.

    Raises:
        InputError: two are the same, a detector fails or does not fit its reference, or that keeps too few features.
    """
    found: dict[str, EvaluationSetup] = {}
    seen = set()
    for setup in setups:
        name, reference = Path(setup.about["detector_name"]).name, setup.about["reference"]
        pair = (setup.detector.identity, reference["sha256"])
        if pair in seen:
            raise InputError(f"detector {name} with {reference['path']} is there twice; give each pair once")
        seen.add(pair)
        if setup.reference.features is not None:  # then recall is measured
            check_metrics(["pr"], setup.reference)
        setup.try_detector(shape)
        found[f"{name} on {reference['path']}" if name in found else name] = setup
    return found


def _score(moments: Moments, reference: Reference, blocks: int, groups: int, metrics: Mapping[str, Any]) -> Score:
    """Scores sums in blocks x groups groups."""
    values, without = distances_of_blocks(moments, reference.statistics, blocks)
    return Score(tuple(values), tuple(map(tuple, cut(without, max(groups, 1)))), metrics)


def _more(features: Features, reference: Reference, device: torch.device) -> dict[str, Any]:
    """Metrics beside the distance, as far as the reference allows them, on a device: a CPU takes minutes for them.

    Recall has no more images of the reference than generated ones: more would hardly make it surer.
    """
    values = _compute("fd-infinity", features, reference, device)
    if reference.features is None:
        return values
    step = max(1, len(features.values) // NEIGHBOURS)
    reference_step = ceil(len(reference.features) / min(NEIGHBOURS, len(features.values)))
    values |= _compute("pr", features.part(step), reference.part(reference_step), device)
    if reference.labels is not None and features.labels is not None:
        with suppress(InputError):  # too few images of a class
            values |= _compute("per-class", features, reference, device)
    return values


def _recall(features: Features, reference: Reference, device: torch.device) -> dict[str, Any]:
    """Measures the recall of a trial's few images, where the reference allows it, by `NEIGHBOURS` images of it.

    These are more than the generated ones, for that nearly halves the scatter where those are 1,000.
    """
    if reference.features is None:
        return {}
    few = reference.part(ceil(len(reference.features) / NEIGHBOURS))
    share, real = on_gpu(_recalled, features, few, device)
    return {"recall": share, "recall_error": share_error(share, recall_draws(len(features.values), real))}


def _recalled(features: Features, reference: Reference) -> tuple[float, int]:
    assert reference.features is not None
    return recall(features.values, reference.features), len(reference.features)


def _compute(metric: str, features: Features, reference: Reference, device: torch.device) -> dict[str, Any]:
    compute = METRICS[metric].compute
    assert compute is not None
    return on_gpu(compute, features, reference, device)
