"""The classes of images and those of a reference, in pairs, for the metric 'per-class'."""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.evaluation.reference import Reference

_LEAST = 4  # images of a class: two groups with a covariance each, for the error of its distance


def check_labels(labels: Tensor | None) -> Tensor:
    """Returns the class of each image; raises InputError where they have none, for 'per-class'."""
    if labels is None:
        raise InputError("metric 'per-class' needs classes of the images, and they have none; leave it out")
    return labels


def pair_classes(labels: Tensor | None, classes: Sequence[str], reference: Reference) -> dict[str, tuple[int, int]]:
    """Pairs the classes of images with those of the reference, for 'per-class': by name where both have names.

    Args:
        labels: class of each image, int64 [N]; None: they have none.
        classes: their names; () where none are known.
        reference: with classes, as `check_metrics` has checked.

    Returns:
        By the name of the class, or by its number where that pairs them, its number here and in the reference.

    Raises:
        InputError: the images have no classes, none of the reference's, one of a name that the reference does not have,
            or too few images of one.
    """
    assert reference.labels is not None
    counts = Counter(check_labels(labels).tolist())
    there = sorted({*reference.labels.tolist()})
    if _both_named(classes, reference.classes):
        number_of = {reference.classes[number]: number for number in there}
        pairs = {classes[label]: (label, number_of.get(classes[label], -1)) for label in sorted(counts)}
        strange = next((name for name, (_, number) in pairs.items() if number < 0), None)
        if strange is not None:
            raise InputError(
                f"metric 'per-class' pairs classes by name, and the reference has no images of class "
                f"'{shorten(strange)}', but of {shorten(', '.join(number_of), 200)}; give classes the same names on "
                "both sides, or leave it out"
            )
    else:
        pairs = {str(label): (label, label) for label in there if label in counts}
    if not pairs:
        raise InputError(
            f"metric 'per-class' needs classes that the reference has, and of those of the images, {min(counts)} to "
            f"{max(counts)}, it has none"
        )
    for name, (label, _) in pairs.items():
        if counts[label] < _LEAST:
            raise InputError(
                f"metric 'per-class' needs at least {_LEAST} images of each class, and class {shorten(name)} has "
                f"{counts[label]}; give more images"
            )
    return pairs


def pairing_note(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """Says that classes of these names are paired by number, for one side has none; None where it is not so."""
    if _are_numbers(ours) == _are_numbers(theirs) or _both_named(ours, theirs):
        return None
    unnamed = "the images have" if _are_numbers(ours) else "the reference has"
    return f"classes are paired by number, for {unnamed} no names of them; make sure that the numbers mean the same"


def _both_named(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Tells whether names say which classes are the same; 0, 1, ... are just numbers to those that have words."""
    if _are_numbers(ours) != _are_numbers(theirs):
        return bool(ours and theirs) and all(name.isdecimal() for name in (*ours, *theirs))
    return bool(ours and theirs)


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(name == str(number) for number, name in enumerate(classes))
