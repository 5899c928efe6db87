"""What the commands that draw with a text-to-image pipeline share: their options, and the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.cli.options import as_one, dtype_option, read_list
from restart_sampling.text_to_image.bundled import GUIDANCE, PROMPTS, TINY, usual_guidance

if TYPE_CHECKING:
    import torch

    from restart_sampling.text_to_image.drawing import Request, TextDrawing
    from restart_sampling.text_to_image.pipeline import TextToImage
    from restart_sampling.text_to_image.samplers import Sampler

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def _interval(text: str) -> tuple[float, float]:
    """Reads LOW,HIGH.

    Raises:
        InputError: it is no interval.
    """
    from restart_sampling.text_to_image.guiding import check_interval

    levels = read_list(float, text)
    if len(levels) != 2:
        raise InputError(f"--guidance-interval {text}: give two levels with a comma between, such as 0.3,5")
    interval = (levels[0], levels[1])
    check_interval(interval)
    return interval


_OPTIONS = (
    click.option(
        "--model",
        "model_name",
        default=TINY,
        show_default=True,
        metavar="MODEL",
        help=f"A text-to-image pipeline of diffusers: {TINY}, which comes with the package; on the Hugging Face hub, "
        f"such as {STABLE_DIFFUSION}; or its folder.",
    ),
    click.option("--negative-prompt", metavar="TEXT", help="What the images should not show."),
    click.option(
        "--guidance-interval",
        "interval",
        metavar="LOW,HIGH",
        callback=lambda _context, _option, text: None if text is None else _interval(text),
        help="Guide at the levels LOW < level <= HIGH alone: sigma, or t of flow models. Default: at all levels.",
    ),
    click.option(
        "--guide",
        "guide_name",
        metavar="MODEL",
        help="Autoguidance: a worse pipeline of the same kind, whose network guides in place of the unconditional one.",
    ),
    click.option("--height", type=click.IntRange(1), metavar="PIXELS", help="With --width; default: the pipeline's."),
    click.option("--width", type=click.IntRange(1), metavar="PIXELS", help="With --height."),
    dtype_option,
    click.option(
        "--batch",
        type=click.IntRange(1),
        help="Images at a time; default: 16, as many as pay on NVIDIA devices, or fewer for lack of memory.",
    ),
)
guidance_option = click.option(
    "--guidance",
    type=float,
    help=f"Guidance scale (guidance_scale); 1 is none.  [default: {GUIDANCE:g} for {TINY}, else 7.5]",
)
seed_option = click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**62),
    help="Image number i has the seed SEED + i, whatever the batch or the process.",
)
prompts_option = click.option(
    "--prompts",
    "prompts_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A CSV with a column 'caption', such as that of 'text coco', or a .txt with a prompt a line; default: the "
    f"captions that come with {TINY}, for it alone.",
)
images_option = click.option("--images", "count", type=click.IntRange(1), help="The first so many; default: all.")
SAMPLER_HELP = (
    "ddim, ddpm, heun, dpmpp, restart or restart-dpmpp, with steps (ddim:50), restarts (restart:30 [10,2,0.1,2.0]) and "
    "settings of the scheduler (dpmpp:25 use_karras_sigmas=true); flow models: euler, heun, restart; or a .json of "
    "'text tune'."
)
PACKAGES = ("diffusers", "transformers")
"""Their versions are kept beside images and results."""
FLOW_SAMPLERS = ("euler:28", "heun:15", "restart:28 [4,1,0.3,0.6]")


@dataclass(frozen=True)
class PipelineOptions:
    """What the user asks of a pipeline: the values of `drawing_options`."""

    model_name: str
    negative_prompt: str | None
    interval: tuple[float, float] | None
    guide_name: str | None
    height: int | None
    width: int | None
    dtype: str
    batch: int | None
    any_model: bool = False

    @property
    def tiny(self) -> bool:
        """Whether it is the pipeline that comes with the package."""
        return self.model_name == TINY

    def scale(self, guidance: float | None, sampler: Sampler | None = None) -> float:
        """Finds the guidance scale: what the user wrote, what goes with the sampler, or what suits the pipeline."""
        if guidance is not None:
            return guidance
        if sampler is not None and sampler.guidance is not None:
            return sampler.guidance
        return usual_guidance(self.model_name)

    def captions(self, path: Path | None) -> Path:
        """Finds the prompts: in the file of the user, or that of the pipeline.

        Raises:
            InputError: neither is there.
        """
        if path is None and not self.tiny:
            raise InputError(f"--model {self.model_name} has no prompts of its own; give --prompts with a file")
        return path or PROMPTS

    def load(self, device: torch.device) -> TextToImage:
        """Loads the pipeline on the device, and what guides it."""
        import torch

        from restart_sampling.text_to_image.pipeline import load_guide, load_pipeline

        half = "float16" if device.type == "cuda" else "float32"
        model = load_pipeline(self.model_name, device, getattr(torch, half if self.dtype == "auto" else self.dtype))
        return model if self.guide_name is None else replace(model, guide=load_guide(self.guide_name, model))

    def request(self, sampler: Sampler, guidance: float, seed: int) -> Request:
        """Makes the request for a sampler."""
        from restart_sampling.text_to_image.drawing import Request

        sampler = replace(sampler, made_for=None) if self.any_model else sampler
        return Request(sampler, guidance, seed, self.negative_prompt, self.height, self.width, self.interval)


pipeline_options = as_one("asked", PipelineOptions, _OPTIONS)
"""Adds the options of a pipeline, which come to the command as `asked`."""
_any_model_option = click.option(
    "--any-model", is_flag=True, help="Use the .json of a sampler that 'text tune' found for another pipeline."
)
drawing_options = as_one("asked", PipelineOptions, (*_OPTIONS, _any_model_option))
"""Adds the options of a pipeline that draws with samplers of the user's, which come to the command as `asked`."""


def pick_samplers(
    texts: Sequence[str],
    model: TextToImage,
    default: Sequence[str],
    guidances: Sequence[float] | None,
    usual: Sequence[float],
) -> list[tuple[Sampler, float]]:
    """Reads the samplers that the user wrote; else takes the default, or that of flow models.

    Args:
        texts: what the user wrote.
        model: the pipeline.
        default: texts of samplers.
        guidances: scales that the user wrote; None: the sampler's own, or the usual ones.
        usual: scales.

    Returns:
        Each sampler with each of its scales.

    Raises:
        InputError: a text is not a sampler, two are the same, or one does not fit the model at one of the guidances.
    """
    from restart_sampling.text_to_image.samplers import Sampler, check_samplers, is_flow

    samplers = [
        Sampler.parse(text) for text in texts or (FLOW_SAMPLERS if is_flow(model.scheduler_config) else default)
    ]
    for place, sampler in enumerate(samplers):
        if sampler in samplers[:place]:
            raise InputError(f"--sampler '{sampler}' is given twice; leave one out")
    rows = [
        (sampler, scale)
        for sampler in samplers
        for scale in guidances or (usual if sampler.guidance is None else [sampler.guidance])
    ]
    check_samplers(rows, model.scheduler_config)
    return rows


def measure_with(asked: PipelineOptions, reference: str | None, detector: str | None) -> tuple[str, str]:
    """Finds reference and detector: what the user wrote, or what comes with the pipeline.

    Raises:
        InputError: neither is there.
    """
    from restart_sampling.evaluation.tiny_clip import REFERENCE, TINY_CLIP

    if reference is not None:
        return reference, detector or "inception"
    if not asked.tiny:
        raise InputError(
            f"--model {asked.model_name} has no reference of its own; give --reference NPZ, which 'restart-sampling "
            f"reference' makes of images"
        )
    return str(REFERENCE), detector or TINY_CLIP


def read_captions(path: Path, count: int | None) -> list[str]:
    """Reads the first so many prompts of a CSV, or all.

    Raises:
        InputError: they cannot be read, or there are fewer.
    """
    from restart_sampling.images.prompts import read_prompts

    prompts = read_prompts(path)
    if count is not None and count > len(prompts):
        raise InputError(f"--images {count}: {path} holds {counted(len(prompts), 'prompt')}; ask for as many or fewer")
    return prompts[:count]


def check_texts(texts: Sequence[str], count: int | None = None) -> list[str]:
    """Returns the prompts that the user wrote.

    Raises:
        InputError: one has no text, or --images is given, which is for files.
    """
    if count is not None:
        raise InputError(f"--images {count} is for --prompts; leave it out, and repeat --prompt for more images")
    if not all(text.strip() for text in texts):
        raise InputError("--prompt has no text; write what the images should show")
    return list(texts)


def describe_model(model: TextToImage) -> str:
    """Describes the pipeline for the user, before a run."""
    checker = ", without its safety checker" if model.unchecked else ""
    return f"{model.name} ({type(model.pipe).__name__}, weights sha256 {model.sha256[:12]}){checker}"


def describe_notes(drawings: Sequence[TextDrawing]) -> dict[str, str]:
    """Says what the user should know of the guidance and the samplers of these drawings, before a run.

    Raises:
        InputError: a sampler cannot draw with its settings.
    """
    from restart_sampling.text_to_image.idle import idle_notes
    from restart_sampling.text_to_image.long_prompts import cut_note

    (interval, guide), notes = (drawings[0].request.interval, drawings[0].model.guide), {}
    prompts, negative = drawings[0].prompts, drawings[0].request.negative_prompt
    texts = [*([prompts] if isinstance(prompts, str) else prompts), *([negative] if negative else [])]
    if interval is not None:
        notes["guidance interval"] = f"{interval[0]:g} < level <= {interval[1]:g}"
    if guide is not None:
        notes["guide"] = f"{guide.name} (weights sha256 {guide.sha256[:12]})"
    said = [*dict.fromkeys(each.note for each in drawings), cut_note(drawings[0].model, texts), *idle_notes(drawings)]
    return {**notes, "note": text} if (text := "; ".join(filter(None, said))) else notes
