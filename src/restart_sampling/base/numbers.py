"""Numbers of any type, of numpy and torch too, as Python's own, which print so that they read back."""

from operator import index
from typing import SupportsFloat, SupportsIndex

from restart_sampling.base.errors import InputError


def whole_number(name: str, value: SupportsIndex) -> int:
    """Returns an integer of any type as an int.

    Raises:
        InputError: it is another number, a bool or no number.
    """
    try:
        if not isinstance(value, bool):
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
        if isinstance(value, SupportsFloat) and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # such as an array of several numbers
        pass
    raise InputError(f"{name} = {value!r}; give a number")
