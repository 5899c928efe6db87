"""`tune`: the plan that suits a net, from Python."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.net_drawing import NetDrawing, check_channels, check_identity
from restart_sampling.generation.pace import BLOCK, own_pace
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import drawn_classes, net_noise, require_net
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.plan_file import made_for_of
from restart_sampling.sampling.sample import as_shape
from restart_sampling.tuning.allowed import LEAST_NFE
from restart_sampling.tuning.budget import as_nfes
from restart_sampling.tuning.distance import Distance, by_name, open_setups
from restart_sampling.tuning.found import Found
from restart_sampling.tuning.net_run import NetRun
from restart_sampling.tuning.objective import Objective
from restart_sampling.tuning.of_samples import OfSamples
from restart_sampling.tuning.run import claimed_folder
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.teacher import Begin
from restart_sampling.tuning.tune_pipeline import ASKED, Pipeline, TunedSampler, is_pipeline, tune_pipeline

_DRAWING = ("classes", "guidance", "noise", "exact")  # of `NetDrawing`
_SETTINGS = tuple(each.name for each in fields(Settings))


@dataclass(frozen=True)
class TunedPlan(Found, Plan):
    """A plan that `tune` found, for the net that it was found for."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "TunedPlan":
        """Makes one of what `tune` wrote."""
        plan = Plan.parse_found(content["plan"])
        return cls(**{**vars(plan), **made_for_of(content), "evidence": content["evidence"]})


@overload
def tune(net: Pipeline, nfe: int | Sequence[int], **options: Any) -> TunedSampler | dict[int, TunedSampler]: ...


@overload
def tune(net: Net, nfe: int | Sequence[int], **options: Any) -> TunedPlan | dict[int, TunedPlan]: ...


def tune(
    net: Net | Pipeline,
    nfe: int | Sequence[int],
    *,
    prompts: Sequence[str] | str | Path | None = None,
    clip: str | None = None,
    reference: str | Path | None = None,
    detector: str = "inception",
    trust_detector: bool | str = False,
    confirm_with: Sequence[tuple[str, str | Path]] = (),
    objective: Callable[[Tensor], float] | None = None,
    shape: Sequence[int] | None = None,
    out: str | Path | None = None,
    batch_size: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> TunedPlan | TunedSampler | dict[int, TunedPlan] | dict[int, TunedSampler]:
    """Finds the plan that suits a net, and says how much better it is than the best usual one.

    Usual plans first, then a search, a polish of the best plans' numbers, a race of the best on fresh seeds, and one
    confirmation on seeds that nothing used. Where a plan cannot be told apart from a simpler one, the simpler is taken.

    Args:
        net: from `load_model`, `from_eps` and the like, or a text-to-image pipeline of diffusers; on the device to use.
        nfe: calls of the denoiser for a sample, or several such numbers; of a pipeline rows of its scheduler.
        prompts: of a pipeline: texts, or a file with them, as of `text generate`. Seed i has the i-th, and after the
            last comes the first again.
        clip: of a pipeline: a CLIP by `tiny-clip`, its name on the Hugging Face hub or its folder, for the CLIP score
            of what is confirmed, which may not fall; None: without it.
        reference: of images, whose values are -1 to 1: statistics as `restart-sampling reference` makes them, a file or
            an https URL. The Fréchet distance to it is what plans are judged by.
        detector: of the reference, as of `evaluate`.
        trust_detector: whether detectors that are TorchScript files of one's own may run their code, as of `evaluate`.
        confirm_with: further (detector, reference), by which the search does not go.
        objective: in place of a reference, for samples of any kind: a function of samples [n, *shape] to a number,
            lower where they are better, such as `sliced_wasserstein(data)`. Of a net with classes (label_dim) each
            seed has the class that `generate` draws for it. Plans are judged by its mean over groups of race / 40 and
            confirm / 10 samples, so one with a bias that falls with their number wants more of both.
        shape: of one sample, where the net has none of its own.
        out: a folder, in which a later call goes on where one was interrupted, and for `report`; the net must have an
            `identity`. None: nothing is kept.
        batch_size: samples at a time; default: as many as pay.
        tell: is told of the progress, in sentences.
        **options: of the search (minutes, trials, images, race, confirm, sampler, start, rises, restarts, solvers,
            known, tune_guidance:
            see `tuning.settings.Settings`); of images classes, guidance, noise and exact, as of `generate`; of a
            pipeline guidance (7.5), negative_prompt, height, width and interval (of guidance).

    Returns:
        The plan, with its `verdict` and `evidence`; of several NFE one for each, by NFE. For a pipeline it is a
        sampler, whose `scheduler(pipe)` is to be run with its `steps` as num_inference_steps.

    Raises:
        InputError: what is given does not fit together (before any work), the time does not suffice, or the objective
            returns no finite number.
    """
    known = (*_SETTINGS, *(ASKED if is_pipeline(net) else _DRAWING))
    if unknown := options.keys() - {*known}:
        raise TypeError(f"{', '.join(sorted(unknown))}: no such option; there are {', '.join(known)}")
    settings = Settings(**{key: value for key, value in options.items() if key in _SETTINGS})
    drawing = {key: value for key, value in options.items() if key not in _SETTINGS}
    nfes = as_nfes(nfe)
    if batch_size is not None and whole_number("batch_size", batch_size) < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1")
    judges = [] if reference is None else [(detector, reference), *confirm_with]
    if is_pipeline(net):
        if reference is None or objective is not None or shape is not None:
            raise InputError("a pipeline is tuned by a reference of images; give reference, and no objective or shape")
        samplers = tune_pipeline(
            net,
            nfes,
            settings,
            prompts=prompts,
            judges=judges,
            trust_detector=trust_detector,
            clip=clip,
            out=out,
            batch_size=batch_size,
            tell=tell,
            asked=drawing,
        )
        return samplers if isinstance(nfe, Iterable) else samplers[nfes[0]]
    require_net(net)
    if prompts is not None or clip is not None:
        raise InputError("prompts and clip are for text-to-image pipelines; leave them out")
    if (reference is None) == (objective is None):
        raise InputError("give either a reference of images or an objective, by which plans are judged")
    if objective is None:
        judged = _by_reference(net, judges, trust_detector, {**drawing, "batch": batch_size, "shape": shape})
    elif not callable(objective):
        raise InputError(f"the objective is {objective!r}; give a function of samples that returns a number")
    elif settings.tune_guidance:
        raise InputError("tune_guidance is for images that a reference judges; leave it out")
    elif shape is None or drawing or confirm_with or trust_detector or detector != "inception":
        raise InputError(
            "an objective needs the shape of one sample, such as shape=(2,), and takes no options of images and no "
            "detectors; leave them out"
        )
    else:
        by_function = OfSamples(net, as_shape(shape), objective, max(batch_size or BLOCK, 1024))
        judged = _Judged(by_function, begin_net(net, by_function.shape), 1.0)
        if out is not None:
            by_function.check_identity()
    plans = _tune_net(net, judged, nfes, settings, out, batch_size or BLOCK, tell)
    return plans if isinstance(nfe, Iterable) else plans[nfes[0]]


class _Judged(NamedTuple):
    """What judges the plans of a net, what starts its seeds, and the guidance scale; as of `NetRun`."""

    objective: Objective
    begin: Begin
    guidance: float


def _by_reference(
    net: Net, judges: Sequence[tuple[str, str | Path]], trust: bool | str, options: Mapping[str, Any]
) -> _Judged:
    """Judges images of a net, drawn with these options of `NetDrawing`, by (detector, reference)."""
    pace = own_pace(options["batch"], options.get("exact", False))

    def draw(text: str) -> NetDrawing:
        plan = Plan.parse_found(text)
        own = {} if plan.guidance is None else {"guidance": plan.guidance}
        return NetDrawing(net, plan, pace=pace, **{**options, **own})

    first = draw(f"{LEAST_NFE} solver=euler")
    check_channels(first)
    setups = by_name(open_setups(judges, net.device, trust), first.shape)
    return _Judged(Distance(draw, setups, images=of_all(first)), begin_drawing(first), first.guidance)


def _tune_net(
    net: Net,
    judged: _Judged,
    nfes: Sequence[int],
    settings: Settings,
    out: str | Path | None,
    batch: int,
    tell: Callable[[str], None],
) -> dict[int, TunedPlan]:
    if out is not None:
        check_identity({"model_sha256": net.identity})
    with claimed_folder(out) as folder:
        run = NetRun(
            model="own",
            identity=net.identity,
            settings=settings,
            ranks=Ranks(0, 1, net.device),
            folder=folder,
            tell=tell,
            net=net,
            batch=batch,
            **judged._asdict(),
        )
        run.begin_folder([run.space(nfe) for nfe in nfes])
        grids = run.grids(nfes)
        return {nfe: TunedPlan.of(run.tune_plan(nfe, grids)) for nfe in nfes}


def of_all(drawing: NetDrawing) -> dict[str, Any]:
    """Returns what determines the images of all plans of a run alike, beside the net: classes, guidance and so on."""
    return {key: value for key, value in drawing.about.items() if key not in ("model_sha256", "plan")}


def begin_drawing(drawing: NetDrawing) -> Begin:
    """Starts seeds as a drawing does, with its classes and its guidance."""

    def begin(seeds: Sequence[int]) -> Any:
        denoise, noise, _ = drawing.begin(seeds)
        return denoise, noise, drawing.shape

    return begin


def begin_net(net: Net, shape: Sequence[int]) -> Begin:
    """Starts seeds as `sample` does, with the classes that `generate` draws for them."""
    return lambda seeds: (partial(net, **drawn_classes(net, seeds)), net_noise(net, seeds), tuple(shape))
