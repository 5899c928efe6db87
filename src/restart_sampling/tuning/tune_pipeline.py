"""`tune` of a text-to-image pipeline of diffusers, from Python."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.clip import ClipScore, load_clip
from restart_sampling.images.prompts import read_prompts
from restart_sampling.text_to_image.drawing import Request
from restart_sampling.text_to_image.pipeline import as_model, scheduler_config
from restart_sampling.text_to_image.samplers import MadeFor, Sampler, make_scheduler
from restart_sampling.tuning.distance import open_setups
from restart_sampling.tuning.found import Found
from restart_sampling.tuning.run import claimed_folder
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.text_run import any_sampler, make_text_run

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # of typing from Python 3.13 on

ASKED = ("guidance", "negative_prompt", "height", "width", "interval")
"""Of `Request`."""


class Pipeline(Protocol):
    """A text-to-image pipeline of diffusers."""

    scheduler: Any

    @property
    def components(self) -> Mapping[str, Any]:
        """Its networks, tokenizers and scheduler."""
        ...


@dataclass(frozen=True)
class TunedSampler(Found, Sampler):
    """A sampler that `tune` found, for the pipeline and the guidance scale that it was found for."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "TunedSampler":
        """Makes one of what `tune` wrote."""
        made_for = MadeFor(content["model_sha256"], content["guidance"])
        own = {**vars(Sampler.parse(content["plan"])), "made_for": made_for, "evidence": content["evidence"]}
        return cls(**own)

    def scheduler(self, pipe: Pipeline) -> Any:
        """Makes the scheduler for a pipeline, which is to be called with num_inference_steps=sampler.steps."""
        assert self.made_for is not None
        return make_scheduler(self, scheduler_config(pipe), self.made_for.guidance)


def is_pipeline(model: object) -> "TypeIs[Pipeline]":
    """Tells whether this is a pipeline of diffusers, and no net."""
    return hasattr(model, "scheduler") and hasattr(model, "components")


def tune_pipeline(
    pipe: Pipeline,
    nfes: Sequence[int],
    settings: Settings,
    *,
    prompts: Sequence[str] | str | Path | None,
    judges: Sequence[tuple[str, str | Path]],
    trust_detector: bool | str,
    clip: str | None,
    out: str | Path | None,
    batch_size: int | None,
    tell: Callable[[str], None],
    asked: Mapping[str, Any],
) -> dict[int, TunedSampler]:
    """Finds the samplers that suit a pipeline, by NFE; arguments as of `tune`.

    Args:
        pipe: on its device; it is left as it is.
        nfes: rows of the scheduler for an image.
        settings: how a sampler is looked for.
        prompts: texts, or a file with them.
        judges: (detector, reference); the search goes by the first.
        trust_detector: as of `tune`.
        clip: for the CLIP score.
        out: a folder.
        batch_size: images at a time.
        tell: is told of the progress.
        asked: of the pipeline, by `ASKED`.
    """
    if settings.solvers is not None or not settings.known:
        raise InputError("solvers and known are of the search of a net; leave them out for a pipeline")
    texts = read_prompts(Path(prompts)) if isinstance(prompts, str | Path) else list(prompts or ())
    if not texts:
        raise InputError("a pipeline is tuned with prompts; give a list of texts, or a file with one a line")
    own = copy(pipe)
    if getattr(own, "safety_checker", None) is not None:
        own.safety_checker = None  # type: ignore[attr-defined]  # it makes images black
    model = as_model(own, "the pipeline", "own")
    setups = open_setups(judges, model.device, trust_detector)
    with claimed_folder(out) as folder:
        run = make_text_run(
            model,
            Request(any_sampler(model), **asked),
            texts,
            setups,
            settings,
            clip=ClipScore(load_clip(clip, model.device)) if clip else None,
            ranks=Ranks(0, 1, model.device),
            folder=folder,
            batch=batch_size,
            tell=tell,
        )
        run.begin_folder([run.space(each) for each in nfes])
        return {each: TunedSampler.of(run.tune(run.space(each))) for each in nfes}
