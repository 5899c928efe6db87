"""The loop: memory, solvers of both kinds of interval, noise that a solver leaves to the loop, dtypes."""

from dataclasses import dataclass

import pytest
import torch

import restart_sampling as rs
from restart_sampling.sampling.solvers.by_name import SOLVERS, make_solver

PATH = rs.restart_path([3.0, 2.0, 1.0, 0.5, 0.0], [rs.RestartInterval(3, 2, 1.0, 2.5)])


def shrink(x, sigma):
    return x / (1 + sigma[:, None] ** 2)


@dataclass(frozen=True)
class Remembering(rs.Euler):
    """Euler that remembers the falls since its memory was last dropped."""

    name = "remembering"
    lands: float = 1.0

    def landing(self, move, process=rs.VE):
        return move.then * self.lands

    def step(self, denoise, x, move, memory=None, process=rs.VE):
        x, _ = super().step(denoise, x, move, None, process)
        return x, [*(memory or []), (move.now, move.then)]


class Other(Remembering):
    """A solver that is not the same, and remembers too."""


def run(solver, restart_solver=None):
    memories = []

    class Spy(type(solver)):
        def step(self, denoise, x, move, memory=None, process=rs.VE):
            memories.append(len(memory or []))
            return super().step(denoise, x, move, memory, process)

    spy = Spy(**vars(solver))
    rises = []

    def perturb(x, low, high):
        rises.append((low, high))
        return x

    rs.follow(shrink, torch.ones(2, 3), PATH, spy, restart_solver, perturb=perturb)
    return memories, rises


def test_memory_lives_from_rise_to_rise_and_out_of_a_restart():
    memories, rises = run(Remembering())
    assert memories == [0, 1, 0, 1, 0, 1, 2, 3]  # falls: 2 main, 2 and 2 in the restart, then 2 main
    assert rises == [(1.0, 2.5)] * 2


def test_memory_of_one_solver_is_not_given_to_another():
    for other in (rs.Heun(), Other()):
        memories, _ = run(Remembering(), restart_solver=other)
        assert memories == [0, 1, 0, 1]


def test_a_stochastic_solver_lands_lower_and_the_loop_adds_the_noise_and_keeps_the_memory():
    memories, rises = run(Remembering(lands=0.5))
    assert memories == [0, 1, 0, 1, 0, 1, 2, 3]
    assert rises[:3] == [(1.0, 2.0), (0.5, 1.0), (1.0, 2.5)]
    assert (0.0, 0.0) not in rises
    assert len(rises) == 2 + 7


def test_each_interval_has_its_solver():
    calls = []

    def counting(x, sigma):
        calls.append(sigma[0].item())
        return shrink(x, sigma)

    rs.follow(counting, torch.ones(2, 3), PATH, rs.Euler(), rs.Heun())
    assert len(calls) == PATH.nfe(rs.Euler(), rs.Heun()) == 4 + 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_states_dtype_is_kept_and_the_level_is_float64(dtype):
    def check(x, sigma):
        assert x.dtype == dtype
        assert sigma.dtype == torch.float64
        assert sigma.shape == (2,)
        return shrink(x, sigma).to(dtype)

    x = torch.ones(2, 3, dtype=dtype)
    kept = x.clone()
    assert rs.follow(check, x, PATH, perturb=rs.GaussianNoise([1, 2])).dtype == dtype
    assert rs.follow(check, x, PATH).dtype == dtype
    assert torch.equal(x, kept)


def test_the_state_keeps_its_dtype_whatever_the_denoiser_and_the_noise_return():
    double = {"denoise": lambda x, sigma: shrink(x.double(), sigma), "perturb": lambda x, low, high: x.double()}
    out = rs.follow(x=torch.ones(2, 3), path=PATH, **double)
    assert out.dtype == torch.float32


def test_a_single_number_is_no_state():
    with pytest.raises(rs.InputError, match=r"the state is a single number; give a tensor \[B, \.\.\.\]"):
        rs.follow(shrink, torch.tensor(1.0), PATH)


def test_levels_that_the_process_does_not_have_are_refused():
    with pytest.raises(rs.InputError, match="up to level 3, and the highest of the process FLOW is 1"):
        rs.follow(shrink, torch.ones(2, 3), PATH, process=rs.FLOW)
    net = rs.from_flow(lambda x, t: x)
    with pytest.raises(rs.InputError, match=r"up to level 1\.27778, .* give levels, restarts and churn \(s_max\) that"):
        rs.sample(net, "18 churn=5", [0], (3,))
    rs.sample(net, "18 churn=5 s_max=0.7", [0], (3,))
    said = r"\[3,2,0\.6,3\]: t_max is above 1, .* well below it; these levels as sigma are \[3,2,0\.375,0\.75\]"
    with pytest.raises(rs.InputError, match=said):
        rs.sample(net, "18 [3,2,0.6,3]", [0], (3,))
    rs.sample(net, "18 [3,2,0.375,0.75]", [0], (3,))
    with pytest.raises(
        rs.InputError, match=r"\[3,1,2000,3000\]: t_max is above 1, .* well below it$"
    ):  # both are t = 1
        rs.sample(net, "18 [3,1,2000,3000]", [0], (3,))


def test_callback_reads_every_state():
    seen = []
    out = rs.follow(shrink, torch.ones(2, 3), PATH, callback=lambda index, move, x: seen.append((index, move, x)))
    assert [(index, move) for index, move, _ in seen] == list(enumerate(PATH.moves))
    assert seen[-1][2] is out


def test_nothing_is_kept_for_gradients():
    weight = torch.ones(3, requires_grad=True)
    states = []
    out = rs.follow(lambda x, sigma: weight * x, torch.ones(2, 3), PATH, callback=lambda _i, _m, x: states.append(x))
    assert not any(state.requires_grad for state in (*states, out))
    assert torch.is_grad_enabled()


def test_default_noise_is_torchs_global_generator():
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(rs.follow(shrink, torch.ones(2, 3), PATH))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_fall_between_levels_that_are_one_to_the_model_costs_calls_and_changes_nothing(name):
    def drawn(levels):
        calls = []
        path = (
            rs.ode_path(levels) if len(levels) == 6 else rs.restart_path(levels, (), round_level=lambda x: round(x, 1))
        )
        noise = rs.GaussianNoise([1])
        start = noise.start((3,), 8.0)
        out = rs.follow(lambda x, s: calls.append(s) or shrink(x, s), start, path, make_solver(name), perturb=noise)
        assert len(calls) == path.nfe(make_solver(name))
        return out, len(calls)

    (expected, cost), (out, more) = drawn([8.0, 4.0, 2.0, 1.0, 0.5, 0.0]), drawn([8.0, 4.0, 3.99, 2.0, 1.0, 0.5, 0.0])
    assert torch.equal(out, expected)
    assert more - cost == make_solver(name).evaluations(rs.Move(4.0, 4.0, left=4))
