"""A restricted unpickler: it neither imports nor runs anything in a file.

A list of allowed names alone is no fence: BUILD sets attributes of any object within reach, allowed functions included,
and keys are hashed in depth. So only the opcodes that networks and image sets need are left, a name stands for itself,
and `make` says what a call makes. It is Python's unpickler in Python, which takes no memory for a declared length or a
memo index.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO, ClassVar, NoReturn

from restart_sampling.base.errors import shorten

MAX_OPCODES = 2_000_000  # the largest published network needs a tenth of it

_CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_AS_IN_PYTHON = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE "
    "BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 SHORT_BINSTRING BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST APPEND APPENDS EMPTY_DICT MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL STACK_GLOBAL BINPERSID"
)


class UnreadableError(Exception):
    """The file is damaged, or asks for what is not allowed; the message is the end of a sentence."""


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """Turns all errors into UnreadableError: a damaged file can fail in any way."""
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(f"{what} is damaged: {shorten(str(error) or type(error).__name__)}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A known name in the file, `module.name`."""

    name: str


@dataclass(slots=True, eq=False)
class Blank:
    """Stands for an instance of a known class, and takes its state once."""

    name: str
    state: object = None


class Opcodes:
    """The opcodes of all pickles in one file of `size` bytes, which may not be too many."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = MAX_OPCODES

    def of(self, stream: BinaryIO | mmap) -> Iterator[tuple[str, Any]]:
        """Yields names and arguments to the end of the pickle at the stream's position; raises UnreadableError."""
        with damaged("the pickle"):
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                self._left -= 1
                if self._left < 0:
                    raise UnreadableError(f"it has more than {MAX_OPCODES:,} opcodes")
                yield opcode.name, argument


class Unpickler(pickle._Unpickler):
    """Reads the pickle of protocol 2 to 5 at a stream's position. Sets become lists, Python 2's str latin-1 text."""

    names: Set[str] = frozenset()  # that may occur; none is imported
    content = "network"  # what the file should hold, for messages
    hint = ""  # what the message about another name ends with
    stack: list[Any]
    metastack: list[list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: lambda self, name=name: self._refuse(f"uses the opcode {name}") for name, code in _CODES.items()},  # type: ignore[misc]
        **{_CODES[name]: pickle._Unpickler.dispatch[_CODES[name]] for name in _AS_IN_PYTHON.split()},
        _CODES["EMPTY_SET"]: pickle._Unpickler.dispatch[_CODES["EMPTY_LIST"]],
        _CODES["ADDITEMS"]: pickle._Unpickler.dispatch[_CODES["APPENDS"]],
        _CODES["SETITEM"]: lambda self: self._update([self.stack.pop(), self.stack.pop()][::-1]),
        _CODES["SETITEMS"]: lambda self: self._update(self.pop_mark()),
        _CODES["REDUCE"]: lambda self: self._call(self.stack.pop(), self.stack.pop()),
        _CODES["NEWOBJ"]: lambda self: self._call(self.stack.pop(), self.stack.pop(), ".__new__"),
        _CODES["BUILD"]: lambda self: self._build(self.stack.pop(), self.stack[-1]),
    }

    def __init__(self, stream: BinaryIO | mmap, opcodes: Opcodes) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream, self.opcodes = stream, opcodes

    def load(self) -> object:
        """Reads the pickle's value, and leaves the stream behind it.

        Raises:
            UnreadableError: the pickle is damaged, or asks for what is not allowed.
        """
        start = self.stream.tell()
        for name, argument in self.opcodes.of(self.stream):
            if name == "PROTO" and not 2 <= argument <= 5:
                raise UnreadableError(f"its pickle protocol is {argument}, and can be 2 to 5")
            if name == "FRAME" and argument > self.opcodes.size:
                raise UnreadableError(f"a frame of {argument:,} bytes is larger than the file")
        end = self.stream.tell()
        self.stream.seek(start)
        with damaged("the pickle"):
            try:
                value: object = super().load()
            except IndexError:
                raise ValueError("its stack is empty, or a mark is missing") from None
            if self.stack or self.metastack:
                raise ValueError("something is left on its stack")
        self.stream.seek(end)
        return value

    def make(self, name: str, *arguments: Any) -> object:
        """Makes what a call of a name gives (NEWOBJ calls `NAME.__new__`); raises UnreadableError for other calls."""
        raise UnreadableError(f"it calls {name} as no {self.content} does")

    def find_class(self, module: str, name: str) -> Global:
        """Returns the name itself, where it is known."""
        if f"{module}.{name}" not in self.names or "." in name:
            self._refuse(f"asks for {shorten(f'{module}.{name}')}", f"; nothing in it was run{self.hint}")
        return Global(f"{module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        """Returns what a persistent id stands for; here, there are none."""
        self._refuse("uses the opcode BINPERSID")

    def _refuse(self, deed: str, end: str = "") -> NoReturn:
        raise UnreadableError(f"it {deed}, which no {self.content} needs{end}")

    def _call(self, arguments: object, target: object, method: str = "") -> None:
        if isinstance(target, Global) and isinstance(arguments, tuple):
            self.stack.append(self.make(target.name + method, *arguments))
        else:
            Unpickler.make(self, target.name if isinstance(target, Global) else f"a {type(target).__name__}")

    def _build(self, state: object, target: object) -> None:
        if not isinstance(target, Blank) or target.state is not None:
            self._refuse(f"sets the state of a {type(target).__name__}")
        target.state = state

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            self._refuse(f"sets {len(items)} keys and values of a {type(target).__name__}")
        if wrong := [type(key).__name__ for key in items[::2] if type(key) not in (str, int)]:  # hashed in depth
            raise UnreadableError(f"a dictionary has a key that is a {wrong[0]}, and can be a str or an int")
        target.update(zip(items[::2], items[1::2], strict=True))


def global_names(stream: BinaryIO | mmap, opcodes: Opcodes, inside: bool = True) -> Iterator[str]:
    """Lists the names in the pickles from the stream's position on, and in those within bytes, as tensors are.

    Opcodes are only looked at, so a name that is put together in an unusual way shows as "?". Damage ends the search.
    """
    try:
        while True:
            memo: dict[int, object] = {}
            before: object = None
            last: object = None  # what the last two opcodes pushed
            for name, argument in opcodes.of(stream):
                if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
                    memo[len(memo) if name == "MEMOIZE" else argument] = last
                    continue
                if name in ("GLOBAL", "INST"):
                    yield argument.replace(" ", ".")
                elif name == "STACK_GLOBAL":
                    yield ".".join(part if isinstance(part, str) else "?" for part in (before, last))
                elif inside and isinstance(argument, bytes):
                    yield from global_names(io.BytesIO(argument), opcodes, inside=False)
                before, last = last, memo.get(argument) if name in ("BINGET", "LONG_BINGET") else argument
    except UnreadableError:
        return
