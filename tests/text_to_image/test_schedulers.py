"""The schedulers alone: their rows, diffusers' schedulers where there is no restart, and the library's `sample`."""

import pickle
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
)
from scheduler_runs import FLOW_PLAN, PLAN, network, run, start, ticks
from tiny_pipelines import SD, generators

import restart_sampling as rs
from exact import RungeKutta4
from restart_sampling.base.errors import InputError
from restart_sampling.sampling.solvers import by_name
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "spacing",
    [
        {},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"interpolation_type": "log_linear"},
    ],
)
@pytest.mark.parametrize(("solver", "diffusers"), [("heun", HeunDiscreteScheduler), ("euler", EulerDiscreteScheduler)])
def test_without_restart_it_is_diffusers_own_scheduler(solver, diffusers, spacing, prediction):
    if solver == "heun" and "interpolation_type" in spacing:
        pytest.skip("HeunDiscreteScheduler has no interpolation_type")
    config = {**SD, **spacing, "prediction_type": prediction}
    theirs, ours = diffusers(**config), RestartScheduler(**config, solver=solver)
    expected, result = run(theirs, start(14), num_inference_steps=12), run(ours, start(14), num_inference_steps=12)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert ours.order == theirs.order
    assert float(ours.init_noise_sigma) == pytest.approx(float(theirs.init_noise_sigma))
    torch.testing.assert_close(result[-1], expected[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("solver", "diffusers"),
    [("heun", FlowMatchHeunDiscreteScheduler), ("euler", FlowMatchEulerDiscreteScheduler)],
)
def test_without_restart_the_flow_scheduler_is_diffusers_own(solver, diffusers):
    ours = FlowMatchRestartScheduler(shift=3.0, solver=solver)
    expected = run(diffusers(shift=3.0), start(), num_inference_steps=12)
    torch.testing.assert_close(run(ours, start(), num_inference_steps=12)[-1], expected[-1], atol=1e-4, rtol=0)


@pytest.fixture(autouse=True)
def new_solvers(monkeypatch):
    monkeypatch.setitem(by_name.SOLVERS, "rk4", RungeKutta4)


SOLVERS = [
    ("heun", None),
    ("rk4", None),
    ("euler", "rk4"),
    ("euler", "heun"),
    ("heun", "euler"),
    ("midpoint", None),
    ("dpm2", "dpm3"),
    ("ddim:eta=0.5", "heun"),
    ("ddpm", None),
    ("dpmpp_2m", None),
    ("unipc", "dpmpp_2m"),
    ("unipc:p=2", None),
    ("deis", "ab:order=2"),
    ("euler", "dpmpp_3m"),
    ("ab", "heun"),
    ("ipndm", None),
    ("sde_dpmpp_2m", None),
    ("dpmpp_2m", "sde_dpmpp_2m"),
    ("sa:high=20", "unipc"),
]


def test_every_solver_that_a_wrong_name_is_told_of_is_tried():
    """A solver that is new in the library is also one of the schedulers."""
    tried = {text.partition(":")[0] for pair in SOLVERS for text in pair if text}
    with pytest.raises(InputError) as error:
        RestartScheduler(solver="rk9")
    assert {*re.search("give one of (.*), or with", str(error.value))[1].split(", ")} == tried


@pytest.mark.parametrize(("solver", "restart_solver"), SOLVERS)
@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=lambda process: process.name)
def test_with_restarts_it_is_the_librarys_own_sample(process, solver, restart_solver):
    class_, plan = {"VE": (RestartScheduler, PLAN), "FLOW": (FlowMatchRestartScheduler, FLOW_PLAN)}[process.name]
    schedule = SD if process is rs.VE else {"shift": 3.0}
    settings = {"solver": solver, "restart_solver": restart_solver, "restart_budget": "extra"}
    scheduler = class_(**schedule, restart=plan, **settings)
    plain = class_(**schedule, solver="euler")
    plain.set_timesteps(12)
    levels = plain.sigmas.tolist()
    times = {}

    def denoise(x, sigma):
        level = sigma[0].item()
        output = network(x / (level**2 + 1) ** 0.5, times[level]) if process is rs.VE else network(x, times[level])
        return x - level * output

    x = start(process.std(levels[0]))
    states = run(scheduler, x, generator=generators([3, 4]), num_inference_steps=12)
    path = rs.restart_path(levels, [rs.RestartInterval(*each) for each in plan])
    main, restart = rs.make_solver(solver), rs.make_solver(restart_solver or solver)
    assert scheduler.path == path
    assert len(scheduler.timesteps) == path.nfe(main, restart) == path.nfe(*scheduler.solvers)
    times.update(zip([call.level for call in scheduler._calls], scheduler.timesteps.tolist(), strict=True))
    noise = generators([3, 4])

    def perturb(x, low, high):
        keep, std = process.rise(low, high)
        return keep * x + std * torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in noise])

    expected = rs.follow(denoise, x, path, main, restart, process, perturb)
    torch.testing.assert_close(states[-1], expected, atol=1e-4, rtol=1e-5)  # VE's states are as large as 40


def test_timesteps_of_restart_levels_are_interpolated_as_in_diffusers():
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]])
    scheduler.set_timesteps(20)
    levels, times = scheduler.sigmas[:-1].numpy(), scheduler.timesteps.numpy()
    training = np.log(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy())
    np.testing.assert_allclose(np.interp(times, np.arange(1000), training), np.log(levels), atol=2e-3)


@pytest.mark.parametrize("solver", ["heun", "euler", "midpoint", "dpm3", "unipc"])
@pytest.mark.parametrize("restart", [[], [[4, 2, 0.1, 2.0]], [[4, 1, 0.1, 2.0]]])
@pytest.mark.parametrize("restart_solver", ["heun", "euler"])
@pytest.mark.parametrize("steps", [25, 40])
@pytest.mark.parametrize("budget", [None, "inside", "extra"])
def test_the_bar_of_a_pipeline_ends_at_the_number_of_steps(solver, restart, restart_solver, steps, budget):
    scheduler = RestartScheduler(
        **SD, restart=restart, solver=solver, restart_solver=restart_solver, restart_budget=budget
    )
    scheduler.set_timesteps(steps)
    assert ticks(scheduler, steps) == steps
    rows = len(scheduler.timesteps)
    one = {"heun": 2, "euler": 1, "midpoint": 2, "dpm3": 3, "unipc": 1}[solver]
    assert rows <= one * steps or budget == "extra"
    if budget != "inside":
        scheduler.set_timesteps(sigmas=[14.0, 8.0, 4.0, 2.5, 1.0, 0.5, 0.1, 0.0])
        assert scheduler.num_inference_steps == len(scheduler.timesteps) == ticks(scheduler, len(scheduler.timesteps))


def test_own_sigmas_inside_the_budget_are_spread_anew():
    sigmas = [*np.geomspace(14, 0.03, 30).tolist(), 0.0]
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]], solver="heun", restart_budget="inside")
    scheduler.set_timesteps(sigmas=sigmas)
    assert len(scheduler.timesteps) == 59
    assert scheduler.sigmas[0] == 14
    assert (scheduler.order, scheduler.num_inference_steps) == (1, 59)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_half_precision(class_, dtype):
    flow = class_ is FlowMatchRestartScheduler
    scheduler = class_(restart=FLOW_PLAN if flow else PLAN)
    x = start(1.0 if flow else 157.0)
    exact = run(scheduler, x, generator=generators([1, 2]), num_inference_steps=25)[-1]
    result = run(scheduler, x.to(dtype), generator=generators([1, 2]), num_inference_steps=25)[-1]
    assert result.dtype == dtype
    assert (result.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_attribute_generator_serves_where_step_is_given_none():
    scheduler = FlowMatchRestartScheduler(restart=FLOW_PLAN)
    runs = []
    for seeds in ([1, 2], [1, 2], [2]):
        scheduler.generator = generators(seeds)
        runs.append(run(scheduler, start()[-len(seeds) :], num_inference_steps=25)[-1])
    assert torch.equal(runs[0], runs[1])
    torch.testing.assert_close(runs[2][0], runs[0][1], atol=1e-6, rtol=0)
    assert not torch.allclose(
        run(scheduler, start(), generator=generators([5, 6]), num_inference_steps=25)[-1], runs[0]
    )


@pytest.mark.parametrize("copy", [deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
@pytest.mark.parametrize(
    "first",
    [
        RestartScheduler(**SD, restart=PLAN, restart_grid="timesteps", solver="heun"),
        FlowMatchRestartScheduler(restart=FLOW_PLAN, solver="heun"),
    ],
)
def test_a_copy_goes_on_by_itself(first, copy):
    """In the middle of a step, with the state of its generators."""
    first.generator = generators([1, 2])
    first.set_timesteps(25)
    x = start(float(first.sigmas[0]))
    for timestep in first.timesteps[:12]:
        first.scale_model_input(x, timestep)
        x = first.step(network(x, timestep), timestep, x).prev_sample
    second = copy(first)
    ends = []
    for scheduler in (first, second):
        state = x
        for timestep in scheduler.timesteps[12:]:
            state = scheduler.step(network(state, timestep), timestep, state).prev_sample
        ends.append(state)
    assert torch.equal(*ends)
