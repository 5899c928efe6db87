"""Prompts of which a pipeline does not see the end."""

from collections.abc import Iterable
from typing import Any

from restart_sampling.base.errors import shorten
from restart_sampling.base.numbers import counted
from restart_sampling.text_to_image.pipeline import TextToImage, quiet


def cut_note(model: TextToImage, prompts: Iterable[str]) -> str | None:
    """Says how many prompts are longer than the pipeline's CLIPs read; None: none is, or a reader is no CLIP.

    Args:
        model: the pipeline.
        prompts: texts.
    """
    readers: list[Any] = [each for name, each in model.pipe.components.items() if name.startswith("tokenizer") and each]
    if not readers or not all(type(each).__name__.startswith("CLIP") for each in readers):
        return None
    with quiet():
        long = [text for text in prompts if any(len(each(text).input_ids) > each.model_max_length for each in readers)]
    if not long:
        return None
    most = max(each.model_max_length for each in readers)
    return (
        f"the pipeline reads {most} tokens of a prompt, with start and end, and does not see the end of "
        f"{counted(len(long), 'prompt')}, such as '{shorten(long[0], 60)}'"
    )
