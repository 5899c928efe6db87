"""Labels of an image set: from EDM's dataset.json, or from the folders of the classes."""

import json
from collections.abc import Sequence

import numpy as np

from restart_sampling.base.errors import InputError, shorten


def root(names: Sequence[str]) -> str:
    """Finds the innermost folder of all the sorted names: "train/" of train/cat/1.png and train/dog/1.png."""
    # What the first and the last share, all in between share.
    first, last = names[0], names[-1]
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, shared) + 1]


def folder_labels(names: Sequence[str]) -> np.ndarray | None:
    """Numbers the folders within the root, sorted: classes 0, 1, ...; None where there is only one.

    Files beside those folders are a class too, whose name is empty, as in EDM.

    Args:
        names: sorted.

    Returns:
        int64 [N], or None.
    """
    start = len(root(names))
    folders = [name[start:].partition("/")[0] if "/" in name[start:] else "" for name in names]
    numbers = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    return np.array([numbers[folder] for folder in folders], np.int64) if len(numbers) > 1 else None


def listed_labels(text: bytes, names: Sequence[str], folder: str, where: str) -> np.ndarray | None:
    """Reads the classes that a dataset.json states as {"labels": [["00000/img00000000.png", 6], ...]}, or as null.

    Args:
        text: the file.
        names: of the images.
        folder: where the file is; the names in it are relative to that.
        where: the file's name for messages.

    Returns:
        int64 [N]; None where it states none, or leaves one image out (EDM's rule).

    Raises:
        InputError: it is no such file, or a label is no class number.
    """
    try:
        stated = json.loads(text)["labels"]
        labels = {folder + name: label for name, label in stated} if stated is not None else {}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f'{where} is not of the form {{"labels": [[name, class], ...]}}; mend or remove it') from None
    for name, label in labels.items():
        if type(label) is not int or not 0 <= label < 2**31:
            raise InputError(f"{where} labels {shorten(name)} with {shorten(repr(label))}, and a class is 0, 1, ...")
    if any(name not in labels for name in names):
        return None
    return np.array([labels[name] for name in names], np.int64)
