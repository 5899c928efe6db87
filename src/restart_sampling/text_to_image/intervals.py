"""The restart intervals of a scheduler, in any of the forms that people have them in."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.plan_text import split_plan

_FORM = "give lists [points, repeats, t_min, t_max], such as [[10, 2, 0.1, 2.0]]"


def read_intervals(restart: Any) -> tuple[RestartInterval, ...]:
    """Reads intervals from lists, tuples, arrays, tensors, text, or the dicts of the original and of AUTOMATIC1111.

    Args:
        restart: none of None, False or an empty list; [[10, 2, 0.1, 2.0]]; "[10,2,0.1,2.0]"; the original's
            {"0": [10, 2, 0.1, 2.0]}; AUTOMATIC1111's {0.1: [10, 2, 2.0]}, by t_min.

    Raises:
        InputError: it has another form, or a number is out of its range.
    """
    if restart is None or restart is False:
        return ()
    if isinstance(restart, str):
        return _parse(restart)
    if isinstance(restart, Mapping):
        restart = [_entry(*item) for item in restart.items()]
    if isinstance(restart, (np.ndarray, torch.Tensor)):
        restart = restart.tolist()
    if isinstance(restart, RestartInterval):
        restart = [restart]
    if not isinstance(restart, Iterable):
        raise InputError(f"restart is {restart!r}; {_FORM}")
    return tuple(map(_interval, restart))


def as_lists(intervals: Iterable[RestartInterval]) -> list[list[float]]:
    """Writes the intervals as JSON keeps them."""
    return [[each.points, each.repeats, each.t_min, each.t_max] for each in intervals]


def _parse(text: str) -> tuple[RestartInterval, ...]:
    if not text.strip():
        return ()
    if not text.lstrip().startswith(("[", "{")):
        raise InputError(f"restart is {text!r}; {_FORM}")
    try:
        _, intervals, settings = split_plan(text)
    except InputError as error:
        raise InputError(f"restart is {text!r}: {error}") from None
    if not intervals or settings:
        raise InputError(f"restart is {text!r}; {_FORM}")
    return intervals


def _entry(key: Any, value: Any) -> Any:
    """Reads the list of an item of a dict: the original's by any key, AUTOMATIC1111's by t_min."""
    numbers = _numbers(value)
    if len(numbers) == 3:
        return [numbers[0], numbers[1], _number(key), numbers[2]]
    return numbers


def _interval(entry: Any) -> RestartInterval:
    if isinstance(entry, RestartInterval):
        return entry
    numbers = _numbers(entry)
    if len(numbers) != 4:
        raise InputError(f"restart has the entry {entry}; {_FORM}")
    points, repeats, t_min, t_max = map(_number, numbers)
    for name, value in (("points", points), ("repeats", repeats)):
        if not (isfinite(value) and value == int(value)):
            raise InputError(f"restart has the entry {entry}, whose {name} are {value:g}; give a whole number")
    return RestartInterval(int(points), int(repeats), t_min, t_max)


def _numbers(entry: Any) -> list[Any]:
    """Lists the members of an entry; none where it has none."""
    if isinstance(entry, (np.ndarray, torch.Tensor)):
        entry = entry.tolist()
    return list(entry) if isinstance(entry, Iterable) and not isinstance(entry, (str, Mapping)) else []


def _number(value: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise ValueError
        return float(value.item() if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) else value)
    except (TypeError, ValueError):
        raise InputError(f"restart has the number {value!r}; {_FORM}") from None
