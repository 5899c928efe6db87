"""Text-to-image pipelines of diffusers, from the Hugging Face hub or a folder."""

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.errors import InputError, did_you_mean, one_line, require_extra, shorten
from restart_sampling.base.numerics import weights_sha256
from restart_sampling.generation.pace import Pace
from restart_sampling.text_to_image.bundled import TINY, build_pipeline
from restart_sampling.text_to_image.guiding import Guide

TEXT_BLOCK = 16
"""As `generation.pace.BLOCK`, of images that are larger."""


@dataclass(frozen=True, eq=False)
class TextToImage:
    """A pipeline on its device.

    Attributes:
        name: as the user wrote it.
        pipe: of diffusers; its scheduler is another one in each drawing.
        scheduler_config: of the scheduler that it came with.
        sha256: of the weights of all its networks, in their dtype.
        device: where it computes.
        unchecked: whether it came with a safety checker, which is left out.
        guide: a second network to guide by; None: the network itself, without a prompt.
    """

    name: str
    pipe: Any
    scheduler_config: Mapping[str, Any]
    sha256: str
    device: torch.device
    unchecked: bool = False
    guide: Guide | None = None

    @property
    def network(self) -> torch.nn.Module:
        """What is evaluated at each step."""
        network: torch.nn.Module = self.pipe.components.get("transformer") or self.pipe.components["unet"]
        return network

    @property
    def evaluated(self) -> tuple[torch.nn.Module, ...]:
        """All networks that an image may need at a step."""
        return (self.network, self.guide.network) if self.guide else (self.network,)

    @cached_property
    def answers(self) -> dict[Any, Any]:
        """What its networks answered when it was asked what a sampler costs, see `remembering`."""
        return {}

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the weights of all its networks in float16: the same where it computes in float32."""
        return weights_sha256(networks_of(self.pipe), torch.float16)

    @cached_property
    def pace(self) -> Pace:
        """How many images are drawn at a time where the user does not say."""
        return Pace(TEXT_BLOCK, automatic=True)

    @property
    def dtype(self) -> str:
        """The dtype of the network."""
        return str(next(self.network.parameters()).dtype).removeprefix("torch.")


def load_pipeline(name: str, device: torch.device, dtype: torch.dtype) -> TextToImage:
    """Loads a text-to-image pipeline, without the safety checker, which makes images black.

    Only safetensors files are read, and no code that comes with a model is run.

    Args:
        name: `tiny-text-to-image`, a name on the Hugging Face hub, or a folder in diffusers' layout.
        device: where to compute.
        dtype: of the networks.

    Raises:
        InputError: it cannot be loaded, is not a text-to-image pipeline, or does not fit on the device.
    """
    require_extra("diffusers", "text")
    require_extra("transformers", "text")
    _check_name("--model", name)
    with quiet():
        pipe, unchecked = (build_pipeline().to(dtype=dtype), False) if name == TINY else _read(name, dtype)
    model = as_model(pipe, f"--model {name}", name, unchecked)
    try:
        pipe.to(device)
    except torch.OutOfMemoryError as error:
        raise InputError(f"--model {name} does not fit on {device} in {dtype}; give another device") from error
    return replace(model, device=device)


def as_model(pipe: Any, what: str, name: str, unchecked: bool = False) -> TextToImage:
    """Takes a pipeline of diffusers, where it is.

    Args:
        pipe: without a safety checker; it is changed.
        what: it is, for messages.
        name: as the user wrote it.
        unchecked: whether it had a safety checker.

    Raises:
        InputError: it is no text-to-image pipeline.
    """
    networks = networks_of(pipe)
    if "transformer" not in networks and "unet" not in networks:
        raise InputError(
            f"{what} is a {type(pipe).__name__}, which has neither a unet nor a transformer of its own; give a "
            f"pipeline such as Stable Diffusion's, XL's, 3's or FLUX's"
        )
    pipe.set_progress_bar_config(disable=True)
    return TextToImage(name, pipe, scheduler_config(pipe), weights_sha256(networks), pipe.device, unchecked)


def scheduler_config(pipe: Any) -> dict[str, Any]:
    """Returns the config of a pipeline's scheduler."""
    return {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}


def networks_of(pipe: Any) -> torch.nn.ModuleDict:
    """Returns the networks of a pipeline by name, those of texts and images too."""
    parts = pipe.components.items()
    return torch.nn.ModuleDict({key: part for key, part in parts if isinstance(part, torch.nn.Module)})


def _read(name: str, dtype: torch.dtype) -> tuple[Any, bool]:
    """Reads the pipeline; also returns whether it came with a safety checker."""
    try:
        from diffusers import AutoPipelineForText2Image
        from diffusers.utils import is_accelerate_available

        parts = AutoPipelineForText2Image.load_config(name)
        _check_parts(parts)
        without = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in parts else {}
        pipe = AutoPipelineForText2Image.from_pretrained(
            name,
            torch_dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            low_cpu_mem_usage=is_accelerate_available(),
            **without,
        )
    except Exception as error:  # the readers of a dozen kinds of files raise many kinds
        raise InputError(f"--model {name} could not be loaded ({_reason(name, error)}") from error
    return pipe, any(parts.get("safety_checker", ()))


def load_guide(name: str, model: TextToImage) -> Guide:
    """Loads the network of another pipeline, to guide by: of the same kind, and a worse one of the same data.

    Args:
        name: of the pipeline, on the Hugging Face hub or a folder in diffusers' layout.
        model: that it is to guide. Both are given the same latents, timesteps and features of the prompt.

    Raises:
        InputError: it cannot be loaded, does not fit on the device, or has another schedule of noise or prediction.
    """
    if name == TINY:
        raise InputError(f"--guide {name}: it guides no other pipeline, and there is no worse one; give another")
    _check_name("--guide", name)
    part = "transformer" if model.pipe.components.get("transformer") is model.network else "unet"
    try:
        with quiet():
            config = type(model.pipe.scheduler).load_config(name, subfolder="scheduler")
            kind: Any = type(model.network)
            network = kind.from_pretrained(
                name, subfolder=part, torch_dtype=next(model.network.parameters()).dtype, use_safetensors=True
            )
            network.eval().to(model.device)
    except Exception as error:  # as above
        raise InputError(f"--guide {name} could not be loaded ({_reason(name, error)}") from error
    from restart_sampling.text_to_image.configs import OF_THE_MODEL  # which needs diffusers

    for key, unsaid in OF_THE_MODEL.items():
        own, other = model.scheduler_config.get(key, unsaid), config.get(key, unsaid)
        if own != other:
            raise InputError(
                f"--guide {name} was trained with {key} {other}, and {model.name} with {own}; give a guide of the same"
            )
    return Guide(name, network, weights_sha256(network))


def _check_name(option: str, name: str) -> None:
    """Makes sure that what looks like a path is a folder: diffusers would look for it on the hub."""
    if Path(name).suffix in (".safetensors", ".ckpt") or (name.startswith((".", "/", "~")) and not Path(name).is_dir()):
        raise InputError(
            f"{option} {name}: there is no such folder; give one in diffusers' layout (with a model_index.json), or a "
            f"name on the Hugging Face hub, such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        )


def _check_parts(parts: Mapping[str, Any]) -> None:
    """Makes sure that all parts of a pipeline are of diffusers and transformers: diffusers imports what is named."""
    import diffusers.pipelines

    for part, home in parts.items():
        if isinstance(home, list) and home and not part.startswith("_"):
            module = home[0]
            if module not in (None, "diffusers", "transformers") and not hasattr(diffusers.pipelines, str(module)):
                raise InputError(
                    f"its {part} is of the module {shorten(str(module))}, not of diffusers or transformers"
                )


def _reason(name: str, error: BaseException) -> str:
    """Says what is wrong, and what to do."""
    if Path(name).is_dir():
        said = shorten(one_line(error), 200)
        return f"{said}); give the folder of a text-to-image pipeline of diffusers with safetensors files"
    while error.__context__ is not None:  # diffusers says that a file is missing, where the hub cannot be reached
        error = error.__context__
    return (
        f"{shorten(one_line(error), 200)}); give a text-to-image pipeline of diffusers with safetensors files; without "
        f"internet the path of its folder, which 'hf download {name} --local-dir FOLDER' makes where there is internet"
        f"{did_you_mean(name, [TINY])}"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what diffusers and transformers say to programmers, and off a terminal their progress bars."""
    import diffusers.utils.logging
    import huggingface_hub.utils.logging
    import transformers.utils.logging

    logs = (diffusers.utils.logging, transformers.utils.logging, huggingface_hub.utils.logging)
    before = [log.get_verbosity() for log in logs]
    bars = [log for log in logs[:2] if log.is_progress_bar_enabled() and not sys.stderr.isatty()]
    for log in logs:
        log.set_verbosity_error()
    for log in bars:
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, verbosity in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
        for log in bars:
            log.enable_progress_bar()
