"""Reads EDM's pickles and PFGM++'s training states without running what is in them.

Every module in such a file is a *record*: the Python source of its class, which the original loader executes, the name
of the class and the state. We keep the name, the state and a hash of the source. Tensors stay in the file until they
are loaded.
"""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restart_sampling.base.pickles import Blank, Global, Opcodes, Unpickler, UnreadableError, damaged, global_names

PICKLE_MAGIC = b"\x80"
ZIP_MAGIC = b"PK\x03\x04"

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MAX_AXES = 8
_DTYPES: Mapping[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
}
# Kinds of numpy scalars, as the module struct writes them.
_SCALARS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "u1": "B", "b1": "?"}
_NAMES = (
    "torch_utils.persistence._reconstruct_persistent_obj torch.nn.modules.container.ModuleDict torch.Size torch.device "
    "torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state "
    "torch.storage._load_from_bytes numpy.dtype numpy.core.multiarray.scalar numpy._core.multiarray.scalar "
    "numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct "
    "collections.OrderedDict dnnlib.util.EasyDict builtins.set __builtin__.set _codecs.encode"
)


@dataclass(slots=True, eq=False)
class Record(Blank):
    """An object of EDM's persistence: the name of its class, its attributes, the SHA-256 of its source."""

    source_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Numbers in the file, as bytes."""

    dtype: torch.dtype
    numbers: memoryview

    def view(self, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> "StoredTensor":
        """Makes a tensor in this storage. A number in it twice is not allowed: a stride of 0 would make much of little.

        Raises:
            UnreadableError: it is not within the storage, or empty.
        """
        integers = all(type(number) is int for number in (*size, *stride))
        if integers and len(size) == len(stride) <= _MAX_AXES and min((offset, *stride)) >= 0 < min((1, *size)):
            span = 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
            start, end = offset * self.dtype.itemsize, (offset + span) * self.dtype.itemsize
            if math.prod(size) <= span and end <= self.numbers.nbytes:
                return StoredTensor(self.dtype, self.numbers[start:end], size, stride)
        raise UnreadableError("a tensor does not lie within its storage, or has a number of it twice")


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor(Storage):
    """A tensor in the file: a storage from the first of its numbers to the last, and how they are arranged."""

    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> torch.Tensor:
        """Copies the tensor, contiguous, into memory of its own."""
        numbers = torch.from_numpy(np.frombuffer(self.numbers, np.uint8).copy())
        return numbers.view(self.dtype).as_strided(self.size, self.stride).contiguous()


def unpickled(path: Path) -> object:
    """Reads an EDM pickle or a training state (a zip of torch.save).

    Dictionaries of every kind are dict, sets are list, numpy scalars are numbers, torch.Size is tuple, devices are str.

    Raises:
        UnreadableError: the file is damaged, or asks for what no network needs.
    """
    stream, entries, opcodes = _opened(path)
    content = _Network(stream, opcodes, entries).load()
    if stream.read(1):
        raise UnreadableError(
            "something follows the end of its pickle, as in files that torch.save wrote before torch 1.6; load it with "
            "torch and save it again, with the network and not its state dict alone"
        )
    return content


def globals_in(path: Path) -> list[str]:
    """Lists the globals that a pickle or training state names (see `global_names`), sorted; none in other files."""
    try:
        stream, _, opcodes = _opened(path)
        return sorted(set(global_names(stream, opcodes)))
    except (UnreadableError, ValueError):  # an empty file cannot be mapped
        return []


Entries = dict[str, memoryview]


def _opened(path: Path) -> tuple[io.BytesIO | mmap.mmap, Entries | None, Opcodes]:
    """Opens the pickle as a stream that makes no room for more than is there, and the entries of a zip around it."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if mapped[:1] == PICKLE_MAGIC:
        return mapped, None, Opcodes(len(mapped))
    entries = _entries(path, memoryview(mapped))
    return io.BytesIO(entries["data.pkl"]), entries, Opcodes(len(mapped))


def _entries(path: Path, content: memoryview) -> Entries:
    """Reads what a zip of torch.save holds, and checks it against its checksums."""
    with damaged("its zip"), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if any(info.filename.endswith("/constants.pkl") for info in infos):
            raise UnreadableError(
                "it is a TorchScript file, a program with its weights, as detectors are, and no model"
            )
        if any(info.compress_type for info in infos) or sum(info.file_size for info in infos) > len(content):
            raise UnreadableError("the entries of its zip are compressed or overlap; torch.save writes none such")
        if name := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {name} differs")
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableError(
                f"a training state has one entry data.pkl in a folder, and this zip has {len(pickles)}"
            )
        entries = {}
        for info in infos:
            start = info.header_offset + 30 + sum(struct.unpack_from("<HH", content, info.header_offset + 26))
            name = info.filename.removeprefix(pickles[0].removesuffix("data.pkl"))
            entries[name] = content[start : start + info.file_size]
    if entries.get("byteorder", b"little") != b"little":
        raise UnreadableError("its numbers are big-endian; save it again on a little-endian machine")
    return entries


class _Described(Unpickler):
    """Reads persistent ids as type, key and number of elements of a storage; on which device it was does not matter."""

    names: Set[str] = _DTYPES.keys()

    def persistent_load(self, pid: object) -> Any:
        match pid:
            case ("storage", Global(kind), str(key), str(), int(count), *rest) if rest in ([], [None]):
                if kind in _DTYPES and count >= 0:
                    return _DTYPES[kind], key, count
        raise UnreadableError("a persistent id is not that of a storage")


class _Network(_Described):
    """Reads a network, whose storages are the entries of a zip, or within the pickle."""

    hint = ", and `restart-sampling model inspect FILE` lists what is in it"
    names = _DTYPES.keys() | set(_NAMES.split())

    def __init__(self, stream: io.BytesIO | mmap.mmap, opcodes: Opcodes, entries: Entries | None) -> None:
        super().__init__(stream, opcodes)
        self.entries = entries
        self.copied = 0  # bytes
        self.digests: dict[str, str] = {}

    def persistent_load(self, pid: object) -> Storage:
        if self.entries is None:
            self._refuse("uses the opcode BINPERSID")
        dtype, key, count = super().persistent_load(pid)
        numbers = self.entries.get(f"data/{key}")
        if numbers is None or numbers.nbytes != count * dtype.itemsize:
            raise UnreadableError(f"a storage of {count} elements has no entry of that size")
        return Storage(dtype, numbers)

    def make(self, name: str, *arguments: Any) -> object:
        match name.removesuffix(".__new__").rpartition(".")[2], *arguments:
            case "_reconstruct_persistent_obj", {
                "type": "class",
                "module_src": str(source),
                "class_name": str(class_name),
                "state": dict() | None as state,
            }:
                if source not in self.digests:
                    self.digests[source] = sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
                return Record(class_name, state or {}, self.digests[source])
            case "_load_from_bytes", bytes(data):
                self._copy(data)
                return _storage(data, self.opcodes)
            case "_rebuild_tensor_v2", Storage() as storage, int(offset), tuple(size), tuple(stride), bool(), *_:
                return storage.view(offset, size, stride)
            case "_rebuild_parameter" | "_rebuild_parameter_with_state", StoredTensor() as tensor, bool(), *_:
                return tensor
            case "ModuleDict", *_ if name.endswith(".__new__"):
                return Blank("ModuleDict")
            case ["OrderedDict"] | ["EasyDict"]:
                return {}
            case "Size" | "set", list() | tuple() as items:
                return items
            case ["device", str(device)] | ["device", str(device), int()]:
                return device
            case "dtype", str(kind), *_:
                return Blank(kind)
            case "scalar", Blank(kind, (_, "<" | ">" | "|" as order, *_)), bytes(data) if kind in _SCALARS:
                return struct.unpack(order.replace("|", "=") + _SCALARS[kind], data)[0]
            case "_reconstruct", Global("numpy.ndarray"), (0,), _:  # in the encoder of EDM2's latents
                return Blank("ndarray")
            case "encode", str(text), "latin1":  # how protocol 2 writes bytes
                self._copy(text)
                return text.encode("latin1")
        return super().make(name, *arguments)

    def _build(self, state: object, target: object) -> None:
        if not (type(target) is dict and isinstance(state, dict) and state.keys() == {"_metadata"}):  # a state dict's
            super()._build(state, target)

    def _copy(self, content: str | bytes) -> None:
        """Counts bytes: each text is encoded and each storage read once, together no more than the file has."""
        self.copied += len(content)
        if self.copied > 2 * self.opcodes.size:
            raise UnreadableError("it makes more than the bytes that it holds, which no network does")


def _storage(data: bytes, opcodes: Opcodes) -> Storage:
    """Reads what torch.save wrote before it wrote zips: five pickles, the number of elements and the elements."""
    stream = io.BytesIO(data)
    header = [Unpickler(stream, opcodes).load() for _ in range(3)]
    described, keys = _Described(stream, opcodes).load(), Unpickler(stream, opcodes).load()
    match *header, described:
        case (int(magic), int(version), {"little_endian": True}, (torch.dtype() as dtype, str(key), int(count))) if (
            magic,
            version,
            keys,
        ) == (_LEGACY_MAGIC, _LEGACY_VERSION, [key]):
            length, elements = stream.read(8), memoryview(data)[stream.tell() :]
            if elements.nbytes == count * dtype.itemsize and length == struct.pack("<q", count):
                return Storage(dtype, elements)
            raise UnreadableError(f"a storage of {count} elements has {elements.nbytes} bytes")
    raise UnreadableError("a storage is not in the form of torch.save")
