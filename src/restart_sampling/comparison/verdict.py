"""`verdict`: what the rows of a sweep say, in sentences."""

from collections.abc import Mapping, Sequence

from restart_sampling.base.errors import shorten
from restart_sampling.base.numbers import counted, with_error
from restart_sampling.comparison.comparable import row_name
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import Result
from restart_sampling.sampling.plan import Plan

APART = 2.0
"""Standard errors of a difference that tell two rows apart."""

_NAMED = 3  # of those that are alike


def verdict(results: Mapping[str, Result]) -> list[str]:
    """Says which row has the lowest distance, which cannot be told from it, and how restarts compare at their cost.

    Args:
        results: of one sweep, from `read_sweep`.

    Raises:
        InputError: the rows cannot be paired.
    """
    rows = list(results.values())
    best = min(rows, key=_distance)
    value, error = best["frechet_distance"], best["frechet_distance_error"]
    lines = [f"The lowest distance is that of {_named(best)}: {with_error(value, error, between=' ± ')}."]
    if len(rows) == 1:
        return lines
    alike = [row for row in rows if row is not best and not _apart(row, best)]
    if alike:
        cheapest = min([best, *alike], key=lambda row: (row["nfe"], _distance(row)))
        least = "" if cheapest is best else f"; the one of the fewest evaluations is {_named(cheapest)}"
        lines.append(f"Within {APART:g} standard errors of it {_are(alike)}{least}.")
    else:
        lines.append(f"All others are higher by more than {APART:g} standard errors of the difference.")
    restarts = [row for row in rows if _restarts(row)]
    plain = [row for row in rows if not _restarts(row)]
    if restarts and plain:
        ours = min(restarts, key=_distance)
        lines.append(_against(ours, [row for row in plain if row["nfe"] <= ours["nfe"]]))
    lines.append(
        "Differences are paired by seed; the best of several is picked on the seeds that it is measured by, so measure "
        "what you choose once more on others."
    )
    return lines


def _against(ours: Result, cheaper: Sequence[Result]) -> str:
    if not cheaper:
        return f"No row without restarts costs as little as the best with them, {_named(ours)}."
    rival = min(cheaper, key=_distance)
    difference, error = paired_difference(dict(ours), dict(rival))
    if _apart(ours, rival):
        judged = f"{'lower' if difference < 0 else 'higher'} by {with_error(abs(difference), error, between=' ± ')}"
    else:
        shown = with_error(difference, error, sign="+", between=" ± ")
        judged = f"{shown} from it, which cannot be told from none"
    return (
        f"With restarts the best is {_named(ours)}; against the best without, of as many evaluations or fewer, "
        f"{_named(rival)}, its distance is {judged}."
    )


def _apart(one: Result, other: Result) -> bool:
    difference, error = paired_difference(dict(one), dict(other))
    return abs(difference) > APART * error


def _restarts(row: Result) -> bool:
    return bool(Plan.parse(row["plan"]).intervals)


def _distance(row: Result) -> float:
    distance: float = row["frechet_distance"]
    return distance


def _named(row: Result) -> str:
    return f"'{shorten(row_name(row))}' ({counted(row['nfe'], 'evaluation')})"


def _are(rows: Sequence[Result]) -> str:
    rows = sorted(rows, key=_distance)
    names = [_named(row) for row in rows[:_NAMED]]
    if len(rows) > _NAMED:
        names.append(f"{len(rows) - _NAMED} more")
    return f"{'is' if len(rows) == 1 else 'are'} {', '.join(names)}"
