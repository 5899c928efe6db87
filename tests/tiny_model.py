"""The file of a network small enough to draw an image in a millisecond."""

from pathlib import Path

import torch

from restart_sampling.models.checkpoint import Checkpoint
from restart_sampling.models.denoiser import EDMPrecond
from restart_sampling.models.write_checkpoint import write_safetensors


def tiny_model_file(path: Path, size: int = 8, **other: object) -> Path:
    """A class-conditional model with random weights everywhere, also where training begins at zero."""
    arguments = {
        "img_resolution": size,
        "img_channels": 3,
        "label_dim": 4,
        "model_type": "SongUNet",
        "model_channels": 8,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
        **other,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EDMPrecond(**arguments)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    checkpoint = Checkpoint(path, "safetensors", "EDMPrecond", arguments, model.state_dict(), None, None, None, "")
    write_safetensors(checkpoint, path, overwrite=True)
    return path
