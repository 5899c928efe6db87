"""Multistep solvers in the schedulers: diffusers' where there is no restart, and what a run may do to their memory."""

import pytest
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from scheduler_runs import FLOW_PLAN, PLAN, network, run, start
from tiny_pipelines import SD, generators

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

THEIRS = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "sde_dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc:p=2": (UniPCMultistepScheduler, {"solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 3}),
    "deis:order=2": (DEISMultistepScheduler, {"solver_order": 2}),
    "deis": (DEISMultistepScheduler, {"solver_order": 3}),
}
LEVELS = {  # sigma, and t of a flow; none so many that diffusers leaves its lower orders at the end out
    "sigma": [14.0, 8.0, 5.0, 3.0, 1.8, 1.1, 0.7, 0.4, 0.2, 0.06, 0.0],
    "flow": [0.98, 0.9, 0.8, 0.68, 0.55, 0.42, 0.3, 0.2, 0.1, 0.04, 0.0],
}


def ours(kind, **settings):
    return RestartScheduler(**SD, **settings) if kind == "sigma" else FlowMatchRestartScheduler(**settings)


def begin(scheduler, kind):
    """Sets the levels of this kind; the flow scheduler's `sigmas` are without the last 0."""
    scheduler.set_timesteps(sigmas=LEVELS[kind] if kind == "sigma" else LEVELS[kind][:-1])


def theirs_like(scheduler, kind, solver):
    """diffusers' scheduler on the levels and timesteps of ours; its states are ours over sqrt(1 + sigma^2), or ours."""
    class_, settings = THEIRS[solver]
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if kind == "flow" else SD
    theirs = class_(**flow, **settings)
    theirs.set_timesteps(len(scheduler.timesteps))
    theirs.timesteps, theirs.sigmas = scheduler.timesteps.clone(), scheduler.sigmas.clone()
    return theirs


def states(scheduler, x, first=0, change=lambda row, x: x, scale=lambda row: 1.0, **more):
    """A run from a row on, with a callback on its unscaled states."""
    scheduler.set_begin_index(first)
    seen = []
    for row, timestep in enumerate(scheduler.timesteps[first:], first):
        seen.append(x)
        output = network(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, **more).prev_sample
        x = change(row, x * scale(row + 1)) / scale(row + 1)
    return [*seen, x]


def scales(levels):
    """From the states of diffusers' multistep schedulers to ours."""
    return lambda row: (1 + levels[row] ** 2) ** 0.5


def shifted(row, x):
    """What an inpainting pipeline does: a part of the sample is another one."""
    x = x.clone()
    x[:, :, :4] = 0.5 * x[:, :, :4] + 0.1 * row
    return x


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("solver", THEIRS)
@pytest.mark.parametrize("first", [0, 4])
def test_without_restart_it_is_diffusers_own_scheduler(solver, kind, first):
    """Also from a later row on, where the memory is empty (SDXL's refiner)."""
    scheduler = ours(kind, solver=solver)
    begin(scheduler, kind)
    theirs = theirs_like(scheduler, kind, solver)
    scale = scales(LEVELS[kind]) if kind == "sigma" else lambda row: 1.0
    x = start(LEVELS[kind][first])
    result = states(scheduler, x, first, generator=torch.Generator().manual_seed(1))
    noise = {"generator": torch.Generator().manual_seed(1)} if solver == "sde_dpmpp_2m" else {}
    expected = states(theirs, x / scale(first), first, **noise)
    last = len(expected) - (2 if "deis" in solver else 1)  # diffusers' DEIS is another one in the step to 0
    for row in range(last + 1):
        torch.testing.assert_close(result[row], expected[row] * scale(first + row), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "deis"])
def test_a_callback_that_changes_the_sample_is_followed_as_in_diffusers(solver, kind):
    scheduler = ours(kind, solver=solver)
    begin(scheduler, kind)
    theirs = theirs_like(scheduler, kind, solver)
    scale = scales(LEVELS[kind]) if kind == "sigma" else lambda row: 1.0
    x = start(LEVELS[kind][0])
    result = states(scheduler, x, change=shifted)
    expected = states(theirs, x / scale(0), change=shifted, scale=scale)
    torch.testing.assert_close(result[-2], expected[-2] * scale(len(expected) - 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", ["heun", "dpm3", "ddpm", "dpmpp_2m", "unipc", "ab", "sa:high=20"])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_with_restarts_a_changed_sample_is_what_the_solver_goes_on_from(class_, solver):
    """As the library's solver does where a loop hands it another state than it returned, or evaluates another one."""
    flow = class_ is FlowMatchRestartScheduler
    scheduler = class_(solver=solver, restart=FLOW_PLAN if flow else PLAN, restart_budget="extra")
    scheduler.set_timesteps(12)
    process, x = scheduler.process, start(scheduler.sigmas[0].item())
    result = states(scheduler, x, change=shifted, generator=generators([3, 4]))
    times, row, begins = scheduler.timesteps.tolist(), -1, True
    noise = generators([3, 4])

    def denoise(x, level):
        nonlocal row, begins
        level = level[0].item()
        seen = x if begins else shifted(row, x)
        row, begins = row + 1, False
        return x - level * network(seen if flow else seen / (1 + level**2) ** 0.5, times[row])

    def raised(x, low, high):
        keep, std = process.rise(low, high)
        return keep * x + std * torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in noise])

    library, memory = rs.make_solver(solver), None
    for move, after in zip(scheduler.path.moves, [*scheduler.path.moves[1:], None], strict=True):
        if move.rises:
            x, memory = raised(x, move.now, move.then), None
        else:
            begins = True
            x, memory = library.step(denoise, x, move, memory, process)
            landing = library.landing(move, process)
            x = raised(x, landing, move.then) if landing < move.then else x
        if after is None or not after.rises:
            x = shifted(row, x)
    torch.testing.assert_close(result[-1], x, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_image_to_image_follows_the_librarys_loop_from_where_it_begins(solver):
    scheduler = RestartScheduler(**SD, solver=solver, restart=[[4, 2, 0.1, 2.0]])
    scheduler.set_timesteps(25)
    scheduler.set_begin_index(10)
    x = scheduler.add_noise(start(), start(), scheduler.timesteps[10:11])
    result = states(scheduler, x, 10, generator=generators([3, 4]))
    assert len(result) == 16
    levels, times = scheduler.sigmas[10:].tolist(), iter(scheduler.timesteps[10:].tolist())
    noise = generators([3, 4])
    expected = rs.follow(
        lambda x, level: x - level[0] * network(x / (1 + level[0] ** 2).float() ** 0.5, next(times)).float(),
        x,
        scheduler.path,
        rs.make_solver(solver),
        perturb=lambda x, low, high: (
            x + (high**2 - low**2) ** 0.5 * torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in noise])
        ),
    )
    assert scheduler.path.levels[0] == pytest.approx(levels[0])
    torch.testing.assert_close(result[-1], expected.float(), atol=1e-4, rtol=1e-5)


def test_a_run_from_a_later_row_leaves_the_rows_of_others_as_they_are():
    scheduler = RestartScheduler(**SD, solver="unipc")
    begin(scheduler, "sigma")
    x = start(14)
    whole = states(scheduler, x)
    states(scheduler, start(1), 4)
    assert torch.equal(states(scheduler, x)[-1], whole[-1])


def test_a_level_that_comes_again_is_not_remembered_twice():
    once, twice = (RestartScheduler(**SD, solver="unipc") for _ in range(2))
    begin(once, "sigma")
    levels = LEVELS["sigma"]
    twice.set_timesteps(sigmas=[*levels[:4], *levels[3:]])
    x = start(14)
    torch.testing.assert_close(states(twice, x)[-1], states(once, x)[-1], atol=1e-5, rtol=0)


def test_a_step_that_is_made_twice_is_that_of_the_second_call():
    """As Cosmos's pipelines make it, for the preview of the first."""
    scheduler = RestartScheduler(**SD, solver="unipc")
    begin(scheduler, "sigma")
    x = start(14)
    expected = states(scheduler, x)[-1]
    scheduler.set_begin_index(0)
    for timestep in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, timestep), timestep)
        scheduler.step(output + 1, timestep, x)
        scheduler._step_index -= 1
        x = scheduler.step(output, timestep, x).prev_sample
    assert torch.equal(x, expected)


def test_another_batch_in_the_middle_of_a_run_is_refused():
    scheduler = RestartScheduler(**SD, solver="dpmpp_2m")
    begin(scheduler, "sigma")
    x = start(14)
    scheduler.scale_model_input(x, scheduler.timesteps[0])
    x = scheduler.step(x, scheduler.timesteps[0], x).prev_sample[:1]
    with pytest.raises(
        InputError, match=r"the sample is \[1, 4, 8, 8\], .* of the steps before, .* \[2, 4, 8, 8\]; keep"
    ):
        scheduler.step(x, scheduler.timesteps[1], x)


def test_a_run_from_before_the_rows_that_were_laid_out_is_refused():
    """They end at the level where an image-to-image run begins."""
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]])
    scheduler.set_timesteps(20)
    scheduler.set_begin_index(8)
    scheduler.add_noise(start(), start(), scheduler.timesteps[8:9])
    scheduler.set_begin_index(0)
    with pytest.raises(
        InputError, match="laid out for a start at row 8, and the run begins at row 0; call set_timesteps"
    ):
        scheduler.scale_model_input(start(), scheduler.timesteps[0])


@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_a_saved_scheduler_has_its_solvers_again(class_, tmp_path):
    plan = FLOW_PLAN if class_ is FlowMatchRestartScheduler else PLAN
    scheduler = class_(solver="unipc:p=2", restart_solver="sde_dpmpp_2m", restart=plan, restart_budget="extra")
    scheduler.save_pretrained(tmp_path)
    loaded = class_.from_pretrained(tmp_path)
    assert loaded.solvers == scheduler.solvers == (rs.make_solver("unipc:p=2"), rs.make_solver("sde_dpmpp_2m"))
    x = start(157)
    runs = [run(each, x, generator=generators([1, 2]), num_inference_steps=12)[-1] for each in (scheduler, loaded)]
    assert torch.equal(*runs)
    assert scheduler.num_inference_steps == 12


def test_no_more_is_kept_than_a_later_step_needs():
    scheduler = RestartScheduler(**SD, solver="unipc")
    begin(scheduler, "sigma")
    states(scheduler, start(14))
    assert max(len(call.needs) for call in scheduler._calls) == 6  # its own three, and x0 of the three before
    assert len(scheduler._memory) == 1  # x0 alone, where the last step goes to 0
