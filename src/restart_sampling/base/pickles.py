"""A machine for pickles that cannot run what is in them.

Python's own unpickler is not used, because a list of allowed names does not make it safe: BUILD sets attributes of any
object within reach, the allowed functions included, and memo indices and declared lengths make it allocate at will.
Networks and image sets need so few opcodes that a machine for them is smaller than the fences would be. It imports
nothing, sets no attribute but `Blank.state`, and calls only the functions that its caller lists. It does not recurse,
so deep nesting is harmless, and no opcode copies what it can share, so memory stays in proportion to the file.
"""

import io
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO

from restart_sampling.base.errors import shorten

MAX_OPCODES = 2_000_000  # the largest published network needs a tenth of it

_PROTOCOLS = range(2, 6)
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_VALUES |= {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_VALUES |= {"SHORT_BINSTRING", "BINSTRING"}  # Python 2's str, as latin-1 text
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

Arguments = tuple[object, ...]
Function = Callable[[Arguments], object]


class UnreadableError(Exception):
    """The file is damaged, or asks for what is not allowed; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in the file, `module.name`, that the machine knows."""

    name: str


@dataclass(slots=True, eq=False)
class Blank:
    """What stands for an instance of an allowed class, and takes its state once."""

    name: str
    arguments: Arguments
    state: object = None


class Budget:
    """How many opcodes may still be read from one file, in all its pickles together.

    Args:
        size: Of the file, bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = MAX_OPCODES

    def opcodes(self, stream: BinaryIO | mmap) -> Iterator[tuple[str, Any]]:
        """Names and arguments of the opcodes of the pickle at the stream's position.

        Raises:
            UnreadableError: The pickle is damaged, or the file has too many opcodes.
        """
        try:
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                self.left -= 1
                if self.left < 0:
                    raise UnreadableError(f"it has more than {MAX_OPCODES:,} opcodes")
                if opcode.name == "FRAME" and int(argument or 0) > self.size:
                    raise UnreadableError(f"a frame of {argument:,} bytes is larger than the file")
                yield opcode.name, argument
        except ValueError as error:
            raise UnreadableError(f"the pickle is damaged: {shorten(str(error))}") from error


class Machine:
    """Reads one pickle of protocol 2 to 5. Dictionaries of every kind become dict, sets become list.

    Args:
        functions: What REDUCE may call; each takes the tuple of arguments, and must check it.
        classes: What NEWOBJ may call, likewise.
        names: Further globals that may be named, but not called.
        stored: What a persistent id stands for; None where there can be none.
        content: What the file should hold, for messages.
        hint: What the message of a forbidden global ends with.
    """

    def __init__(
        self,
        functions: Mapping[str, Function] | None = None,
        classes: Mapping[str, Function] | None = None,
        names: Set[str] = frozenset(),
        stored: Callable[[object], object] | None = None,
        content: str = "network",
        hint: str = "",
    ) -> None:
        self._functions = functions or {}
        self._classes = classes or {}
        self._names = names
        self._stored = stored
        self._unneeded = f"which no {content} needs"
        self._hint = hint
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each MARK
        self._memo: dict[int, object] = {}

    def run(self, opcodes: Iterable[tuple[str, Any]]) -> object:
        """The value that the pickle holds.

        Raises:
            UnreadableError: The pickle is damaged, or asks for what is not allowed.
        """
        for name, argument in opcodes:
            self._step(name, argument)
        value = self._pop()
        if self._stack or self._below:
            raise UnreadableError("the pickle is damaged: something is left on its stack")
        return value

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            return
        match name:
            case "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise UnreadableError(f"the pickle is damaged: memo {argument} was never set")
                stack.append(self._memo[argument])
            case "MEMOIZE":
                self._memoize(len(self._memo))
            case "BINPUT" | "LONG_BINPUT":
                self._memoize(argument)
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "TUPLE":
                items = self._pop_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self._pop() for _ in range(_TUPLES[name])]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_mark())
            case "SETITEM":
                value, key = self._pop(), self._pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._pop_mark())
            case "GLOBAL":
                module, _, attribute = argument.partition(" ")
                stack.append(self._global(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                stack.append(self._global(module, attribute))
            case "REDUCE":
                self._call(self._functions)
            case "NEWOBJ":
                self._call(self._classes)
            case "BUILD":
                state, target = self._pop(), self._peek()
                if not isinstance(target, Blank) or target.state is not None:
                    raise UnreadableError(f"it sets the state of a {type(target).__name__}, {self._unneeded}")
                target.state = state
            case "BINPERSID" if self._stored is not None:
                stack.append(self._stored(self._pop()))
            case "PROTO":
                if argument not in _PROTOCOLS:
                    raise UnreadableError(f"its pickle protocol is {argument}, and can be 2 to 5")
            case "FRAME" | "STOP":
                pass
            case _:
                raise UnreadableError(f"it uses the opcode {name}, {self._unneeded}")

    def _peek(self) -> Any:
        if not self._stack:
            raise UnreadableError("the pickle is damaged: its stack is empty")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._peek()
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._below:
            raise UnreadableError("the pickle is damaged: a mark is missing")
        items, self._stack = self._stack, self._below.pop()
        return items

    def _memoize(self, index: int) -> None:
        if index in self._memo:
            raise UnreadableError(f"the pickle is damaged: memo {index} is set twice")
        self._memo[index] = self._peek()

    def _extend(self, items: list[Any]) -> None:
        target = self._peek()
        if type(target) is not list:
            raise UnreadableError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._peek()
        if type(target) is not dict or len(items) % 2:
            raise UnreadableError(f"it sets {len(items)} keys and values of a {type(target).__name__}")
        keys = items[::2]
        for key in keys:
            # Other keys would be compared and hashed in depth.
            if type(key) not in (str, int):
                raise UnreadableError(
                    f"a dictionary has a key that is a {type(key).__name__}, and can be a str or an int"
                )
        target.update(zip(keys, items[1::2], strict=True))

    def _global(self, module: object, attribute: object) -> Global:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnreadableError("the pickle is damaged: the name of a global is no text")
        name = f"{module}.{attribute}"
        known = name in self._functions or name in self._classes or name in self._names
        if not known or "." in attribute:
            raise UnreadableError(f"it asks for {shorten(name)}, {self._unneeded}; nothing in it was run{self._hint}")
        return Global(name)

    def _call(self, allowed: Mapping[str, Function]) -> None:
        arguments, target = self._pop(), self._pop()
        if not isinstance(target, Global) or target.name not in allowed or not isinstance(arguments, tuple):
            called = shorten(target.name) if isinstance(target, Global) else f"a {type(target).__name__}"
            raise UnreadableError(f"it calls {called}, {self._unneeded}")
        self._stack.append(allowed[target.name](arguments))


def global_names(stream: BinaryIO | mmap, budget: Budget, inside: bool = True) -> Iterator[str]:
    """The globals that the pickles from the stream's position on name, those within bytes (tensors are such) included.

    Opcodes are only looked at, so a name that is put together in an unusual way shows as "?". Damage ends the search.
    """
    try:
        while True:
            memo: dict[int, object] = {}
            before, last = None, None  # what the last two opcodes pushed
            for name, argument in budget.opcodes(stream):
                if name == "MEMOIZE":
                    memo[len(memo)] = last
                elif name in ("BINPUT", "LONG_BINPUT"):
                    memo[argument] = last
                elif name in ("BINGET", "LONG_BINGET"):
                    before, last = last, memo.get(argument)
                else:
                    if name in ("GLOBAL", "INST"):
                        yield argument.replace(" ", ".")
                    elif name == "STACK_GLOBAL":
                        yield ".".join(part if isinstance(part, str) else "?" for part in (before, last))
                    elif inside and isinstance(argument, bytes):
                        yield from global_names(io.BytesIO(argument), budget, inside=False)
                    before, last = last, argument
    except UnreadableError:
        return
