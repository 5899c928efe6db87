"""Restart in k-diffusion's calling convention: A1111's counting, the model's and the callback's arguments, noise."""

import math
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import restart_sampling as rs
from exact import gaussian
from restart_sampling.sampling.kdiffusion import restart_plan, sample_restart
from restart_sampling.sampling.solvers.protocol import like

SIGMAS = torch.tensor(rs.karras_levels(6, 0.1, 10.0))


def shrink(x, sigma, factor=1.0):
    return factor * x / (1 + sigma[:, None] ** 2)


def one(low, high):
    return torch.ones(2, 3)


def main_grid(path):
    return [path.levels[0], *(move.then for move in path.moves if not move.restart)]


@pytest.mark.parametrize(
    ("steps", "main", "restart_steps", "repeats", "low", "high", "calls"),
    [(19, 19, 0, 0, None, None, 37), (20, 11, 9, 1, 0.074, 2.23, 39), (36, 18, 9, 2, 0.087, 2.09, 71),
     (50, 26, 12, 2, 0.089, 1.79, 99)],
)  # fmt: skip
def test_automatic_restarts_are_those_of_a1111(steps, main, restart_steps, repeats, low, high, calls):
    """On Stable Diffusion's sigmas, 0.0292 to 14.61."""
    path = restart_plan(rs.karras_levels(steps, 0.0292, 14.61))
    assert path.nfe(rs.Heun()) == calls
    assert len(main_grid(path)) == main + 1
    assert sum(move.restart and not move.rises for move in path.moves) == restart_steps * repeats
    assert len(path.rises) == repeats
    for rise in path.rises:
        assert (rise.now, rise.then) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-3))
    if not repeats:
        assert path == rs.ode_path(rs.karras_levels(steps, 0.0292, 14.61))


def test_automatic_restarts_of_a_part_of_the_sigmas_end_where_it_does():
    whole = rs.karras_levels(40, 0.0292, 14.61)
    part = next(place for place, level in enumerate(whole) if level < 0.2)
    first = restart_plan(whole[: part + 1])
    assert first.levels[-1] == whole[part]
    assert len(first.rises) == 1
    above = rs.power_grid(24, 14.61, 2.3)
    assert restart_plan(above) == rs.ode_path(above)


def test_a_list_snaps_at_both_ends_and_leaves_the_grid_alone():
    levels = tuple(SIGMAS.tolist())
    path = restart_plan(levels, {0.3: [4, 2, 3.0], 5.0: [3, 1, 4.0]})  # the second does not rise, once it is snapped
    assert main_grid(path) == list(levels)
    assert [(rise.now, rise.then) for rise in path.rises] == [(levels[4], levels[2])] * 2
    assert path.nfe(rs.Heun()) == 11 + 2 * 2 * 3
    assert restart_plan(levels, {}) == rs.ode_path(levels)
    with pytest.raises(rs.InputError, match="N_restart = 1"):
        restart_plan(levels, {0.3: [1, 1, 3.0]})
    for entries in ({}, None):
        with pytest.raises(rs.InputError, match=r"a main grid must fall .*given 0 1 2"):
            restart_plan([0.0, 1.0, 2.0], entries)


@pytest.mark.parametrize(
    ("t_min", "entry"),
    [
        (0.3, [3, 2, 0.3, 3.0]),
        ("0", [3, 2, 3.0]),
        (math.nan, [3, 2, 3.0]),
        (-1.0, [3, 2, 3.0]),
        (0.0, [3, 2, 3.0]),
        (0.3, [3, 1.5, 3.0]),
        (0.3, [3, 2, math.inf]),
        (0.3, [math.inf, 2, 3.0]),
        (0.3, 3),
    ],
)
def test_an_entry_of_another_form_is_refused(t_min, entry):
    with pytest.raises(rs.InputError, match=r"write \{t_min: \[N_restart, K, t_max\]\} .* \{0.1: \[10, 2, 2.0\]\}"):
        restart_plan(SIGMAS.tolist(), {t_min: entry})


@pytest.mark.parametrize("restart_list", [[[0.3, 3, 2, 3.0]], "[3,2,0.3,3]", 0.3])
def test_a_list_of_another_form_is_refused(restart_list):
    with pytest.raises(rs.InputError, match=r"write \{t_min: \[N_restart, K, t_max\]\}"):
        restart_plan(SIGMAS.tolist(), restart_list)


def test_t_min_does_not_snap_to_0_where_the_restart_would_be_dropped():
    levels = SIGMAS.tolist()
    [rise] = restart_plan(levels, {levels[-2] / 3: [3, 1, 3.0]}).rises
    assert rise.now == levels[-2]


def test_sigmas_may_be_a_list_or_an_array_and_the_state_is_of_real_numbers():
    x, restarts = torch.ones(2, 3), {0.3: [3, 1, 3.0]}
    expected = sample_restart(shrink, x, SIGMAS, {}, restart_list=restarts, noise_sampler=one)
    for sigmas in (SIGMAS.tolist(), SIGMAS.numpy()):
        seen = []
        out = sample_restart(shrink, x, sigmas, {}, seen.append, restart_list=restarts, noise_sampler=one)
        torch.testing.assert_close(out, expected)
        assert len(seen) == 8
    for dtype in (torch.int64, torch.complex64):
        with pytest.raises(rs.InputError, match=r"the state is of torch\..*; give real numbers"):
            sample_restart(shrink, x.to(dtype), SIGMAS)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        (SIGMAS[None], r"sigmas has shape \[1, 7\]"),
        (SIGMAS.to(torch.complex64), r"sigmas is of torch\.complex64; give real numbers"),
        (None, "sigmas is of type NoneType; give falling levels"),
        ("10/1/0", "sigmas is of type str; give falling levels"),
        ([10.0, [1.0], 0.0], "sigmas is of type list; give falling levels"),
    ],
)
def test_sigmas_are_one_row_of_real_numbers(sigmas, message):
    with pytest.raises(rs.InputError, match=message):
        sample_restart(lambda x, sigma: x, torch.ones(1, 3), sigmas)


@pytest.mark.parametrize("seed", ["7a", 1.5, [1, 2], math.nan])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(rs.InputError, match=r"seed = .*; give a whole number"):
        sample_restart(lambda x, sigma, seed: x, torch.ones(1, 3), SIGMAS, {"seed": seed})


def test_a_flow_may_begin_above_1_by_rounding():
    """Taken for VE it was sampled wrongly, and as a flow refused."""
    x, restarts = torch.ones(2, 3), {0.3: [3, 1, 0.6]}
    above = torch.cat([torch.tensor([1.0000002]), FLOW_SIGMAS[1:].float()])
    with pytest.raises(rs.InputError, match="as a flow's do"):
        sample_restart(shrink, x, above, restart_list=restarts)
    settings = {"restart_list": restarts, "noise_sampler": one, "process": rs.FLOW}
    ends = [sample_restart(shrink, x, sigmas, **settings) for sigmas in (above, FLOW_SIGMAS)]
    torch.testing.assert_close(*ends)
    with pytest.raises(rs.InputError, match=r"process is of type str; give rs\.VE or rs\.FLOW"):
        sample_restart(shrink, x, FLOW_SIGMAS, process="FLOW")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_samplers_own_loop(dtype):
    x = 10 * torch.randn(4, 3, dtype=dtype)
    calls, seen, noises = [], [], iter(torch.randn(2, 4, 3, dtype=dtype))
    asked, drawn = [], []

    def model(x, sigma, factor):
        assert sigma.dtype == x.dtype == dtype
        assert sigma.shape == (4,)
        calls.append(sigma[0].item())
        return shrink(x, sigma, factor)

    def noise_sampler(sigma, sigma_next):
        asked.append((sigma.item(), sigma_next.item()))
        drawn.append(next(noises))
        return drawn[-1]

    out = sample_restart(
        model, x, SIGMAS, extra_args={"factor": 0.9}, callback=seen.append, disable=True, s_noise=1.1,
        restart_list={0.3: [3, 2, 3.0]}, noise_sampler=noise_sampler,
    )  # fmt: skip
    path = restart_plan(SIGMAS.tolist(), {0.3: [3, 2, 3.0]})
    replay = iter(drawn)
    expected = rs.follow(
        lambda x, sigma: shrink(x, sigma.to(dtype), 0.9), x, path,
        perturb=lambda x, low, high: x + 1.1 * (high**2 - low**2) ** 0.5 * next(replay),
    )  # fmt: skip
    torch.testing.assert_close(out, expected)
    assert out.dtype == dtype
    assert len(calls) == path.nfe(rs.Heun())
    # The same interval twice, and a draw of its own each time.
    assert asked[0] == asked[1]
    assert not torch.equal(*drawn)
    falls = [move for move in path.moves if not move.rises]
    assert [entry["i"] for entry in seen] == list(range(len(falls)))
    assert all(set(entry) == {"x", "i", "total", "sigma", "sigma_hat", "denoised"} for entry in seen)
    for entry, move in zip(seen, falls, strict=True):
        assert entry["sigma"] == entry["sigma_hat"] == SIGMAS.new_tensor(move.now)
        level = torch.full((4,), move.now, dtype=torch.float64).to(dtype)
        torch.testing.assert_close(entry["denoised"], shrink(entry["x"], level, 0.9))
    assert torch.equal(seen[0]["x"], x)


def test_defaults_and_other_solvers():
    x = 10 * torch.randn(4, 3)
    torch.manual_seed(3)
    assert torch.isfinite(sample_restart(shrink, x, SIGMAS)).all()
    for name in ("dpmpp_2m", "unipc", "ddpm"):
        out = sample_restart(shrink, x, SIGMAS, restart_list={0.3: [3, 1, 3.0]}, solver=rs.make_solver(name))
        assert torch.isfinite(out).all()


FLOW_SIGMAS = torch.tensor(rs.power_grid(41, 1.0, 0.0, rho=1.0), dtype=torch.float64)


def wrapped(model, kind):
    """A model as ComfyUI's samplers are given it: its model_sampling two layers below."""
    inner = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=type(kind, (), {})()))
    return type("Guider", (), {"inner_model": inner, "__call__": lambda self, x, sigma: model(x, sigma)})()


def test_flow_sigmas_are_not_taken_for_ve():
    """As VE states they gave std 0.569 for 0.5."""
    flow = gaussian(process=rs.FLOW)
    x = torch.randn(5000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    restarts = {0.3: [8, 2, 0.7]}
    with pytest.raises(rs.InputError, match=r"sigmas begin at 1, as a flow's do.*process=FLOW or process=VE"):
        sample_restart(flow.__call__, x, FLOW_SIGMAS, restart_list=restarts)
    torch.manual_seed(1)
    out = sample_restart(flow.__call__, x, FLOW_SIGMAS, restart_list=restarts, process=rs.FLOW)
    assert out.std().item() == pytest.approx(0.5, abs=0.01)
    path = restart_plan(FLOW_SIGMAS.tolist(), restarts)
    torch.manual_seed(1)
    torch.testing.assert_close(out, rs.follow(flow, x, path))


def test_a_model_that_says_it_is_a_flow_is_no_ve_model():
    flow = wrapped(gaussian(process=rs.FLOW), "CONST")
    x = torch.randn(3, 4, dtype=torch.float64)
    for process, sigmas in ((None, FLOW_SIGMAS), (rs.VE, FLOW_SIGMAS), (None, SIGMAS)):
        with pytest.raises(rs.InputError, match=r"a flow \(its model_sampling is CONST\); give process=FLOW"):
            sample_restart(flow, x, sigmas, restart_list={}, process=process)
    assert sample_restart(flow, x, FLOW_SIGMAS, restart_list={}, process=rs.FLOW).shape == x.shape
    sample_restart(wrapped(shrink, "EPS"), x, SIGMAS, restart_list={})


def test_the_last_sigmas_of_a_ve_model_are_sampled_where_it_is_said():
    x, low = torch.randn(3, 4, dtype=torch.float64), SIGMAS[SIGMAS < 1]
    out = sample_restart(shrink, x, low, restart_list={}, process=rs.VE)
    torch.testing.assert_close(out, rs.follow(shrink, x, rs.ode_path(low.tolist())))


def test_a_flow_has_no_automatic_restarts():
    x = torch.randn(3, 4, dtype=torch.float64)
    for sigmas in (FLOW_SIGMAS, FLOW_SIGMAS[::2]):
        with pytest.raises(rs.InputError, match="automatic restarts are for sigmas of VE models"):
            sample_restart(gaussian(process=rs.FLOW), x, sigmas, process=rs.FLOW)
    few = FLOW_SIGMAS[2::2]  # 19 steps are too few for any
    out = sample_restart(gaussian(process=rs.FLOW), x, few, process=rs.FLOW)
    torch.testing.assert_close(out, rs.follow(gaussian(process=rs.FLOW), x, rs.ode_path(few.tolist())))


@pytest.mark.parametrize("shape", [(1,), (1, 3), (4, 1), (4, 3, 1)])
def test_noise_of_another_shape_is_refused(shape):
    """One number for all values gave std 0.126 for 0.25."""
    with pytest.raises(rs.InputError, match=r"noise_sampler returned a tensor .* for states \[4, 3\]"):
        sample_restart(
            shrink, torch.ones(4, 3), SIGMAS,
            restart_list={0.3: [3, 1, 3.0]}, noise_sampler=lambda low, high: torch.randn(shape),
        )  # fmt: skip


@pytest.mark.parametrize("passes", [1, 2])
def test_noise_that_comes_again_is_refused(passes):
    """As k-diffusion's Brownian tree returns it: with two passes the std was 0.62 for 0.5."""
    tree = {}

    def noise_sampler(low, high):
        return tree.setdefault((low.item(), high.item()), torch.randn(2, 3))

    given = {"restart_list": {0.5: [3, passes, 2.0]}, "noise_sampler": noise_sampler, "process": rs.VE}
    with nullcontext() if passes == 1 else pytest.raises(rs.InputError, match=r"the same noise again .* 0.5 to 2,"):
        sample_restart(lambda x, sigma: 0 * x, torch.ones(2, 3), [4.0, 2.0, 0.5, 0.0], **given)


def test_noise_that_cannot_come_again_is_not_kept(monkeypatch):
    """Of a video each takes as much memory as the state."""
    drawn, alive = [], []

    def copied(x, answer, who):
        alive.append(sum(each() is not None for each in drawn))
        noise = like(x, answer, who)
        drawn.append(weakref.ref(noise))
        return noise

    monkeypatch.setattr("restart_sampling.sampling.kdiffusion.like", copied)
    given = {"restart_list": {}, "process": rs.VE, "solver": rs.make_solver("ddpm")}
    given["noise_sampler"] = lambda low, high: torch.randn(2, 3)
    sample_restart(lambda x, sigma: 0 * x, torch.ones(2, 3), [8.0, 4.0, 2.0, 1.0, 0.5, 0.0], **given)
    assert (len(alive), max(alive)) == (4, 0)


def test_whole_sigmas_are_told_as_real_numbers():
    told = []
    sample_restart(
        lambda x, sigma: 0 * x,
        torch.ones(2, 3),
        torch.tensor([9, 4, 1, 0]),
        restart_list={1: [3, 1, 4]},
        callback=lambda about: told.append(about["sigma"].item()),
    )
    assert told[3] == pytest.approx(rs.karras_levels(3, 1.0, 4.0)[1], rel=1e-5)


@pytest.mark.parametrize("s_noise", [math.nan, math.inf, -1.0])
def test_a_factor_on_the_noise_that_is_none_is_refused(s_noise):
    with pytest.raises(rs.InputError, match=f"s_noise is {s_noise:g}; give a finite number, 0 or above"):
        sample_restart(shrink, torch.ones(4, 3), SIGMAS, s_noise=s_noise, restart_list={})


def test_a_seed_in_extra_args_is_that_of_the_noise():
    def model(x, sigma, seed):
        return x / (1 + sigma[:, None] ** 2)

    sigmas = torch.tensor(rs.karras_levels(12))

    def sampled(seed, x):
        return sample_restart(model, x, sigmas, {"seed": seed}, restart_list={0.5: [3, 2, 5.0]})

    x = 80 * torch.randn(4, 3, generator=torch.Generator().manual_seed(7))
    torch.manual_seed(0)
    first = sampled(7, x)
    torch.manual_seed(1)
    assert torch.equal(first, sampled(7, x))
    assert not torch.equal(first, sampled(8, x))
    # The first rise adds other noise than that of the first state, which a user draws from the same seed.
    seen = []
    sample_restart(
        lambda x, sigma, seed: torch.zeros_like(x),
        x,
        torch.tensor([80.0, 1.0, 0.0]),
        {"seed": 7},
        callback=lambda about: seen.append(about),
        restart_list={1.0: [2, 1, 80.0]},
    )
    added = (seen[1]["x"] - x / 80) / (80**2 - 1) ** 0.5
    assert torch.corrcoef(torch.stack([added.flatten(), x.flatten()]))[0, 1].abs() < 0.9
    assert [about["total"] for about in seen] == [3, 3, 3]


def test_two_parts_with_one_seed_have_other_noise():
    """A host that samples in two parts gives both its seed."""
    drawn = []
    for start in (80.0, 10.0):
        seen = []
        sample_restart(
            lambda x, sigma, seed: torch.zeros_like(x), torch.zeros(4, 3), torch.tensor([start, 1.0, 0.0]), {"seed": 7},
            seen.append, restart_list={1.0: [2, 1, start]},
        )  # fmt: skip
        drawn.append(seen[1]["x"] / (start**2 - 1) ** 0.5)
    assert not torch.isclose(*drawn).any()
