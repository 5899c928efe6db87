"""`restart-sampling text`: text-to-image models, and what their images are compared with. One command a file."""

import click

from restart_sampling.cli import Group
from restart_sampling.cli.text.coco import coco
from restart_sampling.cli.text.compare import compare
from restart_sampling.cli.text.generate import generate
from restart_sampling.cli.text.preview import preview
from restart_sampling.cli.text.score import score
from restart_sampling.cli.text.tune import tune


@click.group(cls=Group)
def text() -> None:
    """Draw, compare and score images of prompts; tune a sampler."""


for command in (coco, generate, preview, compare, score, tune):
    text.add_command(command)
