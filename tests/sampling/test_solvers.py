"""Every solver: its order from exact history and from a cold start, its evaluations, and what it does at the ends."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch

import restart_sampling as rs
from exact import RungeKutta4, gaussian, mixture
from restart_sampling.sampling.solvers.by_name import SOLVERS
from restart_sampling.sampling.solvers.integrals import (
    DataForm,
    NoiseForm,
    SlopeForm,
    interpolation_weights,
    phi,
    usable,
)

# name: (order from exact history, order of a cold start at a level that matters)
ORDERS = {
    "euler": (1, 1),
    "heun": (2, 2),
    "midpoint": (2, 2),
    "dpm2": (2, 2),
    "dpm3": (3, 3),
    "ab:order=1": (1, 1),
    "ab:order=2": (2, 2),
    "ab:order=3": (3, 2),
    "ab:order=4": (4, 2),
    "ipndm": (2, 2),
    "deis:order=2": (2, 2),
    "deis:order=3": (3, 2),
    "dpmpp_2m": (2, 2),
    "dpmpp_3m": (3, 2),
    "unipc:p=1": (2, 2),
    "unipc:p=2": (3, 3),
    "unipc:p=3": (4, 3),
    "ddim": (1, 1),
    "sa:tau=0:p=1": (2, 2),
    "sa:tau=0:p=2": (3, 3),
    "sa:tau=0:p=3": (4, 3),
}
STOCHASTIC = ["ddim:eta=0.5", "ddpm", "sde_dpmpp_2m", "sa"]
ALL = [*ORDERS, *STOCHASTIC]


@cache
def exact_states(process, high, low, steps):
    """The exact flow on a Karras grid, by Runge and Kutta's method on a finer one."""
    denoise, grid = mixture(process), rs.power_grid(steps + 1, high, low)
    states = [denoise.draw(64, high, torch.Generator().manual_seed(0))]
    for now, then in pairwise(grid):
        fine = (now, math.sqrt(now * then), then)  # of order 4, with less than a 400th of any solver's error
        states.append(rs.follow(denoise, states[-1], rs.ode_path(fine), RungeKutta4(), process=process))
    return grid, states


def error(name, process, high, low, steps, history):
    """Of the last state; the first `history` steps start from exact states, so that the memory is exact."""
    solver, memory = rs.make_solver(name), None
    grid, states = exact_states(process, high, low, steps)
    x = states[0]
    for index, (now, then) in enumerate(pairwise(grid)):
        start = states[index] if index <= history else x
        x, memory = solver.step(mixture(process), start, rs.Move(now, then), memory, process)
    return (x - states[-1]).norm().item()


def measured_order(name, process, high, low, counts, history):
    first, last = (error(name, process, high, low, steps, history) for steps in counts)
    order = math.log(first / last) / math.log(counts[1] / counts[0])
    print(f"order {order:.2f}")  # pytest -rP lists them
    return order


@pytest.mark.parametrize("name", ORDERS)
def test_order_from_exact_history_on_karras_levels(name):
    order = measured_order(name, rs.VE, 3.0, 0.1, (192, 384), history=4)
    assert order == pytest.approx(ORDERS[name][0], abs=0.2)
    assert rs.make_solver(name).order == ORDERS[name][0]


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_a_cold_start_in_the_middle(name):
    order = measured_order(name, rs.VE, 1.0, 0.2, (64, 192), history=0)
    assert order == pytest.approx(ORDERS[name][1], abs=0.3)


@pytest.mark.parametrize("name", ORDERS)
def test_order_on_a_flow(name):
    order = measured_order(name, rs.FLOW, 0.9, 0.2, (128, 256), history=4)
    assert order == pytest.approx(ORDERS[name][0], abs=0.3)


def test_ipndm_has_order_4_on_levels_with_equal_gaps():
    denoise = mixture()
    exact = exact_states(rs.VE, 1.0, 0.2, 192)[1]
    errors = []
    for steps in (128, 256):
        grid = rs.power_grid(steps + 1, 1.0, 0.2, rho=1.0)
        x, memory, solver = exact[0], None, rs.make_solver("ipndm")
        for index, (now, then) in enumerate(pairwise(grid)):
            if 1 <= index <= 3:
                fine = rs.power_grid(4, 1.0, now)
                x = rs.follow(denoise, exact[0], rs.ode_path(fine), RungeKutta4())
            x, memory = solver.step(denoise, x, rs.Move(now, then), memory)
        errors.append((x - exact[-1]).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)


IN_LAMBDA = [
    "euler",  # its one step is the same in lambda
    "dpm2",
    "dpm3",
    "deis:order=2",
    "deis:order=3",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc:p=1",
    "unipc:p=2",
    "unipc:p=3",
    "ddim",
    "ddim:eta=0.5",
    "ddpm",
    "sde_dpmpp_2m",
    *(f"sa:p={p}:tau={tau}:low=0:high=100" for p in (1, 2, 3) for tau in (0, 0.6, 1)),
]
OTHER = rs.Process("other", alpha_at_0=2.0, alpha_slope=-0.02, std_at_0=0.0, std_slope=3.0)


@pytest.mark.parametrize("process", [rs.FLOW, OTHER], ids=["FLOW", "other"])
@pytest.mark.parametrize("name", IN_LAMBDA)
def test_solvers_in_lambda_give_alpha_times_their_answer_on_ve(name, process):
    """Those that see only the noise-to-data ratio, at its level in another process (t = sigma / (1 + sigma) of FLOW),
    with the same noise where there is any, on the way to 0 and through a restart."""
    ve = rs.Plan.parse("9 [4,2,0.3,2] sigma_min=0.02").path()
    path = rs.NoisePath(
        tuple(replace(move, now=process.level(move.now), then=process.level(move.then)) for move in ve.moves)
    )
    solver = rs.make_solver(name)
    states = {}
    for each, levels in ((rs.VE, ve), (process, path)):
        noise = rs.GaussianNoise(range(8), s_noise=1.1, process=each)
        x = each.alpha(levels.levels[0]) / each.std(levels.levels[0]) * noise.start((3,), levels.levels[0]) * 80
        seen = states[each] = []
        rs.follow(mixture(each), x, levels, solver, perturb=noise, callback=lambda _i, _m, x, seen=seen: seen.append(x))
    for move, on_ve, on_other in zip(path.moves, states[rs.VE], states[process], strict=True):
        torch.testing.assert_close(on_other, process.alpha(move.then) * on_ve, rtol=1e-9, atol=1e-10)


class Counter:
    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x, sigma):
        assert sigma.min() > 0
        self.calls += 1
        return self.denoise(x, sigma)


PLANS = [
    "1",
    "2",
    "6",
    "8 [3,2,0.06,1] gamma=0.05",
    "8 [2,1,0.002,1]",
    "7 churn=3",
    "6 [4,1,0.5,3] restart_solver=heun",
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", PLANS)
def test_nfe_is_what_is_spent(name, text):
    plan = rs.Plan.parse(text).set(f"solver={name}")
    path, denoise = plan.path(), Counter(mixture())
    out = rs.follow(denoise, torch.ones(2, 3, dtype=torch.float64) * 80, path, *plan.solvers)
    assert denoise.calls == path.nfe(*plan.solvers)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
@pytest.mark.parametrize("name", [name for name in ALL if name != "midpoint"])
def test_a_single_step_to_0_is_the_expected_data(name, process):
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    denoise, top = mixture(process), 80.0 if process is rs.VE else 1.0
    out = rs.follow(denoise, top * x, rs.ode_path([top, 0.0]), rs.make_solver(name), process=process)
    torch.testing.assert_close(out, denoise(top * x, torch.full((4,), top, dtype=torch.float64)))


@cache
def fall_of_pure_noise(steps, solver):
    """Where a flow leads from t = 1; the state there is left as it was."""
    torch.manual_seed(0)
    denoise = mixture(rs.FLOW)
    x = denoise.draw(64, 1.0, torch.Generator().manual_seed(0))
    start = x.clone()
    path = rs.ode_path(rs.power_grid(steps + 1, 1.0, 0.0, rho=2.0))
    out = rs.follow(denoise, x, path, solver, process=rs.FLOW)
    assert torch.equal(x, start)
    return out


@pytest.mark.parametrize("name", ALL)
def test_flows_start_at_pure_noise(name):
    """At t = 1 there is no data in the state and lambda is not finite: the answer converges all the same."""
    out = fall_of_pure_noise(100, rs.make_solver(name))
    assert torch.isfinite(out).all()
    if name in ORDERS:
        exact = fall_of_pure_noise(2000, rs.Heun())
        assert (out - exact).abs().mean() < (0.02 if ORDERS[name][0] == 1 else 2e-3)


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_levels_that_nearly_meet_do_no_harm(name, dtype, process):
    """A step of relative size 1e-12 changes nothing but rounding, of the state's own dtype."""
    denoise = mixture(process)
    levels = [1.0 if process is rs.FLOW else 2.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.0]
    doubled = sorted({value for level in levels for value in (level, level * (1 - 1e-12))}, reverse=True)
    assert len(doubled) == 2 * len(levels) - 1

    def run(grid):
        noise = torch.zeros(64, 3, dtype=dtype)  # without noise, so that both runs can be compared

        def perturb(x, low, high):
            keep, std = process.rise(low, high)
            return keep * x + std * noise

        x = levels[0] * torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(dtype)
        return rs.follow(
            lambda x, sigma: denoise(x.double(), sigma).to(dtype),
            x,
            rs.ode_path(grid),
            rs.make_solver(name),
            process=process,
            perturb=perturb,
        )

    plain, near = run(levels), run(doubled)
    assert near.dtype == dtype
    assert torch.isfinite(near).all()
    # The order of multistep solvers drops at each doubled level, so that only the size of the answer is kept.
    assert (near - plain).abs().max() < 0.6


@pytest.mark.parametrize("form", [SlopeForm(), DataForm()])
def test_a_value_is_used_unless_it_is_nearer_than_a_hundredth_of_the_step(form):
    move, x = rs.Move(1.0, 0.5), torch.zeros(1)
    step = form.clock(rs.VE, 0.5) - form.clock(rs.VE, 1.0)
    for share, used in ((0.02, 2), (0.005, 1)):
        older = 1 - share * step if isinstance(form, SlopeForm) else math.exp(share * step)
        assert len(usable(form, rs.VE, move, ((1.0, x), (older, x)))) == used


@pytest.mark.parametrize("name", ALL)
def test_a_step_of_no_length_goes_nowhere(name):
    denoise, solver, memory = mixture(), rs.make_solver(name), None
    x = 2 * torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for now, then in pairwise((2.0, 1.5, 1.0)):
        x, memory = solver.step(denoise, x, rs.Move(now, then), memory)
    before = solver.step(denoise, x, rs.Move(1.0, 0.9), memory)[0]
    tiny, memory = solver.step(denoise, x, rs.Move(1.0, 1.0 - 1e-12), memory)
    # A corrector moves the state all the same, by the correction of the step before.
    assert (tiny - x).abs().max() < (0.1 if name.startswith(("unipc", "sa")) else 1e-9)
    after = solver.step(denoise, tiny, rs.Move(1.0 - 1e-12, 0.9), memory)[0]
    assert (after - before).abs().max() < 0.05


@pytest.mark.parametrize("name", ALL)
def test_float32_state_follows_float64(name):
    levels = rs.karras_levels(18)
    x = 80 * torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    outs = []
    for dtype in (torch.float32, torch.float64):
        source = rs.GaussianNoise(range(64))
        outs.append(
            rs.follow(
                lambda x, sigma: mixture()(x.double(), sigma).to(x.dtype),
                x.to(dtype),
                rs.ode_path(levels),
                rs.make_solver(name),
                perturb=lambda x, low, high, source=source: source(x, low, high).to(x.dtype),
            )
        )
    assert outs[0].dtype == torch.float32
    assert (outs[0] - outs[1]).abs().max() < 5e-4


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_keep_the_distribution(name, process):
    """From exact samples of a Gaussian at one level to another: mean 0 and the exact variance; no noise at level 0."""
    denoise = gaussian(process=process)
    high, low = (3.0, 0.3) if process is rs.VE else (0.9, 0.2)
    x = denoise.draw(8000, high, torch.Generator().manual_seed(1))
    solver = rs.make_solver(f"{name}:high=5" if name == "sa" else name)
    path = rs.ode_path(rs.power_grid(161, high, low))
    out = rs.follow(denoise, x, path, solver, process=process, perturb=rs.GaussianNoise(range(8000), process=process))
    variance = (process.alpha(low) * 0.5) ** 2 + process.std(low) ** 2
    assert out.pow(2).mean().item() == pytest.approx(variance, rel=0.03)
    assert abs(out.mean().item()) < 4 * math.sqrt(variance / out.numel())
    # It is no ODE: what is left of the start is less than the flow leaves.
    kept = (out * x).mean().item() / math.sqrt(variance * x.pow(2).mean().item())
    assert kept < 0.95
    assert all(solver.landing(move, process) < move.then for move in path.moves)
    assert solver.landing(rs.Move(low, 0.0), process) == 0.0


def test_sa_solver_is_stochastic_in_steps_that_begin_within_its_interval():
    solver = rs.make_solver("sa:low=0.5:high=1")
    for now, then, noisy in ((1.0, 0.3, True), (0.5, 0.3, True), (1.2, 0.8, False), (0.49, 0.3, False)):
        assert (solver.landing(rs.Move(now, then)) < then) == noisy


def test_stochastic_solvers_leave_the_noise_to_its_source():
    """The image of a seed does not depend on its batch, with any of them."""
    denoise, path = mixture(), rs.Plan.parse("8 [3,2,0.06,1]").path()
    for name in STOCHASTIC:
        outs = []
        for seeds in ([3], [1, 2, 3]):
            source = rs.GaussianNoise(seeds)
            outs.append(rs.follow(denoise, source.start((3,), 80.0), path, rs.make_solver(name), perturb=source)[-1])
        torch.testing.assert_close(outs[0], outs[1])
        assert source.draw > len(path.rises)


def test_edms_noise_refuses_what_edm_has_not():
    path = rs.ode_path(rs.karras_levels(4))
    source = rs.EDMNoise([0], path)
    with pytest.raises(rs.InputError, match="for ODE solvers only"):
        rs.follow(mixture(), source.start((3,), 80.0), path, rs.make_solver("ddpm"), perturb=source)


def test_every_solver_is_tested_here():
    assert {name.partition(":")[0] for name in ALL} == set(SOLVERS)
    for name, make in SOLVERS.items():
        assert make() == rs.make_solver(name)


@pytest.mark.parametrize("form", [SlopeForm(), NoiseForm(), DataForm(), DataForm(tau=0.7)])
def test_integrals_are_exact(form):
    """Against the trapezoidal rule on the form's own equation, for a polynomial through three nodes."""
    now, then, levels = 2.0, 0.7, (2.0, 3.1, 4.5)
    clocks = [form.clock(rs.VE, level) for level in levels]
    values = [0.3, -0.8, 1.1]
    moments = form.moments(rs.VE, now, then, 3)
    got = sum(w * v for w, v in zip(interpolation_weights(clocks, moments), values, strict=True))

    start, end = clocks[0], form.clock(rs.VE, then)
    count = 20_000
    u = [start + (end - start) * i / count for i in range(count + 1)]

    def lagrange(at):
        return sum(
            value * math.prod((at - other) / (own - other) for other in clocks if other != own)
            for own, value in zip(clocks, values, strict=True)
        )

    def weight(at):
        if isinstance(form, SlopeForm):
            return 1.0
        if isinstance(form, NoiseForm):
            return -math.exp(-at)  # -alpha_t e^-lambda
        c = 1 + form.tau**2
        return c * math.exp(-c * (end - at))

    inside = [weight(at) * lagrange(at) for at in u]
    integral = (sum(inside) - (inside[0] + inside[-1]) / 2) * (end - start) / count
    assert got == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("z", [-40.0, -3.0, -1.0, -0.999, -1e-9, 0.0, 1e-300, 0.5, 1.0, 2.0])
def test_phi_functions(z):
    count = 4000
    for k in (1, 2, 3):
        s = [(i + 0.5) / count for i in range(count)]
        integral = sum(math.exp((1 - at) * z) * at ** (k - 1) for at in s) / count / math.factorial(k - 1)
        assert phi(k, z) == pytest.approx(integral, rel=1e-3 if z == -40 else 1e-5)


def test_solvers_by_hand_have_the_plans_checks():
    for name in ("ddim:eta=nan", "sa:tau=inf", "sa:tau=-1", "unipc:p=0", "deis:order=4"):
        with pytest.raises(rs.InputError):
            rs.make_solver(name)
