"""JSON of users' files, in which no key may be there twice."""

import json
from collections import Counter
from typing import Any

from restart_sampling.base.errors import shorten
from restart_sampling.base.numbers import has_truth


def parse_json(text: str | bytes) -> Any:
    """Parses a text; bytes are in UTF-8, with or without its mark, or in UTF-16.

    Raises:
        ValueError: it is no JSON, it is nested too deeply, or an object has a key twice, of which Python would take the
            last.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
