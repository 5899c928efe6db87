"""Rows of a results file as plot points; Pareto front; curves that vary one setting."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.numbers import format_number, is_number
from restart_sampling.comparison.comparable import row_family, row_name
from restart_sampling.evaluation.results_file import Result
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.process import KnownLevels

_LARGEST = 1e30  # beyond it matplotlib's ticks overflow, which no distance needs

Schedule = Sequence[tuple[int, float]]
"""(Evaluations so far, level) along a noise path."""


@dataclass(frozen=True)
class Point:
    """One row of a results file.

    Attributes:
        key: of the row.
        name: of the row.
        family: points of one family are one line.
        plan: the sampler.
        nfe: calls of the model.
        distance: Fréchet distance.
        error: its standard error.
        sigma_min: the lowest level of the model.
        sigma_max: the highest.
        detector: whose features the distance is of, as the user named it.
    """

    key: str
    name: str
    family: str
    plan: Plan
    nfe: int
    distance: float
    error: float
    sigma_min: float = 0.0
    sigma_max: float = inf
    detector: str = ""

    @property
    def schedule(self) -> Schedule:
        """The noise path, from the first level on."""
        return self.plan.path(self.sigma_min, self.sigma_max).schedule(*self.plan.solvers)

    def effect(self) -> Hashable:
        """Returns what the model draws by: equal for plans that draw the same samples; None: it makes no path."""
        with suppress(InputError):
            return self.plan.effect(KnownLevels(self.sigma_min, self.sigma_max))
        return None

    def snap(self, interval: RestartInterval) -> float:
        """Gives the level of the main grid where a restart really begins."""
        return interval.snap(self.plan.levels(self.sigma_min, self.sigma_max))


def points_of(results: Mapping[str, Result]) -> list[Point]:
    """Makes points of the lines of `read_sweep`.

    Raises:
        InputError: a value that is plotted is no number.
    """
    return [
        Point(
            key,
            shorten(row_name(result)),
            shorten(row_family(result)),
            Plan.parse(result["plan"]),
            count(result, "nfe"),
            number(result, "frechet_distance"),
            number(result, "frechet_distance_error", least=0),
            number(result, "sigma_min") if "sigma_min" in result else 0.0,
            inf if result.get("sigma_max") is None else number(result, "sigma_max"),
            str(result.get("detector_name", "")),
        )
        for key, result in results.items()
    ]


def number(result: Result, key: str, *, least: float = -_LARGEST) -> float:
    """Takes a number from a line of a results file.

    Raises:
        InputError: it is none, or smaller than can be (`least`), or larger than can be drawn.
    """
    value = result.get(key)
    if not is_number(value) or not least <= value <= _LARGEST:
        raise InputError(
            f"the results of row '{shorten(row_name(result))}' have {key} {shorten(repr(value))}, which is no "
            f"number from {least:g} to {_LARGEST:g}; correct the file, or evaluate the row again"
        )
    return value


def count(result: Result, key: str) -> int:
    """Takes a whole number from 1 on from a line of a results file.

    Raises:
        InputError: it is none.
    """
    value = number(result, key)
    if value < 1 or value != int(value):
        raise InputError(
            f"the results of row '{shorten(row_name(result))}' have {key} {value:g}, which is no whole number "
            f"from 1 on; correct the file, or evaluate the row again"
        )
    return int(value)


def families(points: Iterable[Point]) -> list[str]:
    """Lists the families, in the order in which they come."""
    return list(dict.fromkeys(point.family for point in points))


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Picks the points that no other beats: none has as few evaluations, or fewer, and a lower distance."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.nfe, point.distance)):
        if not front or point.distance < front[-1].distance:
            front.append(point)
    return front


def best_at_each(points: Iterable[Point]) -> list[Point]:
    """Picks of points with the same NFE the one of the lowest distance, in the order of NFE."""
    ordered = sorted(points, key=lambda point: (point.nfe, -point.distance))
    return list({point.nfe: point for point in ordered}.values())


@dataclass(frozen=True)
class Curve:
    """Points whose plans differ in one number.

    Attributes:
        label: the plan, with a letter for that number.
        family: of the points.
        points: (that number, point), in its order.
    """

    label: str
    family: str
    points: Sequence[tuple[float, Point]]


Reading = Callable[[Point, RestartInterval], tuple[str, float]]
"""Writes an interval with a letter for one of its numbers, and gives that number."""


def curves(points: Sequence[Point], read: Reading, *, zero: bool) -> list[Curve]:
    """Groups the points whose plans differ in one number of one interval.

    Args:
        points: of any plans.
        read: which number.
        zero: whether a plan without the interval belongs to the curve, with the number 0.
    """
    plain = {point.effect(): point for point in points}
    groups: dict[str, dict[float, Point]] = {}
    origins: dict[str, Point | None] = {}
    for point in points:
        for index, interval in enumerate(point.plan.intervals):
            text, value = read(point, interval)
            before, after = point.plan.intervals[:index], point.plan.intervals[index + 1 :]
            label = str(point.plan).replace(str(interval), text)  # no two intervals of a plan are equal
            groups.setdefault(label, {})[value] = point
            without = replace(point, plan=replace(point.plan, intervals=before + after))
            effect = without.effect()
            origins[label] = plain.get(effect) if zero and effect else None
    found = []
    for label, group in groups.items():
        if len(group) > 1:
            family, origin = next(iter(group.values())).family, origins[label]
            found.append(Curve(label, family, sorted({**({0.0: origin} if origin else {}), **group}.items())))
    return found


def by_repeats(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """Reads K, at the same interval."""
    t_min, t_max = format_number(interval.t_min), format_number(interval.t_max)
    return f"[{interval.points},K,{t_min},{t_max}]", float(interval.repeats)


def by_position(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """Reads t_min as it snaps, at the same written length."""
    length = round(interval.t_max - interval.t_min, 9)
    return f"[{interval.points},{interval.repeats},t_min,t_min+{length:g}]", point.snap(interval)


def by_length(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """Reads t_max - t_min with t_min as it snaps, at the same t_min."""
    t_min = point.snap(interval)
    return f"[{interval.points},{interval.repeats},{t_min:.3g},t_max]", interval.t_max - t_min
