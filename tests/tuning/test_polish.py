"""The polish: the numbers of good plans are improved, and nothing else changes."""

import json
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import exp, inf, log
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import restart_sampling as rs
from in_thread import InThread
from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning import stages
from restart_sampling.tuning.bench import Bench, read_measured
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.numbers import FACTOR, KNOTS, NOISE, SPACING, Numbers, PlanNumbers
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.of_samples import OfSamples
from restart_sampling.tuning.polish import POPULATION, polish
from restart_sampling.tuning.score import Score
from restart_sampling.tuning.search import begun, best_plans, open_study
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.space import Space

BETAS = torch.linspace(1e-4, 0.02, 1000)
NETS = {
    "any level": rs.from_edm(lambda x, sigma: x, sigma_min=0.002, sigma_max=80),
    "a flow": rs.from_flow(lambda x, t: x),
    "timesteps": rs.from_eps(lambda x, t: x, torch.cumprod(1 - BETAS, 0)),
}
PLANS = (
    "12 solver=dpmpp_2m",
    "9 [3,1,0.3,0.8] solver=dpmpp_2m s_noise=1.01",
    "8 [2,1,0.5,0.9] [3,1,0.05,0.7] solver=euler rho=3",
    "12 churn=2 s_min=0.2 s_max=0.6 solver=euler",
    "10 solver=sa grid=exponential",
    "6 [2,1,0.3,1] solver=euler",  # up to where a flow has no data left
)


CPU = torch.device("cpu")


def one():
    return Ranks(0, 1, CPU)


class Given:
    """An objective that is a function of the plan."""

    about = features = {}  # noqa: RUF012

    def __init__(self, value, nfe, recall=lambda plan: 1.0, read=Plan.parse_found):
        self.value, self.nfes, self.recall, self.read = value, nfe, recall, read

    def nfe(self, plan):
        return self.nfes

    def measure(self, key, ranks, keep=None):
        plan = self.read(key.plan)
        metrics = {"recall": self.recall(plan), "recall_error": 0.01}
        return {"given": Score((self.value(plan),), (), metrics=metrics)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("text", PLANS)
def test_evaluations_solver_repeats_and_the_order_of_levels_stay(name, text):
    net, plan = NETS[name], Plan.parse(text)
    path = net_path(net, plan)
    space = Space(net, path.nfe(*plan.solvers))
    numbers = space.numbers(text)
    assert Plan.parse(numbers.moved([0.0] * numbers.count)) == plan
    drawn, made = np.random.default_rng(0), 0
    for _ in range(20):
        try:
            moved = Plan.parse(numbers.moved(drawn.normal(size=numbers.count).tolist()))
        except InputError:
            continue
        made += 1
        assert (moved.solver, moved.steps) == (plan.solver, plan.steps)
        assert [(each.points, each.repeats) for each in moved.intervals] == [
            (each.points, each.repeats) for each in plan.intervals
        ]
        path = net_path(net, moved)
        path.check_levels(net.process)  # does not raise
        assert path.nfe(*moved.solvers) == space.nfe
        assert all(high > low for high, low in pairwise(moved.own_levels))
        levels = plan.levels(net.sigma_min, net.sigma_max)
        for old, new in zip(plan.intervals, moved.intervals, strict=True):
            assert moved.own_levels.index(new.t_min) == levels.index(old.snap(levels))
    assert made >= 10


def test_what_does_something_moves():
    space = Space(NETS["any level"], 12, guidance=2.0)

    def settings(text):
        numbers = space.numbers(text)
        moved = Plan.parse_found(numbers.moved([0.7] * numbers.count))
        plan = Plan.parse_found(text)
        names = ("s_noise", "churn", "gamma", "s_min", "s_max", "rho", "guidance")
        return numbers.count, [name for name in names if getattr(plan, name) != getattr(moved, name)]

    assert settings("12 solver=deis") == (KNOTS, [])
    assert settings("6 solver=deis") == (6, [])
    assert settings("12 solver=ddpm guidance=2") == (KNOTS + 2, ["s_noise", "guidance"])
    assert settings("12 churn=3 s_min=0.1 s_max=5 solver=euler") == (KNOTS + 4, ["s_noise", "churn", "s_min", "s_max"])
    assert settings("6 [3,1,0.3,1] solver=euler") == (6 + 1 + 2, ["s_noise", "rho"])
    # Without churn its window does nothing, nor does a window that is open.
    assert settings("6 churn=0.5 s_min=0.1 solver=euler") == (6 + 3, ["s_noise", "churn", "s_min"])
    assert settings("6 churn=0.5 s_max=5 solver=euler") == (6 + 3, ["s_noise", "churn", "s_max"])
    assert settings("6 [2,1,0.3,1] s_min=0.1 s_max=5 gamma=0.5 solver=euler") == (6 + 1 + 2, ["s_noise", "gamma"])
    numbers = space.numbers("12 solver=deis guidance=2")
    for move, scale in ((9.0, 3.0), (-9.0, 1.5)):  # within the range that is searched
        assert Plan.parse_found(numbers.moved([0.1] * KNOTS + [move])).guidance == scale


@pytest.mark.parametrize("name", ["any level", "a flow"])
def test_a_move_is_in_proportion_to_what_it_changes(name):
    net = NETS[name]
    ratio, first = net.process.ratio, name == "a flow"  # whose first level stays, where no data is left

    def moved(text, place, move=1.0):
        plan = Plan.parse(text)
        numbers = PlanNumbers(net, plan, (0.002, 0.99 if first else 80.0), (1.0, 9.0))
        moves = [0.0] * numbers.count
        moves[place] = move
        return plan, numbers.moved(moves)

    def steps(text, place, move=1.0):
        """How far levels went in the log of their ratios, against the gap to the next."""
        plans = moved(text, place, move)
        old, new = ([log(ratio(level)) for level in plan.levels(0.002, 80)[first:-1]] for plan in plans)
        return [(b - a) / abs(gap) for a, b, gap in zip(old, new, np.gradient(old), strict=True)]

    levels = "1/0.8/0.6/0.4/0.2/0.1/0" if first else "80/20/5/1/0.2/0.05/0"
    count = 6 - first
    for place in range(1, count):
        wanted = [SPACING * (each == place) for each in range(count)]
        assert steps(f"6 solver=euler grid={levels}", place) == pytest.approx(wanted, abs=0.003)
    if not first:
        assert steps("2 solver=euler grid=80/5/0", 1) == pytest.approx([0, SPACING], abs=0.003)
        # A level between two that move goes half of the way of the one that did.
        assert steps("15 solver=euler grid=exponential", 3)[4:9] == pytest.approx([0, 0.1, 0.2, 0.1, 0], abs=0.003)
    # A level that overtakes the next one takes its place, and none leaves the range of the net.
    _, far = moved(f"6 solver=euler grid={levels}", 3, 9.0)
    assert all(high > low for high, low in pairwise(far.own_levels))
    assert 0.002 <= moved(f"6 solver=euler grid={levels}", 5 - first, -99.0)[1].own_levels[-2] < 0.0021

    def width(plan):
        (interval,) = plan.intervals
        return log(ratio(interval.t_max) / ratio(interval.t_min))

    restart = f"6 [3,1,0.2,0.5] solver=euler grid={levels} rho=5"
    for place, change in ((3, 0.0), (4, 0.0), (count, FACTOR)):
        old, new = moved(restart, place)
        assert width(new) == pytest.approx(width(old) + change, abs=0.002)
    old, new = moved(restart, count, 99.0)
    assert new.intervals[0].t_max == new.own_levels[0]
    churn = f"6 solver=euler grid={levels} churn=0.5 s_min=0.1 s_max=0.7 s_noise=1.003"
    for text, names in ((restart, ["s_noise", "rho"]), (churn, ["s_noise", "churn", "s_min", "s_max"])):
        for place, each in enumerate(names, -len(names)):
            for move in (1.0, -2.0):
                old, new = (getattr(plan, each) for plan in moved(text, place, move))
                if each == "s_noise":
                    assert new == pytest.approx(old + NOISE * move, abs=6e-4)
                elif each in ("s_min", "s_max"):
                    assert ratio(new) == pytest.approx(ratio(old) * exp(FACTOR * move), rel=1e-3)
                else:
                    assert new == pytest.approx(old * exp(FACTOR * move), rel=1e-3)
                assert new == float(f"{new:.4g}")
    assert moved(restart, -2, -1e4)[1].s_noise == 0  # there is no less
    numbers = PlanNumbers(net, replace(Plan.parse(f"6 solver=euler grid={levels}"), guidance=3.0), (0.002, 80), (1, 9))
    guidance = numbers.moved([0.0] * count + [1.0]).guidance
    assert guidance == pytest.approx(1 + 2 * exp(FACTOR), rel=1e-3)
    assert guidance == float(f"{guidance:.4g}")


def test_numbers_that_were_spoilt_on_purpose_are_found_again(tmp_path):
    good = Plan.parse("6 [3,1,0.9,3] solver=dpmpp_2m grid=70/25/9/3/0.9/0.05/0 s_noise=1.003 rho=7")

    def off(plan):
        pairs = zip(plan.levels(0.002, 80)[:-1], good.own_levels[:-1], strict=True)
        width = [np.log(each.intervals[0].t_max / each.intervals[0].t_min) for each in (plan, good)]
        return float(sum(np.log(one / other) ** 2 for one, other in pairs) + (width[0] - width[1]) ** 2)

    spoilt, other = "6 [3,1,0.5,2] solver=dpmpp_2m", "8 solver=dpmpp_2m"
    bench = Bench(Given(lambda plan: off(plan) if plan.intervals else 9.0, 8), one(), tmp_path / "measured.jsonl")
    space = Space(NETS["any level"], 8)
    best, *_ = polish(space, bench, [spoilt, other], range(20), generations=20, limits=Limits())
    assert off(Plan.parse(best)) < 0.2 * off(Plan.parse(spoilt))
    stages = {each.stage for each in bench.found.values()}
    assert stages == {"polish"}
    assert len(bench.found) <= 20 * POPULATION + 4
    # A plan whose recall falls beyond its error comes after all others, and is never chosen.
    least = 0.7 * off(Plan.parse(spoilt))
    own = Given(off, 8, lambda plan: 1.0 if off(plan) > least else 0.5)
    bench = Bench(own, one(), tmp_path / "other.jsonl")
    limits = Limits({range(20): bench.each("usual", [spoilt], range(20))[0]})
    low = polish(space, bench, [spoilt], range(20), generations=6, limits=limits)
    assert low
    assert all(off(Plan.parse(text)) > least for text in low)


@dataclass
class Shifted:
    """Samplers whose texts are their kind and how far their two numbers were moved; some places tell them apart."""

    places: int

    def numbers(self, text):
        kind, *own = text.split()

        def moved(moves):
            if kind == "firm":
                raise InputError("it has no other numbers")
            return " ".join([kind, *(repr(float(old) + move) for old, move in zip(own, moves, strict=True))])

        return None if kind == "numberless" else Numbers(kind, len(own), moved)

    def way(self, text):
        kind, *own = text.split()
        return kind, *(round(float(each), self.places) for each in own)


def test_after_each_third_of_the_generations_the_worst_sampler_falls(tmp_path):
    values = {"unlimited": 0.0, "worst": 3.0, "best": 1.0, "fourth": 0.5}
    found = ["numberless", *(f"{kind} 0 0" for kind in values), "best 1 1"]
    found.insert(3, "worst 1 1")  # of a kind that is there already

    def generations_of(each, seeds=range(20)):
        own = Given(values.get, 6, lambda kind: 0.5 if kind == "unlimited" else 1.0, lambda text: text.split()[0])
        bench = Bench(own, one(), tmp_path / f"{each}.jsonl")
        limits = Limits({seeds: bench.each("usual", ["worst 0 0"], seeds)[0]})
        assert (
            polish(Shifted(9), bench, found, seeds, generations=each, limits=limits) == []
        )  # what is as good is no better
        counts = Counter(key.plan.split()[0] for key in bench.found)
        # Beside the start, which is measured of three kinds, and the middle of each that was polished.
        return {kind: (count - 2) / POPULATION for kind, count in counts.items() if count > 1}

    assert generations_of(9) == {"unlimited": 1, "worst": 2, "best": 6}
    assert generations_of(4) == {"unlimited": 1, "worst": 3}  # at least two for each
    assert generations_of(3) == {"unlimited": 3}
    assert generations_of(1) == {"unlimited": 1}


def test_the_best_and_the_middle_are_returned_and_what_does_the_same_is_measured_once(tmp_path):
    def value(text):
        kind, *own = text.split()
        return sum((float(each) - 4) ** 2 for each in own) - 40 * (kind == "later")

    def polished(*kinds, start=0, seeds=range(20)):
        own = Given(value, 6, lambda text: 0.5 if text.startswith("beyond") else 1.0, str)
        bench, space = Bench(own, one(), tmp_path / f"{kinds[0]}-{start}.jsonl"), Shifted(0)
        limits = Limits({seeds: bench.each("usual", ["usual"], seeds)[0]})
        found = [f"{kind} 0 0" for kind in kinds]
        best = polish(space, bench, found, seeds, generations=6, start=start, limits=limits)
        _, *measured = (key.plan for key in bench.found)
        assert len({space.way(text) for text in measured}) == len(measured)
        return best, measured

    best, measured = polished("kind")
    *_, middle = measured
    assert len(measured) < 6 * POPULATION
    assert best == [min(measured, key=value), middle]
    assert value(best[0]) < value(middle) < value(measured[0])
    assert polished("firm") == ([], ["firm 0 0"])
    better, drawn = polished("beyond")
    assert min(map(value, drawn)) < value(drawn[0])
    assert better == []  # all of them are still beyond the limits
    best, measured = polished("former", "later")
    assert best == sorted(best, key=value)
    assert [kind for kind, _ in groupby(text.split()[0] for text in best)] == ["later", "former"]
    # Each sampler of each start has moves of its own.
    drawn = [*measured, *polished("former", "later", start=1)[1]]
    moves = Counter(text.partition(" ")[2] for text in drawn)
    assert {each for each, count in moves.items() if count > 1} == {"0 0"}


def distance(samples):
    return samples.abs().mean().item()


def test_a_killed_polish_goes_on_to_the_same_plans_and_two_processes_to_those_of_one(tmp_path):
    net = rs.GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 0.3)
    starts = ["5 [2,1,0.9,3] solver=euler", "6 solver=deis"]

    def polished(folder, ranks=None, until=lambda: False):
        own = OfSamples(net, (2,), distance)
        bench = Bench(own, ranks or one(), tmp_path / folder)
        return polish(Space(net, 6), bench, starts, range(20), generations=7, limits=Limits(), until=until)

    whole = polished("whole")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    for kept in (1, 2 + POPULATION // 2, len(lines) - 3):
        (tmp_path / "killed").write_text("".join(lines[:kept]) + '{"plan": "5')
        assert polished("killed") == whole
        keys = [key for key, _ in read_measured(tmp_path / "killed")]
        assert sorted(keys) == sorted(key for key, _ in read_measured(tmp_path / "whole"))  # none twice
    barrier, box = Barrier(2), {}
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda rank: polished("two", InThread(rank, 2, CPU, barrier=barrier, box=box)), range(2))
    assert list(both) == [whole, whole]
    assert [key for key, _ in read_measured(tmp_path / "two")] == [key for key, _ in read_measured(tmp_path / "whole")]
    assert whole
    assert polished("whole", until=lambda: True) == whole  # what there was time for is gone through again
    assert polished("ended", until=lambda: True) == []
    assert len((tmp_path / "ended").read_text().splitlines()) == len(starts)


def test_a_run_polishes_between_search_and_race(tmp_path):
    net = rs.GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 0.3)
    asked = {"objective": distance, "shape": (2,), "minutes": inf, "images": 20, "race": 80, "confirm": 20}
    said = []
    rs.tune(net, 5, out=tmp_path / "run", trials=30, tell=said.append, **asked)
    found = list(read_measured(tmp_path / "run/measured.jsonl"))
    stages = list(dict.fromkeys(each.stage for _, each in found))
    assert [stage for stage in stages if stage in ("search", "polish", "race")] == ["search", "polish", "race"]
    polished = {key.plan: each for key, each in found if each.stage == "polish"}
    assert {key.seeds for key, each in found if each.stage == "polish"} == {range(60)}
    assert all(5 - each.nfe in (0, 1) for each in polished.values())
    assert any("polish: of the best plans, 1 generation of" in text for text in said), said
    raced = {key.plan for key, each in found if each.stage == "race"}
    assert any(Plan.parse(plan).own_levels and plan in polished for plan in raced)
    evidence = json.loads((tmp_path / "run/plan-5.json").read_text())["evidence"]
    assert (evidence["cost"]["trials"], evidence["cost"]["polished"]) == (30, len(polished))


def test_the_polish_begins_with_the_best_plans_and_its_own_are_the_first_that_race(tmp_path, monkeypatch):
    seen = {}

    def polished(space, bench, found, seeds, **asked):
        seen["polish"] = (list(found), seeds, asked)
        return [next(text for text in found if text in space.usual()), "5 solver=deis grid=70/20/7/2/0.05/0"]

    def raced(bench, plans, seeds):
        seen.setdefault("race", plans)
        return list(plans)

    monkeypatch.setattr(stages, "polish", polished)
    monkeypatch.setattr(stages, "race", raced)
    monkeypatch.setattr(stages, "judge", lambda *scores: SimpleNamespace(text=""))
    # The worst samplers by text are the best ones, so that no list is in order by itself.
    value = lambda plan: 1 / (1 + zlib.crc32(str(plan).encode()))  # noqa: E731
    bench = Bench(Given(value, 6), one(), tmp_path / "measured.jsonl")
    space, sizes = Space(NETS["any level"], 6), {"images": 20, "race": 80, "confirm": 20}
    study = open_study(tmp_path / "trials.journal", "NFE 6")

    def run(**asked):
        settings = Settings(**{"minutes": inf, **sizes, **asked})
        made = stages.Stages(space, bench, study, settings, tmp_path, lambda text: None)
        made.run()
        return made

    made = run(trials=40, start=3)
    assert seen["polish"][2]["start"] == 3
    found, seeds, asked = seen["polish"]
    first, second, *_ = made.settings.seeds
    assert seeds == range(first.start, second.stop)
    known = {key.plan: each.value for key, each in bench.found.items() if key.seeds == second}
    assert found == sorted(found, key=known.__getitem__)
    usual, *others = made._usual(first, second)
    assert {usual, *others} <= {*found}
    assert known[usual] == min(map(known.__getitem__, [usual, *others]))
    finished = [trial.user_attrs["plan"] for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    assert best_plans(study, 3) == sorted({*finished}, key=known.__getitem__)[:3] != finished[:3]
    assert {plan for plan in found if plan not in space.usual()}
    # The limits are those of the best usual plan, each by its own seeds.
    own = {key.seeds: each for key, each in bench.found.items() if key.plan == usual and key.groups == 0}
    assert made.news.limits.known == {part: own[part] for part in (first, second)}
    assert asked["limits"].known == {seeds: own[seeds]}
    # Two of five parts of the search are the polish's: 40 trials of 20 images, of which a third has 40 more.
    assert asked["generations"] == int(2 / 3 * 40 * 20 * (1 + 2 / 3) / (POPULATION * 60)) == 1
    assert not asked["until"]()
    assert seen["race"][0] == "5 solver=deis grid=70/20/7/2/0.05/0"
    assert usual not in seen["race"]  # it has a race of its own
    # A start of other trials or minutes has a polish of its own; one of the same ends its search where the first did.
    run(trials=100)
    assert seen["polish"][2]["generations"] == 4
    assert study.user_attrs["searched in inf minutes, 100 trials"] == begun(study) == 100
    study.set_user_attr("searched in 9 minutes, None trials", 100)
    study.set_user_attr("polish in 9 minutes, None trials", 12345)
    made = run(minutes=9)
    assert seen["polish"][2]["generations"] == 12345
    assert begun(study) == 100
    assert not seen["polish"][2]["until"]()
    assert not made._is_over(0)
    made.clock.spent = 540 - made._later(made.sizes) - made._polished() / 2  # the search leaves time for the polish
    assert made._is_over(0)
    assert not seen["polish"][2]["until"]()
    made.clock.spent = 540
    assert seen["polish"][2]["until"]()
    # What is beyond the limits is not told as the best so far.
    for recall, told in ((0.5, False), (1.0, True)):
        score = Score((0.0,), (), {"recall": recall, "recall_error": 0.01})
        made.news.take(Key("6", second), replace(own[second], scores={"given": score}))
        assert (made.news.best[1] == "6") == told


def test_the_polish_has_its_part_of_the_time_or_of_the_trials(tmp_path, monkeypatch):
    """Here of a process that has no study, as all but the first."""
    monkeypatch.setattr(stages, "polish", lambda *found, **asked: ["a polished plan"])
    bench = Bench(Given(lambda plan: 1.0, 6), one(), tmp_path / "measured.jsonl")
    bench.each("usual", ["6"], range(20))
    space, seeds = Space(NETS["any level"], 6), range(60)

    def made(usual=("6",), spent=0.0, **asked):
        settings = Settings(**{"minutes": 9, "images": 20, "race": 80, "confirm": 20, **asked})
        own = stages.Stages(space, bench, None, settings, tmp_path, lambda text: None)
        own.clock.spent, own._extra = spent, 60.0
        own._generations = own._polish_length(usual, seeds)
        return own

    def part(own):
        return own._polished() / (own.clock.left - own._later(own.sizes))

    assert part(made()) == pytest.approx(stages.POLISH, rel=0.01)  # of what race and confirmation leave
    assert part(made(trials=10**9)) == pytest.approx(stages.POLISH, rel=0.01)
    assert [made(trials=100, minutes=each)._generations for each in (9, inf)] == [4, 4]
    own = made()
    own.study = SimpleNamespace(user_attrs={})
    for seconds, over in ((90, True), (270, False)):  # race and confirmation need 180
        own.clock.spent = 540 - own._polished() - seconds
        assert own._is_over(0) == over
    over = made(spent=539.0)
    assert over._generations == 0
    for own, polished in ((made(), ["a polished plan"]), (over, [])):
        assert own._polish(["6"], "6", range(20), seeds) == polished
    space = SimpleNamespace(nfe=6, numbers={"6": True, "6 solver=euler": None}.get)
    assert made(["6 solver=euler"])._generations == 0  # no time is kept for what is not polished
    assert made(["6", "6 solver=euler"])._generations > 0


def test_a_flow_with_one_level_between_its_first_and_0():
    assert Space(NETS["a flow"], 6).numbers("6 churn=0.5 s_max=1 solver=euler").count == 5 + 2  # s_noise and churn
    space = Space(NETS["a flow"], 4)
    assert space.numbers("2") is None
    text = "2 [2,1,0.3,0.8] solver=euler sigma_min=0.3"
    numbers = space.numbers(text)
    assert numbers.count == 3  # the level, the width and s_noise
    moved = Plan.parse(numbers.moved([-1, 0, 0]))
    first, level, end = moved.own_levels
    assert (first, end) == (1, 0)
    # As if the next were less by a factor of e.
    assert log(level / (1 - level) / (0.3 / 0.7)) == pytest.approx(-SPACING, rel=0.01)
    assert moved.intervals[0].t_min == level
