"""`restart-sampling app`: a page in the browser that compares two plans, or two samplers of a pipeline."""

from importlib.util import find_spec
from pathlib import Path

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.cli import Command
from restart_sampling.cli.options import device_option, pick_device
from restart_sampling.models.default_plans import DEFAULT_PLANS
from restart_sampling.text_to_image.bundled import TINY


@click.command(cls=Command)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="To choose from: a bundled or published name, hf://owner/name, URL or file; may be repeated. "
    f"Default: {', '.join(DEFAULT_PLANS)}.",
)
@click.option(
    "--pipeline",
    "pipelines",
    multiple=True,
    metavar="PIPELINE",
    help="A text-to-image pipeline of diffusers: on the Hugging Face hub, or its folder; may be repeated. "
    f"Default: {TINY}, which comes with the package, where diffusers and transformers are installed.",
)
@click.option(
    "--tuned",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of 'tune', for its plans and its map; may be repeated.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first that is free from 7860 on.")
@device_option
def app(
    models: tuple[str, ...], pipelines: tuple[str, ...], tuned: tuple[Path, ...], port: int | None, device: str
) -> None:
    """Open a page with the noise paths and samples of two plans. The samples are shown as they come.

    Text-to-image pipelines have a part of their own: a prompt with two samplers. It listens on this machine alone, and
    neither it nor your browser asks anything of the network, but for models and pipelines of the hub.
    """
    for package in ("gradio", "matplotlib", "jinja2"):
        require_extra(package, "app")
    if not pipelines and all(map(find_spec, ("diffusers", "transformers"))):
        pipelines = (TINY,)
    chip = pick_device(device)

    from restart_sampling.app.page import launch, make_page

    page = make_page(models or tuple(DEFAULT_PLANS), tuned, chip, pipelines)
    try:
        launch(page, "127.0.0.1", port)
    except OSError as error:
        raise InputError(f"--port {port or '7860 to 7959'} is taken by another program; give another") from error
