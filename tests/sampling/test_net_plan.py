"""A net and a plan: what is known of the net, its levels, and how often it is evaluated."""

from dataclasses import fields, replace

import torch

import restart_sampling as rs
from exact import mixture
from restart_sampling.sampling.net import ImageTraits
from restart_sampling.sampling.net_plan import image_traits, net_path, network_evaluations


def test_a_net_around_another_has_all_its_traits():
    assert image_traits(mixture()) == image_traits(rs.clipped(mixture())) == ImageTraits()
    net = mixture()
    for trait in fields(ImageTraits):
        setattr(net, trait.name, trait.name.upper())
    assert image_traits(net).default_plan == "DEFAULT_PLAN"
    assert (
        image_traits(rs.clipped(net)) == image_traits(rs.guided(rs.clipped(net), 2.0, guide=net)) == image_traits(net)
    )


def test_evaluations_of_the_network_are_the_nfe_but_for_guidance():
    plan = rs.Plan.parse("9 [3,2,0.3,2] churn=1 gamma=0.05 solver=dpmpp_2m restart_solver=dpm2")
    nfe = plan.path().nfe(*plan.solvers)
    assert network_evaluations(mixture(), plan) == nfe
    pair = {"guide": mixture()}
    assert network_evaluations(rs.guided(mixture(), 2.0, **pair), plan) == 2 * nfe
    assert network_evaluations(rs.guided(mixture(), 1.0, **pair), plan) == nfe
    calls = []
    spy = rs.from_edm(lambda x, s: calls.append(s[0].item()) or mixture()(x, s), 0.0, 80.0, dtype=torch.float64)
    some = rs.guided(spy, 2.0, guide=spy, interval=(0.2, 5.0))
    rs.sample(some, plan, [1], (3,))
    assert network_evaluations(some, plan) == len(calls)
    assert nfe < len(calls) < 2 * nfe


def test_levels_are_rounded_as_the_net_says():
    net = replace(rs.from_edm(mixture(), 1.0, 80.0, dtype=torch.float64), round_level=lambda level: float(round(level)))
    path = net_path(net, rs.Plan.parse("9 [3,1,2,9.6]"))
    assert set(path.levels) <= {float(level) for level in range(81)}
    assert rs.Move(2.0, 10.0, True) in [replace(rise, left=None) for rise in path.rises]
