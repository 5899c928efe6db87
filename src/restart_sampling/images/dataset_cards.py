"""Names of classes that a data set of the Hugging Face hub states beside its Parquet files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAX_CARD = 2**20  # bytes
_LEVELS = 3  # folders above a Parquet file that may have the card


def stated_names(shard: Path, label: str) -> tuple[str, ...]:
    """Reads the names of the classes of a column in the nearest README.md or dataset_infos.json above a Parquet file.

    Where they describe several configurations, those of all have to be the same, or that of the folder counts.

    Args:
        shard: the Parquet file.
        label: the column.

    Returns:
        The names of the classes 0, 1, ...; () where none are stated, or PyYAML is missing, which reads a README.md.
    """
    for folder in [*shard.parents][:_LEVELS]:
        named = {
            config: names
            for config, features in [*_of_card(folder / "README.md"), *_of_json(folder / "dataset_infos.json")]
            if (names := _names(features, label))
        }
        if named:
            own = [names for config, names in named.items() if config in shard.parts]
            found = {*(own or named.values())}
            return found.pop() if len(found) == 1 else ()
    return ()


def _of_card(path: Path) -> Iterator[tuple[object, object]]:
    """Yields configurations and their features from the metadata of a card."""
    try:
        import yaml
    except ImportError:
        return
    match = re.match(r"---\r?\n(.*?)\n---", _read(path), re.DOTALL)
    try:
        metadata = yaml.load(match[1], getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if match else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    infos = metadata.get("dataset_info") if isinstance(metadata, dict) else None
    for info in infos if isinstance(infos, list) else [infos]:
        if isinstance(info, dict):
            yield info.get("config_name"), info.get("features")


def _of_json(path: Path) -> Iterator[tuple[object, object]]:
    """Yields the same from the older file of metadata."""
    try:
        infos = json.loads(_read(path) or "{}")
    except (ValueError, RecursionError):
        return
    for config, info in infos.items() if isinstance(infos, dict) else ():
        if isinstance(info, dict):
            yield config, info.get("features")


def _read(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_CARD)


def _names(features: Any, label: str) -> tuple[str, ...]:
    """Reads the names of a column as either file writes its features."""
    try:
        if isinstance(features, dict):  # {"label": {"names": ["cat", ...]}}
            return as_names(features[label]["names"])
        column = next(each for each in features if each["name"] == label)  # name: label, dtype: class_label: names: ...
        names = column["dtype"]["class_label"]["names"]
        return as_names([names[str(number)] for number in range(len(names))] if isinstance(names, dict) else names)
    except (TypeError, KeyError, StopIteration):
        return ()


def as_names(names: object) -> tuple[str, ...]:
    """Takes a list of texts, () of anything else."""
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
