"""The part of the page for text-to-image pipelines, made with Gradio."""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import gradio as gr
import torch
from markupsafe import Markup

from restart_sampling.app.plans import wrong
from restart_sampling.app.prompts import describe, draw, starts
from restart_sampling.app.samples import asked_seeds
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.bundled import usual_guidance
from restart_sampling.text_to_image.pipeline import TextToImage, load_pipeline

MAX_IMAGES = 8
PROMPT = "a bright photo of a red ship"

# One at a time: a drawing changes the pipeline that it is made with.
_ALONE: dict[str, Any] = {"concurrency_id": "pipeline", "concurrency_limit": 1}


def text_tab(names: Sequence[str], device: torch.device) -> None:
    """Lays the part out, where it is called, and loads the first pipeline.

    Args:
        names: of the pipelines to choose from, as `load_pipeline` takes them.
        device: where to compute; the networks are float16 on cuda.

    Raises:
        InputError: the first cannot be loaded.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    loaded = lru_cache(1)(partial(load_pipeline, device=device, dtype=dtype))  # two would not fit where one does
    first = loaded(names[0])
    scale = usual_guidance(first.name)

    def load(name: str) -> TextToImage:
        try:
            return loaded(name)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    with gr.Row():
        model = gr.Dropdown([*names], value=names[0], label="Pipeline", min_width=240)
        guidance = gr.Slider(1, 20, value=scale, step=0.5, label="Guidance scale")
        seed = gr.Number(0, label="First seed", precision=0, minimum=0, maximum=2**31)
        count = gr.Slider(1, MAX_IMAGES, value=4, step=1, label="Images")
    prompt = gr.Textbox(PROMPT, label="Prompt", elem_id="prompt", max_lines=3)
    with gr.Row():
        samplers, abouts = zip(*map(partial(_column, first, scale), (0, 1)), strict=True)
    paths = gr.HTML(describe(first, starts(first)[:2], scale)[-1], elem_classes="paths", elem_id="text-paths")
    with gr.Row():
        go = gr.Button("Draw", variant="primary", elem_id="text-draw")
        stop = gr.Button("Stop")
    status = gr.HTML(elem_id="text-status")
    with gr.Row():
        outs = [gr.HTML(elem_id=f"text-samples-{letter}", elem_classes="side") for letter in "AB"]

    def refresh(name: str, guidance: float, *texts: str) -> list[Markup]:
        return describe(load(name), texts, guidance)

    def choose(name: str) -> list[Any]:
        pipeline = load(name)
        known = starts(pipeline)
        own = usual_guidance(pipeline.name)
        fields = [gr.update(choices=[*known], value=text) for text in known[:2]]
        return [own, *fields, *describe(pipeline, known[:2], own)]

    live: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **_ALONE}
    gr.on(
        [*(each.change for each in samplers), guidance.change],
        refresh,
        [model, guidance, *samplers],
        [*abouts, paths],
        **live,
    )
    model.input(choose, model, [guidance, *samplers, *abouts, paths], **live)

    def draw_both(name: str, *asked: Any) -> Iterator[list[Any]]:  # Gradio looks for `yield`
        yield from _draw(load(name), *asked)

    drawing = go.click(
        draw_both,
        [model, prompt, guidance, seed, count, *samplers],
        [status, *outs],
        show_progress="hidden",
        **_ALONE,
    )
    stop.click(lambda: "stopped", None, status, cancels=drawing, show_progress="hidden")


def _column(model: TextToImage, scale: float, place: int) -> tuple[gr.Dropdown, gr.HTML]:
    letter, known = "AB"[place], starts(model)
    with gr.Column(min_width=300):
        text = gr.Dropdown(
            [*known],
            value=known[place],
            allow_custom_value=True,
            label=f"Sampler {letter}: choose one, or write your own",
            elem_id=f"sampler-{letter}",
        )
        return text, gr.HTML(describe(model, known[:2], scale)[place], elem_id=f"about-sampler-{letter}")


def _draw(
    model: TextToImage, prompt: str, guidance: float, seed: int | None, count: int | None, *texts: str
) -> Iterator[list[Any]]:
    """Draws with both samplers; yields what the page shows. None is of an empty field."""
    begun = time.monotonic()
    seeds = asked_seeds(seed, count, MAX_IMAGES)
    pictures: list[Markup | str] = ["", ""]

    def status(what: str) -> Markup:
        return Markup("<p>{}: seeds {} to {}</p>").format(what, seeds[0], seeds[-1])

    yield [status("drawing"), gr.skip(), gr.skip()]  # once: what comes after Stop must not say so again
    try:
        for pictures in draw(model, texts, prompt, guidance, seeds):
            yield [gr.skip(), *pictures]
        yield [status(f"done in {time.monotonic() - begun:.1f} s"), *pictures]
    except InputError as error:
        yield [wrong(error), "", ""]
