"""A network as EDM's persistence stores it: where it is in a file, and its records of modules."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeGuard

from restart_sampling.base.errors import shorten
from restart_sampling.base.pickles import Blank, UnreadableError
from restart_sampling.models.edm_pickle import Record, StoredTensor
from restart_sampling.models.foreign.found import RAW

_MAX_KEY = 200  # characters of a key of the state dict
_MAX_ENTRIES = 500_000  # of all modules' dictionaries, which a file may let them share; the largest network has a tenth
_WITH_NETWORK = (
    "give the file with it: network-snapshot-*.pkl or training-state-*.pt of EDM, or one of EDM2, "
    "guided-diffusion, improved-diffusion, score_sde or diffusers"
)


@dataclass(frozen=True, eq=False)
class NetworkRecord:
    """What is stored of a network.

    Attributes:
        modules: all, itself first.
        tensors: by their keys, in the order of torch's state dicts.
        scalars: by their keys, the attributes that are numbers, but for those which training and PFGM++ have added.
    """

    modules: list[Blank]
    tensors: dict[str, StoredTensor]
    scalars: dict[str, float]


def read_network(network: Blank) -> NetworkRecord:
    """Reads the modules of a network.

    Raises:
        UnreadableError: something is no module or no tensor, a module stands in two places, or there are too many.
    """
    record = NetworkRecord([], {}, {})
    waiting: list[tuple[str, object]] = [("", network)]
    seen: set[int] = set()
    entries = 0
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, Blank) or id(module) in seen:
            raise UnreadableError(f"its module {shorten(prefix)!r} is no module, or occurs twice")
        seen.add(id(module))
        record.modules.append(module)
        attributes = module.state if isinstance(module.state, dict) else {}
        parameters, buffers, children = (
            _table(attributes, prefix, kind) for kind in ("_parameters", "_buffers", "_modules")
        )
        left_out = attributes.get("_non_persistent_buffers_set")
        left_out = left_out if isinstance(left_out, list) else []
        entries += sum(map(len, (attributes, parameters, buffers, children, left_out)))
        if entries > _MAX_ENTRIES:
            raise UnreadableError(f"its modules have more than {_MAX_ENTRIES:,} attributes, which no network's do")
        for name in left_out:
            if isinstance(name, str):
                buffers.pop(name, None)
        for name, tensor in [*parameters.items(), *buffers.items()]:
            if isinstance(tensor, StoredTensor):
                record.tensors[prefix + name] = tensor
            elif tensor is not None:
                raise UnreadableError(f"its tensor {shorten(prefix + name)} is a {type(tensor).__name__}")
        for name, value in attributes.items():
            if _is_scalar(name, value) and len(prefix) + len(name) <= _MAX_KEY:
                record.scalars[prefix + name] = float(value)
        waiting += [(f"{prefix}{name}.", child) for name, child in reversed(children.items()) if child is not None]
    return record


def _is_scalar(name: object, value: object) -> bool:
    if not isinstance(name, str) or name.startswith("_") or name in ("training", "pfgmpp", "D"):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


def _table(attributes: dict[Any, object], prefix: str, kind: str) -> dict[str, object]:
    """Returns one of a module's dictionaries of parameters, buffers or modules."""
    table = attributes.get(kind, {})
    if not isinstance(table, dict):
        raise UnreadableError(f"its module {shorten(prefix)!r} has no {kind}")
    for key in table:
        if not isinstance(key, str) or "." in key or len(prefix) + len(key) > _MAX_KEY:
            raise UnreadableError(f"its module {shorten(prefix)!r} has the name {shorten(str(key))!r} in {kind}")
    return dict(table)


def network_in(content: object, kind: str) -> tuple[Record, dict[str, StoredTensor], dict[str, str]]:
    """Returns the network in a file, its weights where they lie beside it as a state dict, and what to know of them.

    Args:
        content: of the file, as `unpickled` reads it.
        kind: "edm-pickle", or "training-state", which may have no average.

    Raises:
        UnreadableError: there is no network.
    """
    match content:
        case {"ema": Record() as network}:
            return network, {}, {}
        case {"ema": dict() as average, "net": Record() as network} if _is_state_dict(average):
            average = {key.removeprefix("module."): tensor for key, tensor in average.items()}
            return network, average, {"weights": "the average (ema), a state dict, in the network net"}
        case {"net": Record(), "ema": average} if average is not None:
            raise UnreadableError(
                f"its average (ema) is a {type(average).__name__}, and has to be a network or a state dict; "
                "give a file that EDM's own training wrote"
            )
        case {"net": Record() as network} if kind == "training-state":
            return network, {}, {"weights": RAW}
    parts = [content, *content.values()] if isinstance(content, dict) else []
    if state_dict := next(filter(_is_state_dict, parts), None):
        raise UnreadableError(f"its {bare_state(state_dict)}")
    raise UnreadableError(f"it holds no network as ema{' or net' * (kind == 'training-state')}; {_WITH_NETWORK}")


def _is_state_dict(value: object) -> TypeGuard[dict[str, StoredTensor]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, StoredTensor) for key, tensor in value.items())
    )


def bare_state(keys: Collection[str]) -> str:
    """Says of a state dict with these keys that it is alone, and what to give."""
    return (
        f"{len(keys)} tensors, such as {shorten(min(keys, default='none'))}, are a state dict without the network "
        f"they belong to; {_WITH_NETWORK}"
    )
