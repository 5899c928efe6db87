"""The page, made with Gradio. It loads nothing from elsewhere, and says so to the browser."""

import os
import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
import gradio as gr
import torch
from markupsafe import Markup
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restart_sampling.app.choices import Choice, load_choice
from restart_sampling.app.plans import SLIDERS, explain, moved, parse_plan, plot_plans, read_plan, sliders_of, wrong
from restart_sampling.app.samples import BETWEEN, advance_together, asked_seeds, on_the_way, show
from restart_sampling.base.errors import InputError
from restart_sampling.pictures.page import svg
from restart_sampling.pictures.restart_map import plot_map
from restart_sampling.sampling.solvers.by_name import SOLVERS

MAX_IMAGES = 16

_OWN_CLASSES = -1  # image k is of class k
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
_CSS = """
.gradio-container { max-width: 1100px !important; margin: 0 auto; }
.paths svg { width: 100%; height: auto; max-width: 640px; display: block; margin: 0 auto; background: white; }
.map svg { width: 100%; height: auto; max-width: 760px; display: block; margin: 0 auto; background: white; }
.side { min-width: min(300px, 100%) !important; }
.samples { width: 100%; image-rendering: pixelated; }
figure { margin: 0; }
figcaption { font-size: 0.9em; opacity: 0.8; }
.wrong { color: #b00020; font-weight: 600; }
.dark .wrong { color: #ff8a95; }
details pre { white-space: pre-wrap; font-size: 0.8em; }
"""


class _NothingFromElsewhere:
    """Adds a policy to every answer by which the browser asks this server only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self.app(scope, receive, with_policy)


def make_page(
    models: Sequence[str],
    tuned: Sequence[Path] = (),
    device: torch.device | str = "cpu",
    pipelines: Sequence[str] = (),
) -> gr.Blocks:
    """Makes the page.

    Args:
        models: to choose from, as `load_model` takes them; the first is loaded at once.
        tuned: folders of `tune`, for their plans and maps.
        device: where to compute.
        pipelines: of diffusers, to choose from, as `load_pipeline` takes them; the first is loaded at once. None: the
            page has no part for them.

    Raises:
        InputError: the first model or pipeline cannot be loaded, or a folder is none of `tune`.
    """
    with gr.Blocks(title="restart-sampling", analytics_enabled=False) as page:
        gr.Markdown("# Restart sampling\nA sampler is a path of noise levels. Compare two, from the same seeds.")
        if not pipelines:
            _images_tab(models, tuned, torch.device(device))
            return page
        with gr.Tab("Images of classes"):
            _images_tab(models, tuned, torch.device(device))
        with gr.Tab("Text to image"):
            from restart_sampling.app.text_tab import text_tab  # which needs diffusers

            text_tab(pipelines, torch.device(device))
    return page


def _images_tab(models: Sequence[str], tuned: Sequence[Path], device: torch.device) -> None:
    """Lays out the part for models of images."""
    loaded = cache(partial(load_choice, tuned=tuple(tuned), device=device))
    first = loaded(models[0])
    texts = _first_plans(first)

    def load(name: str) -> Choice:
        try:
            return loaded(name)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error  # a message on the page

    with gr.Row():
        model = gr.Dropdown([*models], value=models[0], label="Model", min_width=240)
        classes = gr.Dropdown(_classes(first), value=_OWN_CLASSES, label="Class", visible=bool(first.classes))
        seed = gr.Number(0, label="First seed", precision=0, minimum=0, maximum=2**31)
        images = gr.Slider(1, MAX_IMAGES, value=8, step=1, label="Images")
    with gr.Row():
        columns = [_plan_column(letter, text, first) for letter, text in zip("AB", texts, strict=True)]
    paths = gr.HTML(plot_plans(texts, first.net), elem_classes="paths")
    with gr.Row():
        go = gr.Button("Draw", variant="primary", elem_id="draw")
        stop = gr.Button("Stop")
        view = gr.Radio(["estimates", "noisy states"], value="estimates", label="On the way, show the")
    status = gr.HTML(elem_id="status")
    with gr.Row():
        outs = [gr.HTML(elem_id=f"samples-{letter}", elem_classes="side") for letter in "AB"]
    with gr.Accordion("Map of the model: what one restart does", open=False, visible=bool(first.map)) as box:
        shown_map = gr.HTML(_map(first), elem_classes="map")

    plan_texts, abouts = [column["text"] for column in columns], [column["about"] for column in columns]
    # No event waits for another (`then`): those are lost where a newer one comes first.
    live: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    for column in columns:
        text, start, sliders = column["text"], column["start"], column["sliders"]
        text.change(
            lambda name, *texts: _refresh(load(name).net, texts), [model, *plan_texts], [*abouts, paths], **live
        )
        gr.on([text.input, text.blur], _follow, text, sliders, **live)  # without a key a paste is a change only
        start.input(
            lambda name, chosen: [plan := load(name).plans[chosen], *_follow(plan)],
            [model, start],
            [text, *sliders],
            **live,
        )
        for name, slider in zip(SLIDERS, sliders, strict=True):
            slider.input(partial(_move, name), [text, *sliders], [text, column["about"]], **live)

    def choose(name: str) -> list[Any]:
        choice = load(name)
        options = _classes(choice)
        plans = _first_plans(choice)
        return [
            gr.update(choices=options, value=_OWN_CLASSES, visible=bool(choice.classes)),
            *plans,
            *(gr.update(choices=[*choice.plans], value=None) for _ in plans),
            *(position for text in plans for position in _follow(text)),
            gr.update(visible=bool(choice.map)),
            _map(choice),
            *_refresh(choice.net, plans),
        ]

    starts = [column["start"] for column in columns]
    every_slider = [slider for column in columns for slider in column["sliders"]]
    chosen = [classes, *plan_texts, *starts, *every_slider, box, shown_map, *abouts, paths]
    model.input(choose, model, chosen, **live)

    def draw(name: str, *asked: Any) -> Iterator[list[Any]]:  # Gradio looks for `yield`
        yield from _draw(load(name), *asked)

    drawing = go.click(
        draw,
        [model, classes, seed, images, view, *plan_texts],
        [status, *outs],
        show_progress="hidden",
    )
    stop.click(lambda: "stopped", None, status, cancels=drawing, show_progress="hidden")


def launch(page: gr.Blocks, host: str | None = None, port: int | None = None) -> None:
    """Serves the page until the process is ended.

    Args:
        page: of `make_page`.
        host: address to listen at; None: GRADIO_SERVER_NAME, or this machine alone.
        port: None: GRADIO_SERVER_PORT, or the first that is free from 7860 on.

    Raises:
        OSError: the port is taken.
    """
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=_THEME,
        css=_CSS,
        app_kwargs={"middleware": [Middleware(_NothingFromElsewhere)]},
        prevent_thread_lock=True,
        quiet=True,
    )
    print(f"the page is at {url}; Ctrl-C ends it")
    page.block_thread()


def _plan_column(letter: str, text: str, choice: Choice) -> dict[str, Any]:
    """Lays out a plan: its text, where to start from, its sliders, and what is said of it."""
    with gr.Column(min_width=300):
        column: dict[str, Any] = {
            "start": gr.Dropdown([*choice.plans], value=None, label=f"Load a plan into {letter}"),
            "text": gr.Textbox(text, label=f"Plan {letter}", elem_id=f"plan-{letter}", max_lines=3),
            "about": gr.HTML(explain(text, choice.net), elem_id=f"about-{letter}"),
        }
        positions = dict(zip(SLIDERS, _follow(text), strict=True))
        with gr.Accordion("Sliders", open=False, elem_id=f"sliders-{letter}"):
            column["sliders"] = [
                gr.Slider(*SLIDERS["steps"], step=1, label="Steps", value=positions["steps"]),
                gr.Dropdown([*SOLVERS], allow_custom_value=True, label="Solver", value=positions["solver"]),
                gr.Slider(*SLIDERS["churn"], step=1, label="Churn: noise before every step", value=positions["churn"]),
                gr.Slider(*SLIDERS["K"], step=1, label="K: restarts", value=positions["K"]),
                gr.Slider(*SLIDERS["N_restart"], step=1, label="N_restart: levels of each, both ends counted", value=3),
                gr.Slider(*SLIDERS["t_min"], step=0.02, label="t_min, as a power of ten", value=0.04),
                gr.Slider(*SLIDERS["t_max"], step=0.02, label="t_max, as a power of ten", value=0.5),
            ]
            for name, slider in zip(SLIDERS, column["sliders"], strict=True):
                if name in ("N_restart", "t_min", "t_max") and isinstance(positions[name], int | float):
                    slider.value = positions[name]
    return column


def _first_plans(choice: Choice) -> list[str]:
    """Picks the plans that the page begins with: the first, and the ODE."""
    plans = [*choice.plans.values()]
    return ["18", plans[0] if plans[0] != "18" else plans[-1]]


def _classes(choice: Choice) -> list[tuple[str, int]]:
    """Lists the classes by number, as several may have one name, such as ImageNet's cranes."""
    return [("one each", _OWN_CLASSES), *((name, number) for number, name in enumerate(choice.classes))]


def _map(choice: Choice) -> Markup:
    return svg(plot_map(choice.map), "map", "Map of the model") if choice.map else Markup("")


def _refresh(net: Any, texts: Sequence[str]) -> list[Markup]:
    return [*(explain(text, net) for text in texts), plot_plans(texts, net)]


def _follow(text: str) -> list[Any]:
    """Moves the sliders to where a plan is; a text that is none leaves them."""
    try:
        positions = sliders_of(parse_plan(text))
    except InputError:
        return [gr.skip()] * len(SLIDERS)
    return [gr.skip() if position is None else position for position in positions]


def _move(name: str, text: str, *positions: float | str | None) -> list[Any]:
    """Writes the plan in which a slider was moved, or what is wrong with it."""
    try:
        return [moved(text, name, positions), gr.skip()]
    except InputError as error:
        return [gr.skip(), wrong(error)]


def _draw(
    choice: Choice, label: int | None, seed: int | None, count: int | None, view: str, *texts: str
) -> Iterator[list[Any]]:
    """Draws with both plans; yields what the page shows. None is of an empty field."""
    begun = time.monotonic()
    seeds = asked_seeds(seed, count, MAX_IMAGES)
    labels = None
    if choice.classes:
        labels = [k % len(choice.classes) if label in (None, _OWN_CLASSES) else label for k in range(len(seeds))]

    def status(what: str) -> Markup:
        return Markup("<p>{}: seeds {} to {}</p>").format(what, seeds[0], seeds[-1])

    yield [status("drawing"), gr.skip(), gr.skip()]  # once: what comes after Stop must not say so again
    try:
        plans = [read_plan(text, choice.net) for text in texts]
        runs = [on_the_way(choice.net, plan, seeds, labels, view == "noisy states") for plan in plans]
        shown = 0.0
        for latest in advance_together(runs):
            done = all(each is not None and each.evaluations == each.nfe for each in latest)
            if not done and time.monotonic() - shown < BETWEEN:
                continue
            shown = time.monotonic()
            pictures = [show(f"Plan {letter}", each) if each else "" for letter, each in zip("AB", latest, strict=True)]
            yield [status(f"done in {shown - begun:.1f} s") if done else gr.skip(), *pictures]
    except InputError as error:
        yield [wrong(error), "", ""]
