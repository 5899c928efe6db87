"""What of the classes of an image set is perhaps not what was meant."""

import re
from collections import Counter
from collections.abc import Sequence

from restart_sampling.base.errors import shorten
from restart_sampling.images.labels import root

SPLITS = {
    *("train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing"),
    *("holdout", "unlabeled", "unlabelled"),
}
"""Names of the parts of a data set."""


def class_notes(classes: Sequence[str], names: Sequence[str] = ()) -> list[str]:
    """Says what of the classes is perhaps not what was meant.

    Args:
        classes: their names, in the order of their numbers.
        names: of the images, sorted, where the classes are folders.
    """
    notes = []
    if moved := _out_of_order(classes):
        # Zeros make the text's order that of the numbers, which helps unless these begin with 1, or some are missing.
        numbers = sorted(int(name) for name in classes if name.isdecimal())
        advice = "write numbers with zeros before them, or " if numbers == [*range(len(numbers))] else ""
        notes.append(
            f"folder {moved} is class {classes.index(moved)}: classes are numbered in the order of the names as text, "
            f"as in EDM; {advice}state the classes in a dataset.json"
        )
    if "" in classes and len(classes) > 1:
        notes.append(
            f"images beside the folders are class {classes.index('')}; move them to a folder, or take them out"
        )
    splits = [name for name in classes if _is_split(name)] or _alike(classes, names)
    if splits:
        shown = shorten(", ".join(splits), 200)
        looks = "looks like a part" if len(splits) == 1 else "look like parts"
        notes.append(f"the classes have {shown}, which {looks} of a data set; give one of its parts")
    return notes


def _out_of_order(classes: Sequence[str]) -> str | None:
    """Finds a class whose number is not that of its name, or that comes before one of a smaller number (class10)."""
    last: dict[str, tuple[int, str]] = {}
    for name in classes:
        if match := re.fullmatch(r"(\D*)(\d+)", name):
            before, other = last.get(match[1], (0, ""))
            if int(match[2]) < before:
                return other
            last[match[1]] = int(match[2]), name
    return next((name for number, name in enumerate(classes) if name.isdecimal() and int(name) != number), None)


def _is_split(name: str) -> bool:
    return re.sub(r"[-_ ]?(set)?[-_ ]?\d*$", "", name.lower(), count=1) in SPLITS


def _alike(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Lists the classes that have the same folders, several, as train/cat, train/dog and other/cat, other/dog have."""
    start = len(root(names)) if names else 0
    within: dict[str, set[str]] = {name: set() for name in classes}
    for name in names:
        folder, _, rest = name[start:].partition("/")
        if folder in within and "/" in rest:
            within[folder].add(rest.partition("/")[0])
    shared = Counter(frozenset(folders) for folders in within.values() if len(folders) > 1)
    return [name for name, folders in within.items() if shared[frozenset(folders)] > 1]
