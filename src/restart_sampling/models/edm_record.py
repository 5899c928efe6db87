"""A network as EDM's persistence stores it: records of modules, with the attributes that torch gives a module."""

from collections.abc import Iterator

from restart_sampling.base.errors import shorten
from restart_sampling.base.pickles import Blank, UnreadableError
from restart_sampling.models.unpickle import Record, StoredTensor

_MAX_KEY = 200  # characters of a key of the state dict


def record_modules(network: Record) -> Iterator[tuple[str, Record | Blank]]:
    """A network's modules with the prefixes of their keys, in the order of torch's state dicts.

    Raises:
        UnreadableError: Something among them is no module, or one module stands in two places.
    """
    waiting: list[tuple[str, object]] = [("", network)]
    seen: set[int] = set()
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, Record | Blank) or id(module) in seen:
            raise UnreadableError(f"its module {shorten(prefix)!r} is no module, or occurs twice")
        seen.add(id(module))
        yield prefix, module
        children = _table(module, prefix, "_modules").items()
        waiting += [(f"{prefix}{name}.", child) for name, child in reversed(children) if child is not None]


def record_tensors(prefix: str, module: Record | Blank) -> Iterator[tuple[str, StoredTensor]]:
    """A module's own tensors with their keys in the state dict.

    Raises:
        UnreadableError: Something among them is no tensor.
    """
    left_out = _attributes(module).get("_non_persistent_buffers_set")
    names = {name for name in left_out if isinstance(name, str)} if isinstance(left_out, list) else set()
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _table(module, prefix, kind).items():
            if tensor is None or (kind == "_buffers" and name in names):
                continue
            if not isinstance(tensor, StoredTensor):
                raise UnreadableError(f"its tensor {shorten(prefix + name)} is a {type(tensor).__name__}")
            yield prefix + name, tensor


def record_scalars(prefix: str, module: Record | Blank) -> Iterator[tuple[str, float]]:
    """A module's attributes that are numbers, but for those which training and PFGM++ have added."""
    for name, value in _attributes(module).items():
        if not isinstance(name, str) or name.startswith("_") or name in ("training", "pfgmpp", "D"):
            continue
        if len(prefix) + len(name) > _MAX_KEY:
            continue
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53):
            yield prefix + name, float(value)


def _attributes(module: Record | Blank) -> dict[object, object]:
    return module.state if isinstance(module.state, dict) else {}


def _table(module: Record | Blank, prefix: str, name: str) -> dict[str, object]:
    """One of a module's dictionaries of parameters, buffers or modules."""
    table = _attributes(module).get(name, {})
    if not isinstance(table, dict):
        raise UnreadableError(f"its module {shorten(prefix)!r} has no {name}")
    for key in table:
        if not isinstance(key, str) or "." in key or len(prefix) + len(key) > _MAX_KEY:
            raise UnreadableError(f"its module {shorten(prefix)!r} has the name {shorten(str(key))!r} in {name}")
    return table
