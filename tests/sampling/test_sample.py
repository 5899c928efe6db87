"""`rs.sample` and `rs.steps`: all of a plan holds, the noise is the net's, mistakes are refused."""

import math
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import restart_sampling as rs
from exact import gaussian, mixture
from tiny_model import tiny_model_file

FULL = (
    "9 [3,2,0.3,2] churn=1 gamma=0.05 s_min=0.1 s_max=3 s_noise=1.01 solver=dpmpp_2m restart_solver=dpm2 "
    "rho=5 sigma_min=0.01 sigma_max=50"
)


def by_hand(net, plan, seeds, **changes):
    """`follow` with all parts of a plan, or with some of them changed."""
    noise = rs.GaussianNoise(seeds, s_noise=plan.s_noise, process=net.process)
    path = plan.path(net.sigma_min, net.sigma_max)
    solver, restart_solver = plan.solvers
    parts = {"solver": solver, "restart_solver": restart_solver, "perturb": noise, **changes}
    return rs.follow(net, noise.start((3,), path.levels[0]), path, **parts)


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
def test_all_of_the_plan_holds(process):
    net, plan = mixture(process), rs.Plan.parse(FULL)
    if process is rs.FLOW:
        plan = plan.set("s_max=0.9")
        plan = replace(plan, intervals=(rs.RestartInterval(3, 2, 0.3, 0.8),))
    out = rs.sample(net, str(plan), range(64), (3,))
    assert torch.equal(out, by_hand(net, plan, range(64)))
    assert torch.equal(out, rs.sample(net, plan, range(64), (3,)))
    assert out.shape == (64, 3)
    assert out.dtype == torch.float64


def test_what_is_forgotten_by_hand_moves_the_images():
    """Without the plan's solver the images move by 0.1 and more, likewise without its s_noise."""
    net, plan = mixture(), rs.Plan.parse("8 [3,2,0.3,2] solver=euler s_noise=1.3")
    out = rs.sample(net, plan, range(64), (3,))
    no_solver = by_hand(net, plan, range(64), solver=rs.Heun(), restart_solver=rs.Heun())
    no_s_noise = by_hand(net, replace(plan, s_noise=1.0), range(64))
    assert torch.equal(out, by_hand(net, plan, range(64)))
    assert (out - no_solver).abs().mean() > 0.1
    assert (out - no_s_noise).abs().mean() > 0.1


def test_steps_end_where_sample_does():
    net = mixture()
    seen = list(rs.steps(net, FULL, range(5), (3,)))
    path = rs.Plan.parse(FULL).path()
    assert torch.equal(seen[-1].state, rs.sample(net, FULL, range(5), (3,)))
    assert [(step.index, step.move) for step in seen] == list(enumerate(path.moves))
    assert [step.level for step in seen] == list(path.levels[1:])
    for step in seen:
        if step.move.then == 0:  # the last estimate is where the state ends
            torch.testing.assert_close(step.x0, step.state)
    with pytest.raises(FrozenInstanceError):
        seen[0].state = None


def test_steps_show_the_denoisers_estimate():
    net = mixture()
    euler = list(rs.steps(net, "4 churn=1 solver=euler", range(5), (3,)))
    state = None
    for step in euler:
        if not step.move.rises:
            expected = net(state, torch.full((5,), step.move.now, dtype=torch.float64))
            assert torch.equal(step.x0, expected)
        state = step.state
    assert euler[0].move.rises
    assert euler[0].x0 is None


def test_gradients_are_the_callers():
    for _ in rs.steps(mixture(), "2", [1], (3,)):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("net", [mixture(), rs.from_edm(mixture(), 0.002, 80.0, D=64, dtype=torch.float64)])
def test_the_sample_of_a_seed_is_the_seeds_alone(net):
    together = rs.sample(net, FULL, [1, 2, 3], (3,))
    alone = rs.sample(net, FULL, [3], (3,))
    torch.testing.assert_close(alone[0], together[2])
    assert not torch.allclose(together[0], together[1])


def test_a_pfgmpp_net_gets_its_own_noise():
    net = rs.from_edm(mixture(), 0.002, 80.0, D=64, dtype=torch.float64)
    plan = rs.Plan.parse("9 [3,2,0.3,2] s_noise=1.01")
    noise = rs.PFGMppNoise(range(4), D=64, s_noise=1.01)
    expected = rs.follow(mixture(), noise.start((3,), 80.0), plan.path(), perturb=noise)
    assert torch.equal(rs.sample(net, plan, range(4), (3,)), expected)


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
def test_samples_have_the_spread_of_the_data(process):
    out = rs.sample(gaussian(process=process), "40 solver=unipc", range(10_000), (4,))
    assert out.std().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * out.numel()) + 1e-3)


def test_ve_noise_on_a_flow_is_refused():
    """Its samples had std 0.564 for 0.498."""
    net, noise = gaussian(process=rs.FLOW), rs.GaussianNoise(range(4))
    path = rs.ode_path(rs.power_grid(11, 1.0, 0.0, rho=1.0))
    x = noise.start((4,), 1.0)
    with pytest.raises(rs.InputError, match=r"one process: FLOW \(argument\), VE \(noise\), FLOW \(denoiser\)"):
        rs.follow(net, x, path, process=rs.FLOW, perturb=noise)
    with pytest.raises(rs.InputError, match=r"VE \(noise\), FLOW \(denoiser\)"):
        rs.follow(net, x, path, perturb=noise)
    with pytest.raises(rs.InputError, match=r"FLOW \(argument\), VE \(noise\)"):
        rs.follow(lambda x, t: x, x, path, process=rs.FLOW, perturb=noise)


def test_the_process_is_taken_from_the_noise_or_the_denoiser():
    path = rs.Plan.parse("6 [3,2,0.3,0.8]").path(sigma_max=1.0)
    x = torch.randn(4, 3, dtype=torch.float64)
    net = mixture(rs.FLOW)
    runs = [
        rs.follow(denoise, x, path, process=process, perturb=rs.GaussianNoise(range(4), process=rs.FLOW))
        for denoise in (net, lambda x, t: net(x, t))
        for process in (None, rs.FLOW)
    ]
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_seeds_are_checked_before_anything_is_computed():
    calls = []
    net = rs.from_edm(lambda x, sigma: calls.append(1), 0.002, 80.0)
    with pytest.raises(rs.InputError, match="a seed is given twice"):
        rs.steps(net, "4", [1, 2, 1], (3,))
    with pytest.raises(rs.InputError, match="a seed is given twice"):
        rs.steps(net, "4", torch.tensor([1, 1]), (3,))
    for seeds, message in (
        ([0.5], "seed = 0.5; give a whole number"),
        (["1"], "seed = '1'; give a whole number"),
        (torch.tensor([1.0]), "seed = tensor.*; give a whole number"),
        ({1, 2}, "the seeds are of type set; give a list"),
        (3, "the seeds are of type int; give a list"),
        (torch.tensor(3), "the seeds are of type Tensor; give a list"),
    ):
        for draw in (rs.steps, rs.sample):
            with pytest.raises(rs.InputError, match=message):
                draw(net, "4", seeds, (3,))
    for shape in ((), (0,), 2, (2.0,), (-1, 2), "3"):
        with pytest.raises(rs.InputError, match=r"the shape of a sample is .*; give whole numbers above 0"):
            rs.steps(net, "4", [1], shape)
    with pytest.raises(rs.InputError, match="seed -1 is out of range"):
        rs.steps(net, "4", [-1], (3,))
    with pytest.raises(rs.InputError, match="unknown key 'solvr'"):
        rs.steps(net, "4 solvr=euler", [1], (3,))
    with pytest.raises(rs.InputError, match="the net is a function; make one of a network by what it predicts"):
        rs.steps(lambda x, t: x, "4", [1], (3,))
    with pytest.raises(rs.InputError, match="not one of the model's"):
        rs.steps(net, "1 grid=100/0", [1], (3,))
    assert not calls


def test_seeds_of_a_generator_are_those_of_its_list():
    net = mixture()
    expected = rs.sample(net, "4", [5, 3, 4], (3,))
    assert torch.equal(rs.sample(net, "4", (seed for seed in (5, 3, 4)), (3,)), expected)
    assert torch.equal(list(rs.steps(net, "4", iter([5, 3, 4]), torch.Size([3])))[-1].state, expected)


def test_samples_are_where_the_net_is_whatever_the_default_device():
    exact = mixture()
    net = rs.from_edm(exact, 0.002, 80.0, dtype=torch.float64, device="cpu")
    expected = rs.sample(net, "4 [3,1,0.3,2] solver=ddpm", range(3), (3,))
    with torch.device("meta"):
        out = rs.sample(net, "4 [3,1,0.3,2] solver=ddpm", range(3), (3,))
        drawn = exact.draw(2)
    assert out.device.type == drawn.device.type == "cpu"
    assert torch.equal(out, expected)


@pytest.mark.parametrize("plan", [18, None, Path("plan.json"), ["18"]])
def test_what_is_no_plan_is_refused(plan):
    with pytest.raises(rs.InputError, match=r"the plan is .*; give a Plan, or its text"):
        rs.sample(mixture(), plan, [0], (3,))


def test_samples_that_are_not_finite_are_refused():
    net = rs.from_edm(lambda x, sigma: torch.where(torch.arange(len(x))[:, None] == 1, math.nan, x), 0.002, 80.0)
    with pytest.raises(rs.InputError, match="the sample of seed 8 is not finite with plan '2'"):
        rs.sample(net, "2", [7, 8, 9], (3,))


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda x, sigma: torch.tensor(0.0), r"a tensor \[\]"),
        (lambda x, sigma: x[:, :1], r"a tensor \[2, 1\]"),
        (lambda x, sigma: x[None], r"a tensor \[1, 2, 3\]"),
        (lambda x, sigma: 0.0, "a float"),
    ],
)
@pytest.mark.parametrize("solver", [rs.Heun(), rs.UniPC()])
def test_an_answer_of_another_shape_is_refused(answer, named, solver):
    with pytest.raises(rs.InputError, match=rf"the denoiser returned {named} for states \[2, 3\]"):
        rs.follow(answer, torch.ones(2, 3), rs.ode_path([1.0, 0.0]), solver)
    path, noisy = rs.NoisePath.through([1.0, 2.0, 0.0]), rs.make_solver("ddpm")
    for steps, own in (path, solver), (rs.ode_path([2.0, 1.0, 0.0]), noisy):
        with pytest.raises(rs.InputError, match=rf"perturb returned {named} for states \[2, 3\]"):
            rs.follow(lambda x, sigma: x, torch.ones(2, 3), steps, own, perturb=lambda x, low, high: answer(x, low))


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return rs.load_model(tiny_model_file(tmp_path_factory.mktemp("model") / "model.safetensors"))


LABELS = {
    "one for all": (torch.tensor([1]), "class labels of 1 sample are given for 2 seeds"),
    "one row for all": (torch.eye(4)[:1], "class labels of 1 sample are given for 2 seeds"),
    "a row too many": (torch.eye(4)[:3], "class labels of 3 samples are given for 2 seeds"),
    "a scalar": (torch.tensor(1), r"the shape \[\]; it can be \[B\]"),
    "rows of another width": (torch.eye(5)[:2], r"the shape \[2, 5\]; it can be \[B\]"),
    "numbers above": (torch.tensor([0, 4]), "give class numbers, int64 .* from 0 to 3"),
    "numbers below": (torch.tensor([0, -1]), "give class numbers, int64 .* from 0 to 3"),
    "floats": (torch.tensor([0.0, 1.0]), "give class numbers, int64 .* from 0 to 3"),
    "truth values": (torch.tensor([True, False]), "give class numbers, int64 .* from 0 to 3"),
    "a list": ([0, 1], "of type list; give a tensor"),
    "NaN": (torch.full((2, 4), math.nan), "from nan to nan; give one-hot rows"),
    "one NaN": (torch.tensor([[0, 1, 0, 0], [0, math.nan, 0, 1]]), "give one-hot rows, of values from 0 to 1"),
    "scores": (2 * torch.eye(4)[:2], "values from 0 to 2; give one-hot rows"),
    "negative": (-torch.eye(4)[:2], "values from -1 to -0; give one-hot rows"),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("wrap", [lambda net: net, rs.clipped], ids=["checkpoint", "clipped"])
def test_class_labels_that_do_not_fit_are_refused(case, wrap, conditional):
    labels, message = LABELS[case]
    with pytest.raises(rs.InputError, match=message):
        rs.sample(wrap(conditional), "2", [0, 1], (3, 8, 8), class_labels=labels)


@pytest.mark.parametrize("wrap", [lambda net: net, rs.clipped], ids=["checkpoint", "clipped"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 8, 8), (3,), (3, 8), (1, 3, 8, 8)])
def test_a_shape_of_other_channels_than_the_checkpoints_is_refused(shape, wrap, conditional):
    net, said = wrap(conditional), r"images of the checkpoint have 3 channels; give .*, such as \(3, 8, 8\)"
    for draw in (rs.sample, rs.steps):
        with pytest.raises(rs.InputError, match=said):
            draw(net, "2", [0], shape)
    if len(shape) == 3:
        with pytest.raises(rs.InputError, match=said):
            rs.generate(net, "2", [0], shape=shape)
    assert rs.sample(net, "2", [0], (3, 16, 16)).shape == (1, 3, 16, 16)


def test_class_labels_of_an_unconditional_model_are_refused(tmp_path):
    net = rs.load_model(tiny_model_file(tmp_path / "model.safetensors", label_dim=0))
    for labels in torch.tensor([0, 0]), torch.zeros(2, 0):
        with pytest.raises(rs.InputError, match=r"the model is unconditional .*: leave them out"):
            rs.sample(net, "2", [0, 1], (3, 8, 8), class_labels=labels)


def test_class_labels_that_fit_are_taken(conditional):
    draw = partial(rs.sample, conditional, "2", [0, 1], (3, 8, 8))
    numbers = draw(class_labels=torch.tensor([1, 3]))
    for rows in torch.eye(4), torch.eye(4, dtype=torch.int64), torch.eye(4, dtype=torch.bool):
        assert torch.equal(draw(class_labels=rows[[1, 3]]), numbers)
    assert torch.equal(draw(class_labels=None), draw(class_labels=torch.zeros(2, 4)))


def test_a_function_of_ones_own_takes_any_labels():
    seen = []

    def network(x, t, class_labels):
        seen.append(class_labels)
        return x / 2

    net = rs.from_edm(network, 0.002, 80, label_dim=4)
    for labels in torch.tensor([4, 9]), "a cat", torch.full((1, 7), math.nan):
        rs.sample(net, "1 solver=euler", [0, 1], (2,), class_labels=labels)
        assert seen.pop() is labels
