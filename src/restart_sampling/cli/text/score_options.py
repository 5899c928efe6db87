"""What the commands that score images of prompts share: the models of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import as_one

if TYPE_CHECKING:
    import torch

    from restart_sampling.evaluation.aesthetic import AestheticScore
    from restart_sampling.evaluation.clip import ClipScore


@dataclass(frozen=True)
class ScoreModels:
    """What the user asks of the scores: the values of `score_options`."""

    clip_name: str | None
    head: str | None
    head_clip: str | None

    def metrics(self, text: str, more: Sequence[str] = ()) -> tuple[str, ...]:
        """Reads the metrics in the text: the scores, and more that the command allows.

        Raises:
            InputError: there is no such metric, or a model was given for one that is left out.
        """
        from restart_sampling.evaluation.results_file import SCORES

        metrics = tuple(metric.strip() for metric in text.split(","))
        allowed = (*more, *SCORES)
        unknown = [metric for metric in metrics if metric not in allowed]
        if unknown:
            raise InputError(f"--metrics {text}: there is no '{unknown[0]}'; allowed: {', '.join(allowed)}")
        options = {"--clip": ("clip", self.clip_name)}
        options |= {"--head": ("aesthetic", self.head), "--head-clip": ("aesthetic", self.head_clip)}
        for option, (metric, value) in options.items():
            if value is not None and metric not in metrics:
                raise InputError(f"{option} is for the metric {metric}, which --metrics {text} leaves out")
        return metrics

    def load(
        self, metrics: Sequence[str], device: torch.device, tiny: bool = False
    ) -> dict[str, ClipScore | AestheticScore]:
        """Loads the scores among the metrics, by name.

        Args:
            metrics: some of which are scores.
            device: where to compute.
            tiny: whether the default is the CLIP that comes with the package, which is for pictures like CIFAR-10's.

        Raises:
            InputError: a model cannot be loaded.
        """
        from restart_sampling.evaluation.aesthetic import DEFAULT_HEAD, find_head, load_aesthetic
        from restart_sampling.evaluation.clip import DEFAULT_CLIP, ClipScore, load_clip
        from restart_sampling.evaluation.tiny_clip import TINY_CLIP

        head = self.head or DEFAULT_HEAD
        published = find_head(head)
        load = cache(lambda name: load_clip(name, device))  # both scores may be of one model
        scores: dict[str, ClipScore | AestheticScore] = {}
        if "clip" in metrics:
            scores["clip"] = ClipScore(load(self.clip_name or (TINY_CLIP if tiny else DEFAULT_CLIP)))
        if "aesthetic" in metrics:
            scores["aesthetic"] = load_aesthetic(head, load(self.head_clip or published.clip))
        return scores


score_options = as_one(
    "models",
    ScoreModels,
    (
        click.option(
            "--clip",
            "clip_name",
            metavar="MODEL",
            help="For clip: a CLIP on the Hugging Face hub or its folder; default: tiny-clip of the package for "
            "pictures of 32x32, else the paper's ViT-g/14, laion/CLIP-ViT-g-14-laion2B-s12B-b42K.",
        ),
        click.option(
            "--head",
            metavar="NAME",
            help="For aesthetic: one of LAION's six heads; default: the paper's, sac+logos+ava1-l14-linearMSE.",
        ),
        click.option(
            "--head-clip",
            metavar="MODEL",
            help="For aesthetic: the folder with the CLIP of the head; default: from the hub.",
        ),
    ),
)
"""Adds the options of the scores, which come to the command as `models`."""


def describe_score(about: dict[str, Any]) -> str:
    """Says what a score is made with, for the user."""
    scale = f", scale {about['scale']} (mean cosine)" if "scale" in about else ""
    head = f"{about['head']} on " if "head" in about else ""
    return f"{head}{about['model']}{scale}"
