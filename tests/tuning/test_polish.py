"""The polish: the numbers of good plans are improved, and nothing else changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.sample import net_path
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.numbers import KNOTS
from restart_sampling.tuning.polish import POPULATION, polish
from restart_sampling.tuning.score import Score
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
)


def one():
    return Ranks(0, 1, torch.device("cpu"))


class Given:
    """An objective that is a function of the plan."""

    about = features = {}  # noqa: RUF012

    def __init__(self, value, nfe):
        self.value, self.nfes = value, nfe

    def nfe(self, plan):
        return self.nfes

    def measure(self, plan, seeds, ranks, **asked):
        return {"given": Score((self.value(Plan.parse_found(plan)),), ())}


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
        names = ("s_noise", "churn", "s_min", "s_max", "rho", "guidance")
        return numbers.count, [name for name in names if getattr(plan, name) != getattr(moved, name)]

    assert settings("12 solver=deis") == (KNOTS, [])
    assert settings("6 solver=deis") == (6, [])
    assert settings("12 solver=ddpm guidance=2") == (KNOTS + 2, ["s_noise", "guidance"])
    assert settings("12 churn=3 s_min=0.1 s_max=5 solver=euler") == (KNOTS + 4, ["s_noise", "churn", "s_min", "s_max"])
    assert settings("6 [3,1,0.3,1] solver=euler") == (6 + 1 + 2, ["s_noise", "rho"])
    numbers = space.numbers("12 solver=deis guidance=2")
    for move, scale in ((9.0, 3.0), (-9.0, 1.5)):  # within the range that is searched
        assert Plan.parse_found(numbers.moved([0.1] * KNOTS + [move])).guidance == scale


def test_numbers_that_were_spoilt_on_purpose_are_found_again(tmp_path):
    good = Plan.parse("6 [3,1,0.9,3] solver=dpmpp_2m grid=70/25/9/3/0.9/0.05/0 s_noise=1.003 rho=7")

    def off(plan):
        pairs = zip(plan.levels(0.002, 80)[:-1], good.own_levels[:-1], strict=True)
        width = [np.log(each.intervals[0].t_max / each.intervals[0].t_min) for each in (plan, good)]
        return float(sum(np.log(one / other) ** 2 for one, other in pairs) + (width[0] - width[1]) ** 2)

    spoilt, other = "6 [3,1,0.5,2] solver=dpmpp_2m", "8 solver=dpmpp_2m"
    bench = Bench(Given(lambda plan: off(plan) if plan.intervals else 9.0, 8), one(), tmp_path / "measured.jsonl")
    space = Space(NETS["any level"], 8)
    best, *_ = polish(space, bench, [spoilt, other], range(20), generations=20)
    assert off(Plan.parse(best)) < 0.2 * off(Plan.parse(spoilt))
    stages = {each.stage for each in bench.found.values()}
    assert stages == {"polish"}
    assert len(bench.found) <= 20 * POPULATION + 4
    # A plan that is refused is the worst of its population, and is never chosen.
    bench = Bench(Given(lambda plan: off(plan), 8), one(), tmp_path / "other.jsonl")
    low = polish(
        space,
        bench,
        [spoilt],
        range(20),
        generations=6,
        allowed=lambda result: result.value > 0.7 * off(Plan.parse(spoilt)),
    )
    assert low
    assert all(off(Plan.parse(text)) > 0.7 * off(Plan.parse(spoilt)) for text in low)
