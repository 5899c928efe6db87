"""A text-to-image pipeline with a sampler; each image's noise comes from its own seed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError, one_line, shorten
from restart_sampling.base.numbers import counted
from restart_sampling.base.numerics import full_float32
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.drawing import Advance
from restart_sampling.generation.pace import Pace, fitting, in_batches
from restart_sampling.text_to_image.guiding import (
    Interval,
    check_interval,
    counted_images,
    guiding,
    remembering,
    rows_on,
    testing,
)
from restart_sampling.text_to_image.pipeline import TEXT_BLOCK, TextToImage, networks_of, quiet
from restart_sampling.text_to_image.sampler_settings import FAILURES, noise_note
from restart_sampling.text_to_image.samplers import Sampler, check_pipeline, make_scheduler

_LATER = {"snr_shift_scale": 1.0, "sigma_data": None, "sigma_schedule": "karras", "rho": 7.0}
"""Settings that schedulers got after 0.1.0, at values that change nothing: files of that version go on."""


@dataclass(frozen=True)
class Request:
    """What is asked of a pipeline beside the prompts.

    Attributes:
        sampler: which scheduler, steps and restarts.
        guidance: scale of classifier-free guidance, the pipeline's guidance_scale.
        seed: image number i is drawn from seed + i.
        negative_prompt: what the images should not show; None: nothing is said.
        height: in pixels; None: the pipeline's.
        width: likewise.
        interval: levels where guidance is on, low < level <= high; None: all.
    """

    sampler: Sampler
    guidance: float = 7.5
    seed: int = 0
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class TextDrawing:
    """A pipeline with a sampler and prompts that was found able to draw them: a `Drawing`.

    Attributes:
        model: the pipeline.
        request: what is asked of it.
        prompts: that of image number i, which is its seed, is the i-th; a text is that of all images.
        batch: images of a batch.
        pace: how many are drawn at a time.
        scheduler: of the sampler.
        nfe: rows of the scheduler.
        on: whether a row is guided; None: guidance is as the pipeline has it.
        network_evaluations: of one image; two in the rows that are guided, by whichever network.
        path: (rows so far, level) on the way: sigma = std / alpha, or t of flow models.
        note: a sentence for the user about the sampler in this pipeline; None where there is nothing to say.
    """

    model: TextToImage
    request: Request
    prompts: Sequence[str] | str
    batch: int
    pace: Pace
    scheduler: Any
    nfe: int
    on: Sequence[bool] | None
    network_evaluations: int
    path: tuple[tuple[int, float], ...]
    note: str | None
    classes = ()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[3, height, width] of an image, where they were asked for."""
        height, width = self.request.height, self.request.width
        return None if height is None or width is None else (3, height, width)

    @property
    def about(self) -> dict[str, Any]:
        """All that determines the images but their numbers, as JSON."""
        asked = self.request
        prompts = [self.prompts] if isinstance(self.prompts, str) else list(self.prompts)
        config = {
            key: _json(value)
            for key, value in self.scheduler.config.items()
            if not (key.startswith("_") or (key in _LATER and _LATER[key] == value))
        }
        return {
            "model_sha256": self.model.sha256,
            "prompts": f"{len(prompts)}, sha256 {hashlib.sha256(json.dumps(prompts).encode()).hexdigest()}",
            "sampler": str(asked.sampler),
            "guidance": asked.guidance,
            "seed": asked.seed,
            "negative_prompt": asked.negative_prompt,
            "height": asked.height,
            "width": asked.width,
            **({} if asked.interval is None else {"guidance_interval": [_json(level) for level in asked.interval]}),
            **({} if self.model.guide is None else {"guide_sha256": self.model.guide.sha256}),
            "arithmetic": self.model.dtype,
            "pipeline": type(self.model.pipe).__name__,
            "scheduler": {"class": type(self.scheduler).__name__, **config},
        }

    def labels(self, seeds: Sequence[int]) -> None:
        """Images of prompts have no classes."""

    def draw(self, seeds: Sequence[int], advance: Advance = lambda images: None) -> Iterator[Batch]:
        """Draws the images of these numbers in batches, in their order; each depends on its number and prompt alone.

        Nothing is computed before it is asked for.

        Raises:
            InputError: an image is not finite or of another size, a step of the scheduler fails, or the pipeline draws
                noise without a seed, or evaluates its network another number of times than it was to.
        """
        return in_batches(fitting(seeds, self.pace, partial(self._draw_batch, advance)), self.batch)

    def _draw_batch(self, advance: Advance, numbers: Sequence[int]) -> Batch:
        model, request = self.model, self.request
        prompts = [self.prompts if isinstance(self.prompts, str) else self.prompts[number] for number in numbers]
        noise = _unseeded_noise(model.device)
        guided = nullcontext() if self.on is None else guiding(model.network, self.on, model.guide)
        what = f"{type(model.pipe).__name__} with sampler '{request.sampler}'"
        with (
            counted_images(
                *model.evaluated, evaluated=lambda images: advance(images / self.network_evaluations)
            ) as count,
            guided,
            self.pace.watching(model.device, len(numbers)),
        ):
            try:
                images = _call(model, request, self.scheduler, prompts, numbers)
            except (ValueError, TypeError) as error:  # of a setting that its scheduler looks at in a step
                raise InputError(f"{what}: {one_line(error)}") from error
        if count() != self.network_evaluations * len(numbers):
            raise InputError(
                f"{what} took {count()} network evaluations for {counted(len(numbers), 'image')}, and "
                f"{self.network_evaluations} for each were expected; use another sampler or pipeline"
            )
        if not all(map(torch.equal, noise, _unseeded_noise(model.device))):
            raise InputError(
                f"{what} draws noise without a seed, so that an image would depend on its batch; use another sampler"
            )
        if images.shape[1:3] != (request.height or images.shape[1], request.width or images.shape[2]):
            raise InputError(
                f"{what} makes images of {images.shape[1]}x{images.shape[2]}, where {request.height}x{request.width} "
                f"were asked for; give that size, or another one"
            )
        for number, prompt, image in zip(numbers, prompts, images, strict=True):
            if not np.isfinite(image).all():
                raise InputError(
                    f"image {number} ('{shorten(prompt, 60)}') is not finite with sampler '{request.sampler}'; check "
                    f"whether the network overflows in {model.dtype} (--dtype float32 or bfloat16 does not)"
                )
        pixels = torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
        return Batch(tuple(numbers), None, pixels)


def _json(value: Any) -> Any:
    """Makes JSON of a scheduler's setting, of which some are infinite and some are arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def prepare(
    model: TextToImage, request: Request, prompts: Sequence[str] | str = "", batch: int | None = None
) -> TextDrawing:
    """Makes the scheduler and finds out what an image will cost, with one evaluation of the network at the first time.

    Pipelines differ in how they set the timesteps, and in whether a guidance scale means classifier-free guidance, so
    the pipeline itself is asked: it is stopped at its first step.

    Args:
        model: the pipeline.
        request: what is asked of it.
        prompts: of `TextDrawing`.
        batch: images at a time; None: 16 at first, and then as many as pay on an NVIDIA device, which the first batch
            shows; fewer where they do not fit in the device's memory.

    Raises:
        InputError: the sampler, its plan or what else is asked does not fit the pipeline.
    """
    sampler, guided = request.sampler, request.interval is not None or model.guide is not None
    notes = [check_pipeline(type(model.pipe).__name__, sampler), _check_made_for(model, request)]
    if not isfinite(request.guidance):
        raise InputError(f"guidance is {request.guidance:g}; give a finite scale, such as 7.5")
    if request.interval is not None:
        check_interval(request.interval)
    if model.guide is not None and request.negative_prompt is not None:
        raise InputError(
            f"a negative prompt does nothing where {model.guide.name} guides in place of the network without a prompt; "
            f"leave one of them out"
        )
    known = signature(type(model.pipe).__call__).parameters
    for name in ("negative_prompt", "height", "width"):
        if getattr(request, name) is not None and name not in known:
            raise InputError(f"{type(model.pipe).__name__} takes no {name}; leave it out")
    if (request.height is None) != (request.width is None):  # pipelines forget the one without the other
        raise InputError("height and width go together; give both, or neither for the pipeline's own size")
    scheduler = make_scheduler(sampler, model.scheduler_config, request.guidance)
    try:
        row_evaluations = _first_row(model, request, scheduler, guided)
    except FAILURES as error:
        raise InputError(f"sampler '{sampler}' with {type(model.pipe).__name__}: {one_line(error)}") from error
    if request.negative_prompt is not None and row_evaluations == 1:
        raise InputError(
            f"a negative prompt does nothing without classifier-free guidance, which {type(model.pipe).__name__} does "
            f"not do at guidance {request.guidance:g}; leave it out, or give a scale above 1"
        )
    notes.append(noise_note(dict(sampler.settings), scheduler.config, model.scheduler_config))
    if request.guidance < 1 and row_evaluations == 1:
        notes.append(f"{type(model.pipe).__name__} does no classifier-free guidance at scale {request.guidance:g}")
    nfe, levels = len(scheduler.timesteps), _levels(scheduler)
    path = _path(scheduler, levels)
    on = rows_on(levels[:nfe], request.interval) if guided else None
    evaluations = nfe * row_evaluations if on is None else nfe + sum(on)
    pace = model.pace if batch is None else Pace(batch)
    block = TEXT_BLOCK if batch is None else batch
    note = "; ".join(filter(None, notes)) or None
    return TextDrawing(model, request, prompts, block, pace, scheduler, nfe, on, evaluations, path, note)


def _check_made_for(model: TextToImage, request: Request) -> str | None:
    """Says what has to be known of a sampler that was found by a search; None where there is nothing.

    Raises:
        InputError: it was found for another pipeline.
    """
    made_for = request.sampler.made_for
    if made_for is None:
        return None
    if made_for.identity != model.identity:
        raise InputError(
            f"the sampler '{request.sampler}' was found for another pipeline, of identity {made_for.identity[:12]} and "
            f"not {model.identity[:12]}, and one that helps a model can harm another; give --any-model, or in Python "
            f"the text of the sampler, to use it all the same"
        )
    if made_for.guidance != request.guidance:
        return f"the sampler was found at guidance {made_for.guidance:g}, and this is {request.guidance:g}"
    return None


def _call(
    model: TextToImage, request: Request, scheduler: Any, prompts: Sequence[str], numbers: Sequence[int]
) -> np.ndarray:
    """Runs the pipeline: images from 0 to 1, float32 [B, H, W, C]."""
    generators = [torch.Generator().manual_seed(request.seed + number) for number in numbers]
    scheduler.generator = generators  # ours draws from these where the pipeline passes none
    own = model.pipe.scheduler
    for pipe in (model.pipe, *vars(model.pipe).values()):  # also the pipelines inside Kandinsky's combined ones
        if getattr(pipe, "scheduler", None) is own:
            pipe.scheduler = scheduler
    size = {name: value for name in ("height", "width") if (value := getattr(request, name)) is not None}
    negative = {} if request.negative_prompt is None else {"negative_prompt": [request.negative_prompt] * len(prompts)}
    with quiet(), full_float32():
        images: np.ndarray = model.pipe(
            prompt=list(prompts),
            num_inference_steps=request.sampler.steps,
            guidance_scale=request.guidance,
            generator=generators,
            output_type="np",
            **size,
            **negative,
        ).images
    return images


class _FirstStep(Exception):  # noqa: N818  not an error
    """The pipeline has evaluated its network and calls its scheduler with what it made of the answers."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _first_row(model: TextToImage, request: Request, scheduler: Any, guided: bool) -> int:
    """Counts the evaluations of the networks for one image before the first step of the scheduler.

    What networks were asked for another sampler they are not asked again, for their answers do not matter.

    Args:
        model: the pipeline.
        request: what is asked of it.
        scheduler: is called once.
        guided: whether the pipeline has to guide as `guiding` takes it, D = D_first + scale (D_second - D_first).

    Raises:
        InputError: it never calls its scheduler, or guides in another way.
    """

    @wraps(scheduler.step)  # pipelines look at its arguments
    def stop(model_output: Tensor, *_: Any, **__: Any) -> None:
        raise _FirstStep(model_output)

    scheduler.step = stop
    try:
        with (
            remembering({*networks_of(model.pipe).values(), *model.evaluated}, model.answers),
            counted_images(*model.evaluated) as count,
            testing(model.network, model.guide) if guided else nullcontext(),
        ):
            _call(model, request, scheduler, ["a photo"], [0])
    except _FirstStep as first:
        # The answers were 0 and 1.
        if guided and not (first.output.float() - request.guidance).abs().max() <= 1e-2 * abs(request.guidance):
            raise InputError(
                "it makes something else of its network's answers than classifier-free guidance, which a guidance "
                "interval and a guide need; leave them out"
            ) from None
        return count()
    finally:
        del scheduler.step
    raise InputError("it never called its scheduler")


def _path(scheduler: Any, levels: Sequence[float]) -> tuple[tuple[int, float], ...]:
    from restart_sampling.text_to_image.restart_steps import RestartSteps

    if isinstance(scheduler, RestartSteps):
        return tuple(scheduler.path.schedule(*scheduler.solvers))
    # Of two neighbours that are equal the first is where Heun's method looks ahead, the second where it arrives.
    return tuple((row, now) for row, (now, then) in enumerate(pairwise([*levels, -1.0])) if now != then)


def _levels(scheduler: Any) -> list[float]:
    """Lists the level of each row; and where the last one arrives, for schedulers that know it."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas.tolist()
    alphas = scheduler.alphas_cumprod[scheduler.timesteps.cpu()]
    return ((1 - alphas) / alphas).sqrt().tolist()


def _unseeded_noise(device: torch.device) -> list[Tensor]:
    """Lists the states of the generators that belong to no image."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    if device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states
