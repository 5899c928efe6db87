"""Tensors in files of torch.save, whole and checked."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.files import write_bytes


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors, numbers and texts atomically."""
    # By way of memory, because torch.save answers a full disk with an error of its own kind.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Reads what `save_tensors` wrote; nothing in it is run.

    The file is read once: what is checked is what is loaded.

    Raises:
        Exception: it is damaged, of any kind.
    """
    buffer = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(buffer) as archive:  # torch.save writes a zip with checksums, torch.load does not check them
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
    buffer.seek(0)
    return torch.load(buffer, map_location=device, weights_only=True)
