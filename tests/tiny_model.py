"""The file of a network small enough to draw an image in a millisecond, and commands in processes of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from restart_sampling.models.checkpoint import Checkpoint, write_safetensors
from restart_sampling.models.denoiser import EDMPrecond

TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def tiny_model_file(path: Path, size: int = 8, **other: object) -> Path:
    """A class-conditional model with random weights everywhere, also where training begins at zero."""
    arguments = {
        "img_resolution": size,
        "img_channels": 3,
        "label_dim": 4,
        "model_type": "SongUNet",
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
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


def start(*words: str | int | Path) -> subprocess.Popen:
    """Python with these arguments, on one core, in a session of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 60) -> None:
    """Until the condition holds, while the process runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.001)
