"""Checkpoints to files: safetensors of our own."""

import json
import math
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import FullDiskError, write_bytes
from restart_sampling.base.lock import lock_beside, remove_lock
from restart_sampling.models.checkpoint import FORMAT, Checkpoint
from restart_sampling.models.int8 import quantized


def write_safetensors(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, int8: bool = False, overwrite: bool = False
) -> None:
    """Writes a checkpoint in our format; `read_checkpoint` gives back the same values and dtypes.

    Args:
        checkpoint: what to write.
        path: the file.
        int8: round the weights to 8 bits, as `quantized` does; they are read as float32.
        overwrite: replace the file where it exists.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        remove_lock(lock_beside(path))
        raise InputError(f"{path} exists; give another name, or --force to replace it")
    metadata = {
        **checkpoint.metadata,
        "format": FORMAT,
        "class_name": checkpoint.class_name,
        "init_kwargs": json.dumps(jsonable(checkpoint.init_kwargs), allow_nan=False),
    }
    if checkpoint.sha256:
        metadata["source_sha256"] = checkpoint.sha256
    for name in ("D", "sigma_min", "sigma_max"):
        value = getattr(checkpoint, name)
        if value is not None:
            metadata[name] = str(jsonable(value))
    if int8:
        metadata["precision"] = "int8, a scale for each output channel"
    if checkpoint.classes:
        metadata["classes"] = json.dumps(checkpoint.classes)
    try:
        state = quantized(checkpoint.state) if int8 else checkpoint.state
        write_bytes(path, _in_order(save(state, metadata)))
    except FullDiskError:
        raise
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written ({error})") from error


def _in_order(file: bytes) -> bytes:
    """Sorts the header of a safetensors file: the library writes the metadata in a random order."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)  # the tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + file[start:]


def jsonable(value: Any) -> Any:
    """Makes texts, "Infinity" and "-Infinity", of the infinities in a value, which JSON has no numbers for."""
    match value:
        case dict():
            return {key: jsonable(item) for key, item in value.items()}
        case list():
            return [jsonable(item) for item in value]
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
    return value
