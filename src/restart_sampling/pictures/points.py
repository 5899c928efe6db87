"""Points of a figure, from the results file alone: what lies on the Pareto front, and what differs in one setting."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from restart_sampling.comparison.results import row_family, row_name
from restart_sampling.comparison.rows import family_of
from restart_sampling.sampling.path import RestartInterval, format_number
from restart_sampling.sampling.plan import Plan


@dataclass(frozen=True)
class Point:
    """One figure of a results file.

    Attributes:
        key: of the figure.
        name: of the row.
        family: points of one family are one line.
        plan: the sampler.
        nfe: calls of the model.
        distance: Fréchet distance.
        error: its standard error.
        sigma_min: the lowest level of the model.
        sigma_max: the highest.
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

    @property
    def schedule(self) -> list[tuple[int, float]]:
        """(evaluations so far, level) along the noise path."""
        return self.plan.path(self.sigma_min, self.sigma_max).schedule(*self.plan.solvers)

    def snap(self, interval: RestartInterval) -> float:
        """The level of the main grid where a restart really begins."""
        return interval.snap(self.plan.levels(self.sigma_min, self.sigma_max))


def points_of(results: Mapping[str, Mapping[str, Any]]) -> list[Point]:
    """Points from the lines of `read_sweep`."""
    points = []
    for key, result in results.items():
        plan = Plan.parse(result["plan"])
        sigma_max = result.get("sigma_max")
        points.append(
            Point(
                key,
                row_name(result),
                row_family(result),
                plan,
                result["nfe"],
                result["frechet_distance"],
                result["frechet_distance_error"],
                result.get("sigma_min", 0.0),
                inf if sigma_max is None else sigma_max,
            )
        )
    return points


def families(points: Iterable[Point]) -> list[str]:
    """The families, in the order in which they come."""
    return list(dict.fromkeys(point.family for point in points))


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats: none has as few evaluations, or fewer, and a lower distance."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.nfe, point.distance)):
        if not front or point.distance < front[-1].distance:
            front.append(point)
    return front


def best_at_each(points: Iterable[Point]) -> list[Point]:
    """Of points with the same NFE the one of the lowest distance, in the order of NFE."""
    best: dict[int, Point] = {}
    for point in sorted(points, key=lambda point: (point.nfe, -point.distance)):
        best[point.nfe] = point
    return list(best.values())


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
    points: tuple[tuple[float, Point], ...]


Reading = Callable[[Point, RestartInterval], tuple[str, float]]
"""An interval with a letter for one of its numbers, and that number."""


def curves(points: Sequence[Point], read: Reading, *, zero: bool) -> list[Curve]:
    """Groups the points whose plans differ in one number of one interval.

    Args:
        points: of any plans.
        read: which number.
        zero: whether a plan without the interval belongs to the curve, with the number 0.
    """
    without = {_plain(point.plan): point for point in points}
    groups: dict[str, dict[float, Point]] = {}
    origins: dict[str, Plan] = {}
    for point in points:
        for index, interval in enumerate(point.plan.intervals):
            text, number = read(point, interval)
            others = point.plan.intervals[:index], point.plan.intervals[index + 1 :]
            label = str(replace(point.plan, intervals=(*others[0], _Label(text), *others[1])))  # type: ignore[arg-type]
            groups.setdefault(label, {})[number] = point
            origins[label] = replace(point.plan, intervals=others[0] + others[1])
    found = []
    for label, group in groups.items():
        if len(group) < 2:
            continue
        family = next(iter(group.values())).family
        origin = without.get(_plain(origins[label])) if zero else None
        numbers = {**({0.0: origin} if origin else {}), **group}
        found.append(Curve(label, family, tuple(sorted(numbers.items()))))
    return found


def by_repeats(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """K, at the same interval."""
    t_min, t_max = format_number(interval.t_min), format_number(interval.t_max)
    return f"[{interval.points},K,{t_min},{t_max}]", float(interval.repeats)


def by_position(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """t_min as it snaps, at the same written length."""
    length = round(interval.t_max - interval.t_min, 9)
    return f"[{interval.points},{interval.repeats},t_min,t_min+{length:g}]", point.snap(interval)


def by_length(point: Point, interval: RestartInterval) -> tuple[str, float]:
    """t_max - t_min with t_min as it snaps, at the same t_min."""
    t_min = point.snap(interval)
    return f"[{interval.points},{interval.repeats},{t_min:.3g},t_max]", interval.t_max - t_min


class _Label:
    """Stands for an interval where a plan is printed."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


_DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in fields(Plan)}


def _plain(plan: Plan) -> str:
    """The plan without settings that do nothing where there is no restart and no churn."""
    if not plan.intervals:
        idle = ["gamma", "restart_solver"]
        if not plan.churn:
            idle += ["s_min", "s_max"] + ["s_noise"] * family_of(plan).startswith("ODE")
        plan = replace(plan, **{name: _DEFAULTS[name] for name in idle})
    return str(plan)
