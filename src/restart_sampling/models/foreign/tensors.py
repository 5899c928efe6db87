"""The tensors of files that hold nothing else, or little: safetensors and state dicts of torch.save."""

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from restart_sampling.base.errors import shorten
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.edm_pickle import ZIP_MAGIC, StoredTensor, unpickled


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by their names.

    Raises:
        UnreadableError: the file is damaged, or holds something else.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == ZIP_MAGIC
    try:
        state = load_pickled(unpickled(path), path) if is_zip else load_file(path)
    except SafetensorError as error:
        raise UnreadableError(f"{path.name} is damaged ({shorten(str(error))})") from error
    if state is None:
        raise UnreadableError(f"{path.name} holds more than tensors with names")
    return state


def load_pickled(content: object, path: Path) -> dict[str, Tensor] | None:
    """Loads the tensors of a state dict; None where it is none.

    Raises:
        UnreadableError: tensors share memory, by which a small file could ask for much.
    """
    if not isinstance(content, dict) or not content:
        return None
    loaded = load_stored([*content.values()], path)
    return None if loaded is None else dict(zip(map(str, content), loaded, strict=True))


def load_stored(stored: Sequence[object], path: Path) -> list[Tensor] | None:
    """Loads tensors of a file; None where there is something else among them. Raises as `load_pickled`."""
    tensors = [tensor for tensor in stored if isinstance(tensor, StoredTensor)]
    if len(tensors) < len(stored):
        return None
    if sum(tensor.numbers.nbytes for tensor in tensors) > path.stat().st_size:
        raise UnreadableError("its tensors share memory, which no network's do")
    return [tensor.load() for tensor in tensors]
