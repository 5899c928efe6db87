"""JSON of users' files, in which no key may be there twice."""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

from restart_sampling.base.errors import shorten
from restart_sampling.base.numbers import has_truth, parts_of

_DEPTH = 100  # far beyond any format; Python itself reads more or less, by its version and its stack


def parse_json(text: str | bytes) -> Any:
    """Parses a text; bytes are in UTF-8, with or without its mark, or in UTF-16.

    Raises:
        ValueError: it is no JSON, it is nested too deeply, or an object has a key twice, of which Python would take the
            last.
    """
    with suppress(RecursionError):
        content = json.loads(text, object_pairs_hook=_once)
        parts = [content]
        for _ in range(_DEPTH):
            parts = [part for each in parts for part in parts_of(each)]
            if not parts:
                return content
    raise ValueError("it is nested too deeply")


def parse_numbers(text: str | bytes) -> Any:
    """Does the same for a file whose values are numbers.

    Raises:
        ValueError: as `parse_json`, or a value is true or false, which Python would take for 1 or 0.
    """
    content = parse_json(text)
    if has_truth(content):
        raise ValueError("it has true or false, where numbers have to be")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key '{shorten(key)}' twice")
    return content
