"""Numbers of any type as Python's own, and in texts, with their errors or nouns; checks of other arguments."""

from collections.abc import Collection, Iterable
from math import inf
from operator import index
from sys import float_info
from typing import SupportsFloat, SupportsIndex, TypeGuard, TypeVar

from restart_sampling.base.errors import InputError

T = TypeVar("T")

_LEAST_ERROR = 1e-9  # with less, as of equal images, there would be a row of zeros


def whole_number(name: str, value: SupportsIndex) -> int:
    """Returns an integer of any type as an int.

    Raises:
        InputError: it is another number, a bool or no number.
    """
    try:
        if not _is_bool(value):
            return index(value)
    except TypeError:
        pass
    raise InputError(f"{name} = {value!r}; give a whole number")


def real_number(name: str, value: SupportsFloat) -> float:
    """Returns a number of any type as a float.

    Raises:
        InputError: it is a bool, a text or no number.
    """
    try:
        if isinstance(value, SupportsFloat) and not _is_bool(value):
            return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # such as an array of several numbers
        pass
    raise InputError(f"{name} = {value!r}; give a number")


def _is_bool(value: object) -> bool:
    """Tells a bool of any type, which Python, numpy and torch take for the numbers 0 and 1."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def is_number(value: object) -> TypeGuard[float]:
    """Tells whether what a file says is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Tells whether what a file says is a number that a float can be."""
    return is_number(value) and abs(value) <= float_info.max


def is_whole(value: object) -> TypeGuard[int]:
    """Tells whether what a file says is a whole number, and written as one."""
    return is_number(value) and isinstance(value, int)


def has_truth(content: object) -> bool:
    """Tells whether true or false is anywhere in JSON."""
    return isinstance(content, bool) or any(map(has_truth, parts_of(content)))


def parts_of(content: object) -> Iterable[object]:
    """Returns what a list of JSON holds, or the values of an object; () of anything else."""
    if isinstance(content, dict):
        return content.values()
    return content if isinstance(content, list) else ()


def truth_value(name: str, value: object) -> bool:
    """Returns a bool of any type as Python's own.

    Raises:
        InputError: it is none, such as the text "no", which Python takes for true, or an array of them.
    """
    if _is_bool(value) and not getattr(value, "shape", ()):
        return bool(value)
    raise InputError(f"{name} = {value!r}; give True or False")


def listed(role: str, values: Iterable[T]) -> tuple[T, ...]:
    """Returns values as a tuple.

    Raises:
        InputError: they are no sequence.
    """
    try:
        return tuple(values)
    except TypeError:
        raise InputError(f"{role} is of type {type(values).__name__}; give a sequence") from None


def as_sizes(shape: object) -> tuple[int, ...]:
    """Returns the sizes of a shape; (): it has none, or is no shape."""
    try:
        sizes = tuple(map(index, shape))  # type: ignore[call-overload]
    except TypeError:
        return ()
    return sizes if min(sizes, default=0) >= 1 else ()


def require_kind(role: str, value: object, kinds: type | tuple[type, ...], give: str) -> None:
    """Makes sure that an argument is of a kind.

    Args:
        role: what it is.
        value: of the argument.
        kinds: that it may be of.
        give: these in words.

    Raises:
        InputError: it is of another.
    """
    if not isinstance(value, kinds):
        raise InputError(f"{role} is of type {type(value).__name__}; give {give}")


def require_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Makes sure that an argument is one of a few texts.

    Raises:
        InputError: it is another.
    """
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it can be one of {', '.join(allowed)}")


def counted(count: float, noun: str, form: str = "") -> str:
    """Writes how many of something there are, such as 1 image or 2 classes.

    Args:
        count: how many.
        noun: the name of one.
        form: of the number, as of `format`.
    """
    return f"{count:{form}} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def format_number(value: float) -> str:
    """Writes a float so that it reads back exactly, without a trailing '.0'."""
    return repr(value).removesuffix(".0")


def rounded_to(value: float, error: float | None, sign: str = "") -> str:
    """Writes a number to the place of the second digit of its standard error.

    Args:
        value: the number.
        error: None, not finite or next to 0: six digits are written.
        sign: "+" for one before positive numbers too.
    """
    if error is None or not _LEAST_ERROR < error < inf:
        return f"{value:{sign}.6g}"
    places = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
    return f"{value:{sign}.{places}f}"


def with_error(value: float, error: float | None, *, sign: str = "", between: str = " +- ") -> str:
    """Writes a number and its standard error, such as 0.0455 +- 0.0041, or the number alone."""
    return rounded_to(value, error, sign) + ("" if error is None else f"{between}{rounded_to(error, error)}")
