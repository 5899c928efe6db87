"""The grammar of plans, which samplers of pipelines share: steps, intervals and `key=value` settings in a text."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval

DEFAULT_STEPS = 18
"""Of EDM and of the Restart authors' script, for intervals that are written without a number of steps."""

_GRAMMAR = "a plan is a number of steps, restart intervals [N_restart,K,t_min,t_max], and key=value settings"
_TOKEN = re.compile(r"[\s,]*(?:(?P<json>\{[^{}]*\})|(?P<interval>\[[^\[\]]*\])|(?P<word>[^\s,{}\[\]]+))")


def split_plan(text: str) -> tuple[int, tuple[RestartInterval, ...], list[str]]:
    """Cuts the text of a plan into its number of steps, intervals, and settings `key=value` as they are written.

    Raises:
        InputError: not such a text.
    """
    steps: int | None = None
    intervals: list[RestartInterval] = []
    settings: list[str] = []
    text, end = text.strip().rstrip(","), 0
    while end < len(text):
        token = _TOKEN.match(text, end)
        if token is None:
            raise InputError(f"cannot read '{text[end:].strip()}'; {_GRAMMAR}")
        if token["json"]:
            intervals += _json_intervals(token["json"])
        elif token["interval"]:
            intervals.append(_interval(token["interval"][1:-1].split(",")))
        elif "=" in token["word"]:
            settings.append(token["word"])
        elif end == 0:
            steps = _integer("the number of steps", token["word"])
        else:
            raise InputError(f"cannot read '{token['word']}'; {_GRAMMAR}")
        end = token.end()
    if steps is None and not intervals:
        raise InputError(f"it has no number of steps; {_GRAMMAR}, such as '18 [3,2,0.06,0.30]'")
    keys = [setting.partition("=")[0] for setting in settings]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"it has {twice[0]} twice; give it once")
    return DEFAULT_STEPS if steps is None else steps, tuple(intervals), settings


def _json_intervals(text: str) -> list[RestartInterval]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read '{text}' as JSON ({error}); write {{\"0\": [3, 2, 0.06, 0.30]}}") from None
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"'{text}' has the key {json.dumps(twice[0])} twice; number its intervals 0, 1, 2 and so on")
    if not all(isinstance(value, list) for _, value in pairs):
        raise InputError(f"'{text}' must hold lists; write {{\"0\": [3, 2, 0.06, 0.30]}}")
    return [_interval([str(number) for number in value]) for _, value in pairs]


def _interval(numbers: Sequence[str]) -> RestartInterval:
    if len(numbers) != 4:
        raise InputError(f"interval [{','.join(numbers)}] has {len(numbers)} entries; write [N_restart,K,t_min,t_max]")
    points, repeats, t_min, t_max = (number.strip() for number in numbers)
    try:
        return RestartInterval(_integer("N_restart", points), _integer("K", repeats), float(t_min), float(t_max))
    except InputError:
        raise
    except ValueError:
        raise InputError(
            f"interval [{','.join(numbers)}]: t_min and t_max must be numbers; write them as noise levels, such as 0.06"
        ) from None


def _integer(what: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{what} is '{text}', which is not a whole number; {_GRAMMAR}") from None


def read_scale(where: str, written: str) -> float:
    """Reads the guidance scale in the text of a plan or of a sampler.

    Raises:
        InputError: it is no finite number.
    """
    with suppress(ValueError):
        if isfinite(scale := float(written)):
            return scale
    raise InputError(f"{where} has guidance={written}; give one finite scale, such as guidance=1.7")
