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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from restart_sampling.base.pickles import (
    Arguments,
    Blank,
    Budget,
    Function,
    Global,
    Machine,
    UnreadableError,
    global_names,
)

PICKLE_MAGIC = b"\x80"
ZIP_MAGIC = b"PK\x03\x04"

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MAX_DIMENSIONS = 8
_HINT = ", and `restart-sampling model inspect FILE` lists what is in it"
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


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An object of EDM's persistence: the name of its class, the sha256 of its source, its attributes."""

    class_name: str
    source_sha256: str
    state: dict[object, object]


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`count` numbers in the file; `read` gives their bytes, and raises UnreadableError where the file is damaged."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes | memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in the file: a view of a storage, in range and not empty."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes from the first number to the last."""
        return _span(self.size, self.stride) * self.storage.dtype.itemsize

    def load(self) -> torch.Tensor:
        """The tensor, contiguous, in memory of its own.

        Raises:
            UnreadableError: The file is damaged.
        """
        start = self.offset * self.storage.dtype.itemsize
        numbers = np.frombuffer(self.storage.read(), np.uint8)[start : start + self.nbytes].copy()
        return torch.from_numpy(numbers).view(self.storage.dtype).as_strided(self.size, self.stride).contiguous()


@contextmanager
def unpickled(path: Path) -> Iterator[object]:
    """The content of an EDM pickle or of a training state (a zip of torch.save), whose tensors load while it is open.

    Dictionaries of every kind are dict, sets are list, numpy scalars are numbers, torch.Size is tuple, devices are str.

    Raises:
        UnreadableError: The file is damaged, or asks for what no network needs.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            with _archive(path) as archive:
                entries = _Entries(archive, size)
                yield _Reader(size, entries.storage).read(entries.pickle())
        else:
            with _mapped(file) as stream:
                content = _Reader(size).read(stream)
            yield content


def globals_in(path: Path) -> list[str]:
    """The globals that a pickle or training state names (see `global_names`), sorted; [] for a file of another kind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(len(ZIP_MAGIC))
        if magic == ZIP_MAGIC:
            try:
                with _archive(path) as archive:
                    return sorted(set(global_names(_Entries(archive, size).pickle(), Budget(size))))
            except UnreadableError:
                return []
        if magic.startswith(PICKLE_MAGIC):
            with _mapped(file) as stream:
                return sorted(set(global_names(stream, Budget(size))))
    return []


class _Reader:
    """What the pickles of one file may call. Every function checks its arguments.

    Args:
        size: Of the file, bytes.
        stored: The storage that a persistent id stands for; None where the format has no such ids.
    """

    def __init__(self, size: int, stored: Callable[[object], Storage] | None = None) -> None:
        self.size = size
        self.stored = stored
        self.budget = Budget(size)
        self.encoded = 0
        self.digests: dict[str, str] = {}
        self.functions: Mapping[str, Function] = {
            "torch_utils.persistence._reconstruct_persistent_obj": self.record,
            "torch.storage._load_from_bytes": self.legacy_storage,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch.Size": _items,
            "torch.device": _device,
            "numpy.dtype": _numpy_type,
            "numpy.core.multiarray.scalar": _numpy_scalar,
            "numpy._core.multiarray.scalar": _numpy_scalar,
            "collections.OrderedDict": _dict,
            "builtins.set": _items,
            "__builtin__.set": _items,
            "_codecs.encode": self.encode,
        }
        self.classes: Mapping[str, Function] = {
            "torch.nn.modules.container.ModuleDict": _module_dict,
            "dnnlib.util.EasyDict": _dict,
        }

    def read(self, stream: io.BytesIO | mmap.mmap) -> object:
        """The value of the one pickle in the stream."""
        machine = Machine(self.functions, self.classes, _DTYPES.keys(), self.stored, hint=_HINT)
        value = machine.run(self.budget.opcodes(stream))
        if stream.read(1):
            raise UnreadableError("something follows the end of its pickle")
        return value

    def record(self, arguments: Arguments) -> Record:
        """An object of EDM's persistence. Its source is hashed, and not run."""
        match arguments:
            case (
                {"type": "class", "module_src": str(source), "class_name": str(name), "state": dict() | None as state},
            ):
                if source not in self.digests:
                    self.digests[source] = sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
                return Record(name, self.digests[source], state or {})
        raise UnreadableError("an object of torch_utils.persistence has no class, source and state")

    def encode(self, arguments: Arguments) -> bytes:
        """How protocol 2 writes bytes: each once, so that together they are no larger than the file."""
        match arguments:
            case (str(text), "latin1"):
                self.encoded += len(text)
                with suppress(UnicodeEncodeError):
                    if self.encoded <= self.size:
                        return text.encode("latin1")
        raise UnreadableError("_codecs.encode is used for more than the bytes of protocol 2")

    def legacy_storage(self, arguments: Arguments) -> Storage:
        """What torch.save wrote before it wrote zips: five pickles, then the number of elements and the elements."""
        match arguments:
            case (bytes(data),):
                pass
            case _:
                raise UnreadableError("a storage is not in bytes")
        stream = io.BytesIO(data)
        header = [Machine().run(self.budget.opcodes(stream)) for _ in range(3)]
        described = Machine(names=_DTYPES.keys(), stored=_described).run(self.budget.opcodes(stream))
        keys = Machine().run(self.budget.opcodes(stream))
        match (*header, described):
            case (magic, version, {"little_endian": True}, (torch.dtype() as dtype, str(key), int(count))) if (
                magic == _LEGACY_MAGIC and version == _LEGACY_VERSION and keys == [key]
            ):
                start = stream.tell() + 8
                elements = memoryview(data)[start:]
                if elements.nbytes != count * dtype.itemsize or data[start - 8 : start] != struct.pack("<q", count):
                    raise UnreadableError(f"a storage of {count} elements has {elements.nbytes} bytes")
                return Storage(dtype, count, lambda: elements)
        raise UnreadableError("a storage is not in the form of torch.save")


class _Entries:
    """The entries of a zip of torch.save. Nothing is compressed in it, so no entry is larger than the file.

    Args:
        archive: The zip.
        size: Of the file, bytes.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.size = size
        self.infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self.infos if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableError(
                f"a training state has one entry data.pkl in a folder, and this zip has {len(pickles)}"
            )
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}byteorder" in self.infos and self.bytes("byteorder") != b"little":
            raise UnreadableError("its numbers are big-endian; save it again on a little-endian machine")

    def pickle(self) -> io.BytesIO:
        """The pickle that names the storages."""
        return io.BytesIO(self.bytes("data.pkl"))

    def storage(self, identity: object) -> Storage:
        """The storage of a persistent id."""
        dtype, key, count = _described(identity)
        info = self.infos.get(f"{self.folder}data/{key}")
        if info is None or info.file_size != count * dtype.itemsize:
            raise UnreadableError(f"a storage of {count} elements has no entry of that size")
        return Storage(dtype, count, lambda: self.bytes(f"data/{key}"))

    def bytes(self, name: str) -> bytes:
        """The content of an entry, checked against its checksum."""
        info = self.infos[self.folder + name]
        if info.compress_type != zipfile.ZIP_STORED or not info.file_size == info.compress_size <= self.size:
            raise UnreadableError(
                "an entry of its zip is compressed or larger than the file; torch.save writes none such"
            )
        with _zip_errors():
            return self.archive.read(info)


def _mapped(file: BinaryIO) -> mmap.mmap:
    """A file as a stream that never gives, nor makes room for, more than is in it."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with _zip_errors():
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        raise UnreadableError(f"its zip is damaged ({type(error).__name__})") from error


def _described(identity: object) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage, from its persistent id; the device it was on does not matter."""
    match identity:
        case ("storage", Global(name=kind), str(key), str(), int(count), *rest) if kind in _DTYPES and rest in (
            [],
            [None],
        ):
            if 0 <= count < 2**48:
                return _DTYPES[kind], key, count
    raise UnreadableError("a persistent id is not that of a storage")


def _span(size: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))


def _tensor(arguments: Arguments) -> StoredTensor:
    match arguments:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), bool(), *_):
            if (
                len(size) == len(stride) <= _MAX_DIMENSIONS
                and all(type(length) is int and length >= 1 for length in size)
                and all(type(step) is int and step >= 0 for step in stride)
                and offset >= 0
                # Elements may not be repeated either: a stride of 0 would make any size fit.
                and max(math.prod(size), offset + _span(size, stride)) <= storage.count
            ):
                return StoredTensor(storage, offset, size, stride)
            raise UnreadableError("a tensor does not lie within its storage")
    raise UnreadableError("a tensor is not in the form of torch.save")


def _parameter(arguments: Arguments) -> StoredTensor:
    match arguments:
        case (StoredTensor() as tensor, bool(), *_):
            return tensor
    raise UnreadableError("a parameter holds no tensor")


def _dict(arguments: Arguments) -> dict[object, object]:
    if arguments:
        raise UnreadableError("a dictionary is made from arguments")
    return {}


def _items(arguments: Arguments) -> list[object] | tuple[object, ...]:
    match arguments:
        case ((list() | tuple()) as items,):
            return items
    raise UnreadableError("a set or torch.Size is not made from a list or tuple")


def _device(arguments: Arguments) -> str:
    match arguments:
        case (str(name),) | (str(name), int()):
            return name
    raise UnreadableError("a torch.device has no name")


def _module_dict(arguments: Arguments) -> Blank:
    return Blank("ModuleDict", arguments)


def _numpy_type(arguments: Arguments) -> Blank:
    return Blank("numpy.dtype", arguments)


def _numpy_scalar(arguments: Arguments) -> object:
    match arguments:
        case (Blank("numpy.dtype", (str(kind), *_), (_, "<" | ">" | "|" as order, *_)), bytes(data)) if (
            kind in _SCALARS
        ):
            layout = struct.Struct(order.replace("|", "=") + _SCALARS[kind])
            if layout.size == len(data):
                return layout.unpack(data)[0]
    raise UnreadableError("a numpy scalar is not a number")
