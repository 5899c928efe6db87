"""The settings of restarts in all the forms that people have them in, and their timesteps and noise."""

import numpy as np
import pytest
import torch
from scheduler_runs import FLOW_PLAN, PLAN, network, run, start
from tiny_pipelines import SD, generators

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.sampling.solvers.by_name import SOLVERS
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

FORMS = [
    [[10, 2, 0.1, 2.0]],
    ((10, 2, 0.1, 2.0),),
    np.array([[10, 2, 0.1, 2.0]]),
    [np.array([10, 2, 0.1, 2.0])],
    [[np.int64(10), np.int32(2), np.float64(0.1), np.float32(2.0)]],
    torch.tensor([[10, 2, 0.1, 2.0]], dtype=torch.float64),
    [[10, 2, torch.tensor(0.1, dtype=torch.float64), torch.tensor(2.0)]],
    {"0": [10, 2, 0.1, 2.0]},
    {0.1: [10, 2, 2.0]},
    {"0.1": (10, 2, 2.0)},
    '{"0": [10, 2, 0.1, 2.0]}',
    "[10,2,0.1,2.0]",
    [["10", "2", "0.1", "2.0"]],
    [[10.0, 2.0, 0.1, 2.0]],
    [rs.RestartInterval(10, 2, 0.1, 2.0)],
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_is_the_same_restart_and_is_saved(form, tmp_path):
    scheduler = RestartScheduler(**SD, restart=form)
    scheduler.save_pretrained(tmp_path)
    assert RestartScheduler.from_pretrained(tmp_path).config.restart == scheduler.config.restart == [[10, 2, 0.1, 2.0]]


@pytest.mark.parametrize("form", [None, False, [], (), "", {}])
def test_none(form):
    scheduler = RestartScheduler(**SD, restart=form)
    scheduler.set_timesteps(12)
    assert not scheduler.path.rises


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"restart": [[10.9, 2, 0.1, 2.0]]}, "whose points are 10.9; give a whole number"),
        ({"restart": [[10, 2.9, 0.1, 2.0]]}, "whose repeats are 2.9; give a whole number"),
        ({"restart": [[float("inf"), 2, 0.1, 2.0]]}, "whose points are inf"),
        ({"restart": [[10, 2, None, 2.0]]}, "the number None"),
        ({"restart": [[10, 2, "a", 2.0]]}, "the number 'a'"),
        ({"restart": [[10, True, 0.1, 2.0]]}, "the number True"),
        ({"restart": True}, "restart is True"),
        ({"restart": 3}, "restart is 3"),
        ({"restart": ["1234"]}, "the entry 1234"),
        ({"restart": "10,2,0.1,2.0"}, "restart is '10,2,0.1,2.0'; give lists [points, repeats, t_min, t_max]"),
        ({"restart": "[10,2,0.1]"}, "has 3 entries"),
        ({"solver": None}, f"solver None does not exist; give one of {', '.join(SOLVERS)}, or with a setting"),
        ({"solver": "dpmpp"}, "solver 'dpmpp' does not exist; give one of euler, heun"),
        ({"solver": "unipc:order=2"}, "solver unipc has no setting 'order=2'; its settings: p"),
        ({"restart_solver": 3}, "solver 3 does not exist"),
        ({"euler_below": float("nan")}, "euler_below is nan"),
        ({"euler_below": -1.0}, "euler_below is -1.0"),
        ({"euler_below": None}, "euler_below is None"),
        ({"sigma_schedule": "linear"}, "sigma_schedule is 'linear'"),
    ],
)
def test_what_is_none_of_these_is_answered_in_a_sentence(settings, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")) as error:
        RestartScheduler(**SD, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_solvers_that_are_listed_work(solver):
    scheduler = RestartScheduler(**SD, solver=solver, restart=[[4, 2, 0.1, 2.0]], restart_budget="extra")
    assert run(scheduler, start(14), generator=generators([1, 2]), num_inference_steps=12)[-1].isfinite().all()


def lines(scheduler):
    """The timestep of each row beside the straight lines between the main grid's own pairs."""
    rows = [(call.level, time) for call, time in zip(scheduler._calls, scheduler.timesteps.tolist(), strict=True)]
    pairs = sorted(
        (level, time) for (level, time), call in zip(rows, scheduler._calls, strict=True) if not call.restart
    )
    scale = np.log if isinstance(scheduler, RestartScheduler) else np.array
    levels, times = map(list, zip(*rows, strict=True))
    return times, np.interp(scale(levels), scale([level for level, _ in pairs]), [time for _, time in pairs])


@pytest.mark.parametrize(
    "given",
    [
        {"timesteps": [1000, 750, 500, 250]},
        {"timesteps": [0.0, 250.0, 500.0, 750.0], "sigmas": [1.0, 0.75, 0.5, 0.25]},
        {"timesteps": [1000, 800, 500, 100], "sigmas": [0.9, 0.7, 0.4, 0.1]},
    ],
)
def test_timesteps_of_another_map_hold_inside_restarts(given):
    scheduler = FlowMatchRestartScheduler(shift=3.0, restart=[[4, 1, 0.45, 0.8]])
    scheduler.set_timesteps(**given)
    assert len(scheduler.timesteps) == 7
    np.testing.assert_allclose(*lines(scheduler), atol=1e-3)


@pytest.mark.parametrize("budget", ["calls", "extra"])
def test_the_timesteps_of_log_linear_hold_inside_restarts(budget):
    scheduler = RestartScheduler(
        **SD, interpolation_type="log_linear", restart=[[4, 1, 0.1, 2.0]], restart_budget=budget
    )
    scheduler.set_timesteps(30)
    np.testing.assert_allclose(*lines(scheduler), atol=0.5)


@pytest.mark.parametrize(("class_", "plan"), [(RestartScheduler, PLAN), (FlowMatchRestartScheduler, FLOW_PLAN)])
def test_without_a_generator_the_noise_follows_the_initial_latents(class_, plan):
    """Two runs are equal, an image does not depend on its batch, and other latents have other noise."""
    scheduler = class_(restart=plan)
    x = start(1.0 if class_ is FlowMatchRestartScheduler else 157.0)
    torch.manual_seed(1)
    first = run(scheduler, x, num_inference_steps=25)[-1]
    torch.manual_seed(2)
    assert torch.equal(run(scheduler, x, num_inference_steps=25)[-1], first)
    torch.testing.assert_close(run(scheduler, x[1:], num_inference_steps=25)[-1], first[1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        run(scheduler, x.flip(0), num_inference_steps=25)[-1], first.flip(0), atol=1e-5, rtol=1e-5
    )
    state = torch.get_rng_state()
    run(scheduler, x, num_inference_steps=25)
    assert torch.equal(torch.get_rng_state(), state)


def test_that_noise_is_standard_normal_and_differs_from_rise_to_rise():
    scheduler = FlowMatchRestartScheduler(restart=[[2, 3, 0.2, 0.9]])
    scheduler.set_timesteps(20)
    x = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = []
    for call, timestep in zip(scheduler._calls, scheduler.timesteps, strict=True):
        before = x
        x = scheduler.step(torch.zeros_like(x), timestep, x).prev_sample
        for low, high in call.rises:
            keep, std = rs.FLOW.rise(low, high)
            noise.append(((x - keep * before) / std).flatten(1))
    draws = torch.cat(noise)
    assert len(draws) == 6
    assert abs(draws.mean(dim=1)).max() < 4 / 128
    assert (draws.std(dim=1) - 1).abs().max() < 0.03
    assert (torch.corrcoef(draws) - torch.eye(6)).abs().max() < 5 / 128


def test_a_generator_goes_before_the_latents():
    scheduler = RestartScheduler(**SD, restart=PLAN)
    x = start(14)
    runs = [run(scheduler, x, generator=generators(seeds), num_inference_steps=25)[-1] for seeds in ([1, 2], [3, 4])]
    assert not torch.allclose(*runs)
    assert network(x, 1.0).shape == x.shape
