"""Models from files: safetensors of our own, EDM's pickles, PFGM++'s training states, and others'."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from restart_sampling.base.errors import shorten
from restart_sampling.base.files import sha256, stand_in
from restart_sampling.base.machine import usable_device
from restart_sampling.base.numbers import is_number
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.checkpoint import FORMAT, Checkpoint, unusable
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.edm_network import bare_state, network_in, read_network
from restart_sampling.models.edm_pickle import PICKLE_MAGIC, ZIP_MAGIC, Record, unpickled
from restart_sampling.models.foreign import adm, diffusers_folder, edm2, score_sde
from restart_sampling.models.foreign.find import find, find_pickled
from restart_sampling.models.foreign.found import Found
from restart_sampling.models.int8 import dequantized
from restart_sampling.models.resolve import resolve
from restart_sampling.sampling.pfgmpp import MAX_DIMENSIONS

KNOWN_SOURCES = ("5db27dcd96674b95",)  # sha256 of EDM's training/networks.py, its first 16 digits
FORMATS = (
    "safetensors",
    "edm-pickle",
    edm2.FORMAT,
    "training-state",
    adm.GUIDED,
    adm.IMPROVED,
    score_sde.FORMAT,
    diffusers_folder.FORMAT,
)
"""Of the files that load: of this package, EDM, EDM2, PFGM++ (and EDM), and the projects of these names."""

_RESERVED = {"format", "class_name", "init_kwargs", "D", "sigma_min", "sigma_max", "classes"}
_MAX_INTEGER = 2**20  # above every size of a network
_MAX_ITEMS = 1000
_MAX_DEPTH = 8
_MAX_HEADER = 100_000_000  # bytes, as the library of safetensors has it


def load_model(source: str | os.PathLike[str], *, D: int | None = None, device: str | torch.device = "cpu") -> Denoiser:
    """Loads a model: float32, in eval mode, without gradients.

    Args:
        source: a bundled or published name ("cifar10-small", "edm-cifar10-32x32-uncond-vp"), an https:// URL, or the
            path of a file or folder of one of `FORMATS`. Nothing in it is run.
        D: dimension of the augmented data, for a PFGM++ model whose file does not say it.
        device: where the model is to be.

    Raises:
        InputError: the source is unknown, cannot be read or downloaded, or is no model of a known kind, or there is no
            such device.
    """
    device = usable_device(device)
    return read_checkpoint(resolve(source)).build(D, device)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a model file, or a folder. The first bytes of a file say what it is, whatever its name. Nothing is run.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _of_foreign(path, *diffusers_folder.read(path))
        with path.open("rb") as file:
            head = file.read(9)
        size = path.stat().st_size
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
            return _read_safetensors(path)
        if head.startswith((PICKLE_MAGIC, ZIP_MAGIC)):
            return _read_pickled(path, "training-state" if head.startswith(ZIP_MAGIC) else "edm-pickle")
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
            raise UnreadableError("it is a safetensors file that was cut off; download or copy it again")
        instead = stand_in(path)
        raise UnreadableError(
            "it is neither a safetensors file, nor an EDM pickle, nor a PFGM++ training state"
            + f", but {instead}" * bool(instead)
        )
    except UnreadableError as error:
        raise unusable(path, str(error)) from error
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UnreadableError(f"the safetensors file is damaged ({shorten(str(error))}); get it again") from error
    if metadata.get("format") != FORMAT:
        if foreign := find(state, path):
            return _of_foreign(path, foreign)
        raise UnreadableError(f"its metadata has no format {FORMAT}, and its {bare_state(state)}")
    try:
        class_name, stated = metadata["class_name"], json.loads(metadata["init_kwargs"])
        numbers = {name: float(metadata[name]) for name in ("D", "sigma_min", "sigma_max") if name in metadata}
    except (KeyError, ValueError, RecursionError) as error:
        raise UnreadableError(f"its metadata is damaged ({type(error).__name__} {shorten(str(error))})") from error
    init_kwargs, augmented = _split_kwargs(stated)
    return Checkpoint(
        path=path,
        format="safetensors",
        class_name=class_name,
        init_kwargs=init_kwargs,
        state=dequantized(state),
        D=_dimension({**augmented, **numbers}),
        sigma_min=numbers.get("sigma_min"),
        sigma_max=numbers.get("sigma_max"),
        sha256=sha256(path),
        classes=_class_names(metadata.get("classes", "")),
        metadata={key: value for key, value in sorted(metadata.items()) if key not in _RESERVED},
        scalars={name: value for name, value in numbers.items() if name != "D"},
        quantized=frozenset(name for name, tensor in state.items() if tensor.dtype == torch.int8),
    )


def _class_names(stated: str) -> tuple[str, ...]:
    """Reads a JSON list of names, or the names with commas between them, as version 0.1.0 wrote them."""
    if not stated.startswith("["):
        return tuple(stated.split(",")) if stated else ()
    try:
        names = json.loads(stated)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnreadableError("its metadata is damaged (classes is no list of names)")
    return tuple(names)


def _read_pickled(path: Path, kind: str) -> Checkpoint:
    content = unpickled(path)
    if foreign := find_pickled(content, path):
        return _of_foreign(path, foreign)
    network, average, metadata = network_in(content, kind)
    attributes = cast(dict[str, Any], network.state)
    if attributes.get("_init_kwargs") is None or attributes.get("_init_args"):
        raise UnreadableError(
            "the arguments of its class were not saved (_init_kwargs is None, or some were given by position), so the "
            "model cannot be rebuilt; use a file that EDM's own training wrote"
        )
    record = read_network(network)
    tensors = average or record.tensors
    if sum(tensor.numbers.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise UnreadableError("its tensors share memory, which no network's do")
    init_kwargs, augmented = _split_kwargs(attributes["_init_kwargs"])
    class_name, scalars = network.name, record.scalars
    if class_name == edm2.CLASS:
        kind, class_name, init_kwargs = edm2.FORMAT, "EDM2Precond", edm2.arguments(init_kwargs)
        tensors, scalars = edm2.renamed(tensors), edm2.renamed(scalars)
        metadata |= {"latents": edm2.LATENTS} if init_kwargs.get("img_channels") == 4 else {}
    return Checkpoint(
        path=path,
        format=kind,
        class_name=class_name,
        init_kwargs=init_kwargs,
        state={key: tensor.load() for key, tensor in tensors.items()},
        D=_dimension({**augmented, **attributes}),
        sigma_min=record.scalars.get("sigma_min"),
        sigma_max=record.scalars.get("sigma_max"),
        sha256=sha256(path),
        metadata=metadata,
        scalars=scalars,
        source_sha256=network.source_sha256,
        known_source=all(m.source_sha256.startswith(KNOWN_SOURCES) for m in record.modules if isinstance(m, Record)),
    )


def _of_foreign(path: Path, found: Found, identity: str | None = None) -> Checkpoint:
    init_kwargs, _ = _split_kwargs(found.init_kwargs)
    return Checkpoint(
        path=path,
        format=found.format,
        class_name=found.class_name,
        init_kwargs=init_kwargs,
        state=found.state,
        D=None,
        sigma_min=init_kwargs.get("sigma_min"),
        sigma_max=init_kwargs.get("sigma_max"),
        sha256=identity or sha256(path),
        metadata=found.metadata,
    )


def _split_kwargs(stated: object) -> tuple[dict[str, Any], dict[str, object]]:
    """Checks the init_kwargs of EDM's classes, and splits off those that PFGM++ has added."""
    if not isinstance(stated, dict):
        raise UnreadableError(f"its init_kwargs are a {type(stated).__name__}, and have to be a dictionary")
    augmented = {key: stated[key] for key in ("D", "pfgmpp") if key in stated}
    own = {key: value for key, value in stated.items() if key not in augmented}
    return _plain(own, iter(range(_MAX_ITEMS))), augmented


def _plain(value: object, places: Iterator[int], depth: int = 0) -> Any:
    """Copies a value that JSON can hold; bounded, as a list of a pickle can hold another, or itself, many times."""
    if depth > _MAX_DEPTH or next(places, None) is None:
        raise UnreadableError(f"its init_kwargs are nested too deep, or hold more than {_MAX_ITEMS} values")
    match value:
        case "Infinity" | "-Infinity":
            return float(value)
        case None | bool() | str():
            return value
        case int() if abs(value) <= _MAX_INTEGER:
            return value
        case float() if not math.isnan(value):
            return value
        case list() | tuple():
            return [_plain(item, places, depth + 1) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _plain(item, places, depth + 1) for key, item in value.items()}
    what = shorten(str(value)) if isinstance(value, int | float) else f"a {type(value).__name__}"
    raise UnreadableError(f"its init_kwargs hold {what}, which no network needs")


def _dimension(stated: Mapping[Any, object]) -> int | None:
    """Reads D of PFGM++; None is Gaussian noise, which PFGM++ writes as D = inf or pfgmpp = False."""
    D = stated.get("D")
    if D in (None, math.inf) or not stated.get("pfgmpp", True):
        return None
    if is_number(D) and 1 <= D <= MAX_DIMENSIONS and float(D).is_integer():
        return int(D)
    raise UnreadableError(f"its D is no positive integer up to {MAX_DIMENSIONS:,}, and not inf either")
