"""The usual plans of an NFE: what one would try without a search."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import image_traits, net_path
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.presets import PRESETS
from restart_sampling.sampling.solvers.by_name import SOLVERS
from restart_sampling.tuning.allowed import LEAST_STEPS
from restart_sampling.tuning.budget import main_steps, restart_calls
from restart_sampling.tuning.numbers import adds_noise

_FOUND = {name for name in PRESETS if "-tuned-" in name}
_PUBLISHED = [name for name in PRESETS if name not in _FOUND]
_SOLVERS = (*(name for name in SOLVERS if name != "ddim"), "unipc:p=2")  # ddim is euler, on the levels of VE


def usual_plans(
    net: Net,
    nfe: int,
    rises: bool = True,
    restarts: bool = True,
    only: Sequence[str] | None = None,
    known: bool = True,
) -> list[str]:
    """Lists the texts of plans that take `nfe` calls, or one less where a solver's steps do not divide it.

    These are the net's own default, every solver on EDM's grid by itself and with each published choice of
    intervals, and the published stochastic samplers; of each, what fits the net.

    Args:
        net: that is tuned.
        nfe: calls of the denoiser.
        rises: whether there may be restarts, churn and stochastic solvers.
        restarts: whether there may be restarts among these.
        only: solvers that they may have; None: all.
        known: whether a default that was found by `tune` is one of them.
    """
    found: dict[str, None] = {}
    for plan in _plans(net, nfe, only or _SOLVERS, known):
        with suppress(InputError):
            path = net_path(net, plan)
            path.check_levels(net.process)  # churn may rise above them, where it is EDM's and the model a flow
            allowed = (rises or not (plan.churn or adds_noise(net, plan))) and (restarts or not plan.intervals)
            allowed &= only is None or {plan.solver, plan.restart_solver or plan.solver} <= {*only}
            if path.nfe(*plan.solvers) in (nfe - 1, nfe) and allowed:
                found[str(plan)] = None
    return list(found)


def found_plans(nfe: int) -> list[str]:
    """Lists the plans that were found for the models of the package, those of an NFE near this one first."""
    near = sorted(_FOUND, key=lambda name: (abs(PRESETS[name].nfe - nfe), name))
    return list(dict.fromkeys(PRESETS[name].plan for name in near))


def _plans(net: Net, nfe: int, solvers: Sequence[str], known: bool) -> Iterator[Plan]:
    default = image_traits(net).default_plan
    if default is not None and (known or default not in _FOUND):
        yield Plan.parse(default)
    restarts = {
        tuple((each.t_min, each.t_max) for each in plan.intervals): plan.intervals
        for plan in map(Plan.parse, reversed(_PUBLISHED))  # of those with the same levels the first
    }
    churns = dict.fromkeys(
        (plan.churn, plan.s_min, plan.s_max, plan.s_noise) for plan in map(Plan.parse, _PUBLISHED) if plan.churn
    )
    for solver in solvers:
        for intervals in restarts.values():
            falls = sum(each.repeats * (each.points - 1) for each in intervals)
            steps = main_steps(solver, nfe - falls * restart_calls(solver))
            if steps is not None and (not intervals or steps >= LEAST_STEPS):
                yield Plan(steps, intervals, solver=solver)
    for solver in ("heun", "euler"):
        for churn, s_min, s_max, s_noise in churns:
            if (steps := main_steps(solver, nfe)) is not None:
                yield Plan(steps, solver=solver, churn=churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
