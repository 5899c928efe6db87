"""A run of `tune` of a text-to-image pipeline."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.clip import ClipScore
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.text_to_image.drawing import Request, TextDrawing, prepare
from restart_sampling.text_to_image.pipeline import TextToImage
from restart_sampling.text_to_image.samplers import SAMPLER_FORMAT, Sampler, is_flow
from restart_sampling.tuning.distance import Captions, Distance, by_name
from restart_sampling.tuning.run import Run
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.space import check_scale
from restart_sampling.tuning.text_space import TextSpace

_OF_SAMPLERS = ("model_sha256", "sampler", "scheduler", "seed")  # what `TextDrawing.about` says that is not of all


@dataclass(frozen=True, kw_only=True)
class TextRun(Run):
    """The folder of a run of a pipeline with prompts.

    Attributes:
        draw: makes the drawing of a sampler, by its text.
        first: one of these.
    """

    draw: Callable[[str], TextDrawing]
    first: TextDrawing

    def space(self, nfe: int) -> TextSpace:
        """Makes the space of the samplers of an NFE."""
        request, config = self.first.request, self.first.model.scheduler_config
        settings = self.settings
        allowed = settings.rises, settings.restarts, settings.tune_guidance
        return TextSpace(nfe, config, request.guidance, self.draw, *allowed)

    def form(self, plan: str) -> dict[str, Any]:
        """Makes JSON: what the file of a sampler says first."""
        return {"format": SAMPLER_FORMAT, "guidance": _at(self.first.request, plan).guidance}


def any_sampler(model: TextToImage) -> Sampler:
    """Finds a sampler that fits a pipeline."""
    return Sampler("euler" if is_flow(model.scheduler_config) else "ddim", 2)


def _at(request: Request, text: str) -> Request:
    """Makes the request for a sampler, at the guidance scale that it has or that of all."""
    sampler = Sampler.parse(text)
    return replace(
        request, sampler=sampler, guidance=request.guidance if sampler.guidance is None else sampler.guidance
    )


class Again(Sequence[str]):
    """Texts without end: after the last comes the first again."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __getitem__(self, number: Any) -> Any:
        return self._texts[number % len(self._texts)]

    def __iter__(self) -> Iterator[str]:
        """Goes through each once."""
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def make_text_run(
    model: TextToImage,
    request: Request,
    prompts: Sequence[str],
    setups: Sequence[EvaluationSetup],
    settings: Settings,
    *,
    clip: ClipScore | None,
    ranks: Ranks,
    folder: Path,
    batch: int | None,
    tell: Callable[[str], None],
) -> TextRun:
    """Makes the run of a pipeline.

    Args:
        model: the pipeline.
        request: what is asked of it; its sampler is any that fits.
        prompts: seed i has the i-th, and after the last comes the first again.
        setups: detectors with their references; the search goes by the first.
        settings: how a sampler is looked for.
        clip: for the CLIP score of what is confirmed; None: without it.
        ranks: the processes.
        folder: of the run.
        batch: images at a time; None: as for `prepare`.
        tell: is told of the progress, in sentences.

    Raises:
        InputError: what is asked does not fit the pipeline, a detector fails or does not fit its reference, or the
            guidance scale cannot be searched so.
    """
    if settings.tune_guidance and clip is None:
        raise InputError(
            "the guidance scale is searched only with a CLIP, for distances by themselves prefer low scales; give "
            "--clip (clip), or a fixed scale"
        )
    if settings.tune_guidance:
        check_scale(request.guidance)
    texts = Again(prompts)

    @cache
    def draw(text: str) -> TextDrawing:
        return prepare(model, _at(request, text), texts, batch)

    first = draw(str(request.sampler))
    images: dict[str, Any] = {key: value for key, value in first.about.items() if key not in _OF_SAMPLERS}
    captions = Captions(clip, texts, always=settings.tune_guidance) if clip else None
    return TextRun(
        model=model.name,
        identity=model.identity,
        objective=Distance(draw, by_name(setups, first.shape), captions, images),
        settings=settings,
        ranks=ranks,
        folder=folder,
        tell=tell,
        draw=draw,
        first=first,
    )
