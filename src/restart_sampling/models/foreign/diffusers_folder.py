"""Folders of diffusers with an unconditional `UNet2DModel`, such as google/ddpm-cifar10-32.

The network is diffusers' own. Its arguments, and the betas of its scheduler, are in JSON files.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from restart_sampling.base import files
from restart_sampling.base.errors import shorten
from restart_sampling.base.numbers import is_whole
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.base.strict_json import parse_json
from restart_sampling.models.foreign.found import Found
from restart_sampling.models.foreign.tensors import read_tensors

FORMAT = "diffusers"

CONFIGS = (
    "model_index.json",
    *(f"{part}config.json" for part in ("", "unet/", "vae/", "vqvae/")),
    *(f"{part}scheduler_config.json" for part in ("", "scheduler/")),
)
"""Files that say what a folder is."""

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
# Layers of attention in files of old versions, and what they are called now.
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read(folder: Path) -> tuple[Found, str]:
    """Reads the network of a folder, and computes the SHA-256 of what makes it.

    Raises:
        UnreadableError: a file is missing or damaged, or the model is of another kind.
        OSError: a file cannot be read.
    """
    network, kwargs = _arguments(folder)
    weights = next((network / name for name in _WEIGHTS if (network / name).is_file()), None)
    if weights is None:
        raise UnreadableError(f"it has no {' or '.join(_WEIGHTS)}")
    state = read_tensors(weights)
    for old, new in _RENAMED.items():
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    identity = sha256(f"{files.sha256(weights)} {json.dumps(kwargs, sort_keys=True)}".encode()).hexdigest()
    return Found(FORMAT, "DDPMPrecond", kwargs, {f"model.unet.{key}": state[key] for key in state}), identity


def weights_of(folder: Path) -> list[str]:
    """Names the files, relative to a folder that has none of them yet, of which the first that exists has the weights.

    Raises:
        UnreadableError: the model is of a kind that is not read.
    """
    network, _ = _arguments(folder)
    return [(network / name).relative_to(folder).as_posix() for name in _WEIGHTS]


def _arguments(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Reads the folder of the network and the arguments of `DDPMPrecond` from the configs."""
    # Files of old versions lie in the folder itself.
    network, scheduler = (part if part.is_dir() else folder for part in (folder / "unet", folder / "scheduler"))
    kwargs = {**_network(_json(network / "config.json")), **_schedule(_json(scheduler / "scheduler_config.json"))}
    if (folder / "vae").exists() or (folder / "vqvae").exists():
        raise UnreadableError("its network is one of latents, and only networks of images are read")
    return network, kwargs


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UnreadableError(f"it has no {path.name}; give the folder of a whole pipeline") from error
    except ValueError as error:
        raise UnreadableError(f"its {path.name} is damaged ({shorten(str(error))})") from error
    if not isinstance(content, dict):
        raise UnreadableError(f"its {path.name} is damaged (it is no object)")
    return content


def _network(config: dict[str, Any]) -> dict[str, Any]:
    """Makes arguments of `Denoiser` of those of a `UNet2DModel`."""
    size, channels, out = (config.get(key) for key in ("sample_size", "in_channels", "out_channels"))
    if config.get("_class_name") != "UNet2DModel":
        raise UnreadableError(f"its network is a {shorten(str(config.get('_class_name')))}, and can be a UNet2DModel")
    if not all(map(is_whole, (size, channels, out))) or channels not in (1, 3) or out not in (channels, 2 * channels):
        raise UnreadableError(
            f"its network is of sample_size {size}, in_channels {channels} and out_channels {out}, and only networks "
            f"of square images are read, with 1 or 3 channels and perhaps as many again for the variance"
        )
    if config.get("time_embedding_type", "positional") != "positional" or config.get("center_input_sample", False):
        raise UnreadableError("its network is not asked with timesteps, but with noise levels, as of score_sde")
    if any(config.get(key) is not None for key in ("class_embed_type", "num_class_embeds")):
        raise UnreadableError("its network takes classes, and only unconditional networks of diffusers are read")
    own = ("sample_size", "in_channels", "out_channels", "class_embed_type", "num_class_embeds")
    return {
        "img_resolution": size,
        "img_channels": channels,
        "model_type": "UNet2DModel",
        "learned_variance": out != channels,
        **{key: value for key, value in config.items() if not key.startswith("_") and key not in own},
    }


def _schedule(config: dict[str, Any]) -> dict[str, Any]:
    """Makes arguments of `DDPMPrecond` of those of a scheduler."""
    schedule = config.get("beta_schedule")
    if config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr", False):
        raise UnreadableError("its scheduler has betas of its own (trained_betas or rescale_betas_zero_snr)")
    if not isinstance(schedule, str) or schedule not in _SCHEDULES:
        name, allowed = shorten(str(config.get("_class_name"))), ", ".join(_SCHEDULES)
        raise UnreadableError(f"its {name} has the beta_schedule {shorten(str(schedule))}, and can have {allowed}")
    return {
        "schedule": _SCHEDULES[schedule],
        "beta_start": config.get("beta_start", 0.0001),
        "beta_end": config.get("beta_end", 0.02),
        "M": config.get("num_train_timesteps", 1000),
        "prediction": config.get("prediction_type", "epsilon"),
    }
