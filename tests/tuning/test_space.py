"""The search space: plans of exactly the evaluations asked for, which parse, and fit the net."""

from collections import Counter
from math import exp, inf, log

import pytest
import torch

import restart_sampling as rs
from drawn_trial import Drawn
from restart_sampling.base.errors import InputError
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning.allowed import LEAST_NFE
from restart_sampling.tuning.given_trial import GIVEN, GivenTrial
from restart_sampling.tuning.space import OWN, Space
from restart_sampling.tuning.usual import usual_plans

NETS = {
    "any level": rs.from_edm(lambda x, sigma: x, sigma_min=0.002, sigma_max=80),
    "a flow": rs.from_flow(lambda x, t: x),
    "timesteps": rs.from_eps(lambda x, t: x, torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("nfe", [LEAST_NFE, 7, 20])
def test_plans_take_the_evaluations_asked_for_and_parse_back(net, nfe):
    space, intervals = Space(net, nfe), Counter()
    for seed in range(80):
        plan = space.suggest(Drawn(seed))
        assert Plan.parse(str(plan)) == plan
        path = net_path(net, plan)
        path.check_levels(net.process)  # does not raise
        nfe_found = path.nfe(*plan.solvers)
        assert nfe_found == nfe or (nfe_found == nfe - 1 and plan.solver in ("heun", "midpoint", "dpm2")), plan
        intervals[len(plan.intervals)] += 1
    assert intervals[0]
    assert intervals[1]
    assert nfe < 10 or intervals[3]


@pytest.mark.parametrize("ends", [(1, 10), (1, 1.05), (0.001, 0.02), (50, 100), (3, 50)])
def test_nets_of_few_levels_have_plans_too(ends):
    net = rs.from_edm(lambda x, sigma: x, *ends)
    space, found = Space(net, 6), []
    for seed in range(40):
        plan = space.suggest(Drawn(seed))
        assert net_path(net, plan).nfe(*plan.solvers) in (5, 6)
        found.append(plan)
    assert len({*map(str, found)}) > 20
    assert all(ends[0] <= level <= ends[1] for plan in found for level in plan.levels(*ends) if level)
    assert any(plan.intervals for plan in found)
    assert any([*map(space.suggestion, space.usual())])  # some have an empty window of churn here, and none
    assert ends[0] <= space.one_restart(*ends)["level_0"] < ends[1]


def test_without_rises_nothing_adds_noise():
    for seed in range(60):
        plan = Space(NETS["any level"], 12, rises=False).suggest(Drawn(seed))
        assert all(not move.rises and plan.solvers[0].landing(move) == move.then for move in plan.path().moves)


def test_churn_of_a_flow_stays_below_pure_noise():
    """EDM's churn raises a level by up to 41 %, and a flow has none above 1."""
    churned = [Space(NETS["a flow"], 12).suggest(Drawn(seed, churn=True)) for seed in range(60)]
    paths = [net_path(NETS["a flow"], plan) for plan in churned if plan.churn]
    assert 0.9 < max(max(path.levels[1:]) for path in paths) <= max(max(path.levels) for path in paths) <= 1
    assert len(paths) > 20
    fixed = {"churn": True, "solver": "euler", "intervals": 0, "churn_low": 3.0, "churn_width": 4.0}
    assert not Space(NETS["a flow"], 12).suggest(Drawn(0, **fixed, s_churn=20.0)).churn  # from level 0.75 on: no room
    for plan in map(Plan.parse, usual_plans(NETS["a flow"], 12)):
        net_path(NETS["a flow"], plan).check_levels(NETS["a flow"].process)  # does not raise


def test_without_restarts_there_is_other_noise():
    """The control that says what restarts bring beside what noise brings."""
    plans = [Space(NETS["any level"], 12, restarts=False).suggest(Drawn(seed)) for seed in range(60)]
    plans += map(Plan.parse, usual_plans(NETS["any level"], 12, restarts=False))
    assert not any(plan.intervals for plan in plans)
    assert any(plan.churn for plan in plans)
    assert {"ddpm", "sa", "sde_dpmpp_2m"} <= {plan.solver for plan in plans}


def test_plans_of_some_solvers_only():
    """With `heun` and no restarts: EDM's sampler, tuned as all plans are."""
    for only in (["heun"], ["sa:tau=0.5", "unipc"]):
        space = Space(NETS["any level"], 20, only=only)
        plans = [space.suggest(Drawn(seed)) for seed in range(60)]
        known = [Drawn(0, **each) for each in space.known_plans()]
        plans += [*map(Plan.parse, space.usual()), *map(space.suggest, known)]
        assert {plan.solver for plan in plans} == {*only}
        assert {plan.restart_solver for plan in plans} <= {None, *only}
        assert all(any(plan.solver == name for plan in map(Plan.parse, space.usual())) for name in only)
    with pytest.raises(InputError, match="the search has no solver rk4, ddpm; give some of euler, "):
        Space(NETS["any level"], 20, rises=False, only=["rk4", "heun", "ddpm"])
    with pytest.raises(InputError, match="no solvers are given; give some of euler, "):
        Space(NETS["any level"], 20, only=[])


def test_settings_that_do_nothing_are_not_in_the_plan():
    plan = Space(NETS["any level"], 12).suggest(Drawn(0, intervals=0, churn=False, solver="deis", s_noise=1.02))
    assert "s_noise" not in str(plan)
    plan = Space(NETS["any level"], 12).suggest(Drawn(0, intervals=0, churn=False, solver="ddpm", s_noise=1.02))
    assert plan.s_noise == 1.02
    for noisy in ({"intervals": 1, "churn": False, "level_0": 1.0}, {"intervals": 0, "churn": True}):
        trial = Drawn(0, solver="deis", restart_solver="the same", s_noise=1.02, **noisy)
        plan = Space(NETS["any level"], 12).suggest(trial)
        assert plan.intervals or plan.churn
        assert plan.s_noise == 1.02


def test_an_interval_begins_where_it_was_asked_for():
    fixed = {"intervals": 1, "churn": False, "solver": "euler", "restart_solver": "the same", "grid": "exponential"}
    trial = Drawn(0, **fixed, level_0=1.0, width_0=3.0, K_0=2, share_0=0.4, sigma_min=0.01, sigma_max=100.0)
    plan = Space(NETS["any level"], 20).suggest(trial)
    (interval,) = plan.intervals
    levels = plan.levels()
    assert interval.snap(levels) == min((x for x in levels if x > 0), key=lambda x: abs(log(x)))
    assert interval.t_max == pytest.approx(3 * interval.t_min, rel=1e-3)
    assert (interval.repeats, interval.points) == (2, 5)  # two passes of four steps are 40 % of 20


def test_one_restart_begins_where_a_trial_may_begin_one():
    seen = {}

    class Seen(Drawn):
        def suggest_float(self, name, low, high, log=False):
            seen[name] = (low, high)
            return super().suggest_float(name, low, high, log)

    space = Space(NETS["any level"], 20)
    space.suggest(Seen(0, intervals=1))
    assert seen["level_0"] == tuple(space.one_restart(t_min, 80)["level_0"] for t_min in (0.002, 79)) == (0.03, 40)


def test_levels_of_its_own():
    own = {"deis": {12: (80.0, *(1.7**-k for k in range(10)), 0.00200012345, 0.0)}, "euler": {}}
    trial = Drawn(0, intervals=0, churn=False, solver="deis", grid=OWN)
    plan = Space(NETS["any level"], 12, own).suggest(trial)
    levels = own["deis"][12]
    assert plan.own_levels == (80.0, *(float(f"{x:.4g}") for x in levels[1:-2]), 0.002001, 0.0)


def test_all_levels_have_four_digits_and_are_in_the_range_of_the_net():
    net = rs.from_edm(lambda x, sigma: x, sigma_min=0.00212345, sigma_max=80.28779)
    middle = [exp(-each / 4) for each in range(12)]
    own = {"deis": {steps: (net.sigma_max, *middle[: steps - 2], net.sigma_min, 0.0) for steps in range(2, 13)}}
    own |= dict.fromkeys(("euler", "heun", "midpoint"), own["deis"])
    for seed in range(60):
        solver = ("deis", "heun", "midpoint")[seed % 3]
        plan = Space(net, 12, own).suggest(
            Drawn(seed, solver=solver, **({"grid": OWN} if seed % 2 else {"sigma_max": 80.28779}))
        )
        ends = [level for each in plan.intervals for level in (each.t_min, each.t_max)]
        levels = (*plan.own_levels, *ends, plan.rho, plan.churn, plan.s_min, plan.s_max, plan.sigma_min, plan.sigma_max)
        assert all(level == float(f"{level:.4g}") for level in levels), plan
        assert plan.levels(net.sigma_min, net.sigma_max)  # does not raise


def test_an_nfe_below_what_any_plan_needs():
    with pytest.raises(InputError, match="NFE 3 is too little to choose from; give at least 4"):
        Space(NETS["any level"], 3)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_usual_plans(net):
    plans = [Plan.parse(text) for text in usual_plans(net, 20)]
    assert all(net_path(net, plan).nfe(*plan.solvers) in (19, 20) for plan in plans)
    alone = {plan.solver for plan in plans if not plan.intervals and not plan.churn}
    assert {"heun", "deis", "unipc", "ddpm", "sde_dpmpp_2m", "sa"} <= alone
    assert any(plan.churn for plan in plans) == (net.process.highest > 1)  # the published churn is of sigma, not of t
    falls = [Plan.parse(text) for text in usual_plans(net, 20, rises=False)]
    assert 0 < len(falls) < len(plans)
    assert not any(plan.intervals or plan.churn for plan in falls)
    assert "ddpm" not in {plan.solver for plan in falls}


def test_the_usual_plans_have_published_intervals_and_the_default():
    net = rs.load_model("cifar10-small")
    plans = usual_plans(net, 20)
    assert plans[0] == str(Plan.parse("cifar10-small-tuned-20"))
    assert "16 [5,1,1.09,3.2] solver=ab" in plans
    assert "6 [3,2,0.06,0.3]" in plans
    assert not any("[3,20," in plan for plan in plans)
    assert not any("churn=39.12" in plan for plan in plans[1:])  # found, not published
    assert usual_plans(net, 20, known=False) == plans[1:]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("nfe", [10, 20])
def test_a_suggestion_for_a_usual_plan_gives_that_plan(net, nfe):
    space, ratio, same = Space(net, nfe), net.process.ratio, 0
    for plan in map(Plan.parse, usual_plans(net, nfe)):
        if plan.solver not in space.solvers:
            assert space.suggestion(str(plan)) is None
            continue
        again = space.suggest(GivenTrial(space.suggestion(str(plan))))
        assert (again.solver, again.steps, bool(again.churn)) == (plan.solver, plan.steps, bool(plan.churn))
        levels = plan.levels(net.sigma_min, net.sigma_max)
        ends = [(ratio(each.snap(levels)), ratio(each.t_max)) for each in plan.intervals]
        if len(ends) < 2 and all(low >= 0.03 and high < 30 * low for low, high in ends) and not plan.churn:
            same += 1
            assert space.way(str(again)) == space.way(str(plan)), plan
    assert same > 30


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("nfe", [LEAST_NFE, 20, 80])
def test_known_plans_are_of_the_evaluations_asked_for(net, nfe):
    space = Space(net, nfe)
    plans = [space.suggest(GivenTrial(each)) for each in space.known_plans()]
    # All that were found without levels of their own, and the one of 20 evaluations that has some.
    assert len(plans) == (8 if nfe == 20 else 7)
    assert all(net_path(net, plan).nfe(*plan.solvers) in (nfe - 1, nfe) for plan in plans)
    assert Space(net, nfe, known=False).known_plans() == []


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_known_plan_with_levels_of_its_own_is_given_as_it_is(net):
    def given(nfe, **asked):
        return [each[GIVEN] for each in Space(net, nfe, **asked).known_plans() if GIVEN in each]

    (text,) = given(40)
    plan, found = Plan.parse(text), Plan.parse("cifar10-pfgmpp-small-tuned-40")
    assert net_path(net, plan).nfe(*plan.solvers) == 40
    net_path(net, plan).check_levels(net.process)  # does not raise
    assert (plan == found) == (net.process.highest == inf)
    assert len(plan.own_levels) == len(found.own_levels)
    assert given(41) == [text]
    (text,) = given(20)
    assert len(Plan.parse(text).own_levels) == len(Plan.parse("cifar10-vp-small-tuned-20").own_levels)
    assert given(39) == given(42) == given(40, rises=False) == given(40, restarts=False) == []
    assert given(20, guidance=2.0) == [f"{text} guidance=2"]


def test_known_plans_are_those_found_for_other_models_and_keep_the_shares_of_their_intervals():
    found = Plan.parse("cifar10-vp-small-tuned-40")
    for nfe, points in ((40, (4, 3, 7)), (80, (7, 5, 13))):
        space = Space(NETS["any level"], nfe)
        known = [space.suggest(GivenTrial(each)) for each in space.known_plans()]
        (plan,) = (each for each in known if each.sigma_min == found.sigma_min)
        assert [(each.points, each.repeats) for each in plan.intervals] == list(zip(points, (2, 4, 3), strict=True))
        assert (plan == found) == (nfe == 40)


def test_a_plan_that_no_trial_suggests():
    space = Space(NETS["any level"], 20)
    assert space.suggestion("20 solver=unipc:p=3") is None
    assert space.suggestion("4 solver=euler grid=80/20/5/1/0") is None


def test_the_guidance_scale_is_a_setting_of_its_own():
    space = Space(NETS["any level"], 20, guidance=3.0)
    assert all(text.endswith(" guidance=3") for text in space.usual())
    for seed in range(20):
        plan = space.suggest(Drawn(seed))
        text = space.text(plan)
        assert (Plan.parse_found(text), Plan.parse_found(text).guidance) == (plan, plan.guidance)
        assert 2 <= plan.guidance <= 5
        assert (again := space.suggestion(text)) is None or again["guidance"] == plan.guidance
    one, other = "20 solver=ab guidance=3", "20 solver=ab guidance=4"
    assert space.way(one) != space.way(other)
    assert space.complexity(one) < space.complexity(other)
    assert space.suggestion("20 solver=ab")["guidance"] == 3
    assert Space(NETS["any level"], 20).suggest(Drawn(0)).guidance is None
    with pytest.raises(InputError, match="searched around 1, which is none"):
        Space(NETS["any level"], 20, guidance=1.0)
