"""Which project a file's tensors are of."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.foreign import adm, score_sde
from restart_sampling.models.foreign.found import Found, State
from restart_sampling.models.foreign.tensors import load_pickled, load_stored


def find_pickled(content: object, path: Path) -> Found | None:
    """Finds the network in what a file of torch.save holds, as `find` does."""
    averages = None
    match content:
        case {"model": dict() as model, "ema": {"shadow_params": list() as shadow}}:
            state, averages = load_pickled(model, path), load_stored(shadow, path)
            if averages is None:
                return None
        case {"model": dict() as model} | (dict() as model):
            state = load_pickled(model, path)
        case _:
            return None
    return None if state is None else find(state, path, averages)


def find(state: State, path: Path, averages: Sequence[Tensor] | None = None) -> Found | None:
    """Finds the network with these tensors; None where no reader knows them.

    Args:
        state: the tensors by their names.
        path: of the file.
        averages: of the weights, in their order, where the file has them beside.

    Raises:
        UnreadableError: a reader knows them, but cannot use them.
    """
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if any(key.startswith("down_blocks.") for key in state):
        raise UnreadableError("it is a network of diffusers, which needs the config.json beside it; give their folder")
    return adm.read(state, path) or score_sde.read(state, averages, path)
