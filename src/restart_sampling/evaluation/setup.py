"""`EvaluationSetup`: the reference, detector and metrics that measure images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.download import fetch
from restart_sampling.base.errors import InputError
from restart_sampling.base.files import sha256
from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.detectors import INCEPTION_SHA256, Detector, load_detector
from restart_sampling.evaluation.metrics import NEED_FEATURES, check_metrics
from restart_sampling.evaluation.partial_sums import PartialSums
from restart_sampling.evaluation.reference import Reference, load_reference


@dataclass(frozen=True)
class EvaluationSetup:
    """What images are measured with.

    Attributes:
        reference: to compare with.
        detector: that the reference was made with.
        metrics: of `evaluation.metrics.METRICS`.
        blocks: of seeds, each measured by itself.
        about: JSON, all of this for the results file.
        note: for the user; None: nothing to say.
    """

    reference: Reference
    detector: Detector
    metrics: tuple[str, ...]
    blocks: int
    about: dict[str, Any]
    note: str | None

    def try_detector(self, shape: Sequence[int] | None) -> None:
        """Tries the detector on an image [C, H, W], before any work; None: of the reference's size, or any.

        Raises:
            InputError: it fails, or gives another number of features than the reference has.
        """
        found, expected = self.detector.try_on(shape or (3, *(self.reference.size or (64, 64)))), self.reference.width
        if found != expected:
            raise InputError(
                f"the detector gives {found} features and the reference has {expected}; "
                f"use the detector that the reference was made with"
            )

    def partial(
        self, folder: Path, run: Mapping[str, Any], batch: int, versions: Mapping[str, str], ranks: Ranks
    ) -> PartialSums:
        """Returns where the sums of an unfinished row are kept.

        Args:
            folder: for those of all rows.
            run: JSON, what defines the images.
            batch: images at a time.
            versions: of what computes.
            ranks: the processes.
        """
        about = {
            "run": run,
            "detector": self.detector.identity,
            "batch": batch,
            "blocks": self.blocks,
            "features": bool(NEED_FEATURES & set(self.metrics)),
            "versions": versions,
        }
        return PartialSums(folder, about, ranks.rank, ranks.size)


def open_setup(
    reference_name: str,
    detector_name: str,
    metrics: Sequence[str] | str,
    blocks: int,
    device: torch.device,
    *,
    trust_detector: bool | str = False,
) -> EvaluationSetup:
    """Loads what the metrics need, and checks that it fits together.

    Args:
        reference_name: a file or an https URL.
        detector_name: for `load_detector`.
        metrics: names, or a text with commas between them.
        blocks: of seeds.
        device: where the detector computes.
        trust_detector: for `load_detector`.

    Raises:
        InputError: a file is missing or damaged, or the reference was made with another detector, or lacks what a
            metric needs.
    """
    path = fetch(reference_name) if "://" in reference_name else Path(reference_name)
    reference = load_reference(path)
    metrics = [metric.strip() for metric in metrics.split(",")] if isinstance(metrics, str) else metrics
    check_metrics(metrics, reference)
    if detector_name == "inception":  # before it is downloaded
        reference.check_detector(f"torchscript sha256 {INCEPTION_SHA256}", detector_name)
    detector = load_detector(detector_name, device, trust=trust_detector)
    note = reference.check_detector(detector.identity, detector.name)
    about = {
        "detector": detector.identity,
        "detector_name": detector_name,
        "metrics": list(metrics),
        "blocks": blocks,
        "reference": {
            "path": reference_name,
            "sha256": sha256(path),
            "images": reference.statistics.count,
            "source": reference.source,
        },
    }
    return EvaluationSetup(reference, detector, tuple(metrics), blocks, about, note)
