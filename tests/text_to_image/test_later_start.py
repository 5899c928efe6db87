"""A run that does not begin at the first row: with data noised up to its level, or with a sample from elsewhere."""

import numpy as np
import pytest
import torch
from scheduler_runs import run, start
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler


def begin_with_noise(scheduler, row):
    """What image-to-image pipelines do: the level that the data are brought to, and those of the rows from there on."""
    scheduler.set_begin_index(row)
    data = torch.zeros(1, 4, 8, 8)
    noised = scheduler.add_noise(data, torch.ones_like(data), scheduler.timesteps[row][None])
    return noised.max().item(), scheduler.sigmas[row:]


@pytest.mark.parametrize("budget", ["inside", "extra"])
@pytest.mark.parametrize("solver", ["heun", "euler", "midpoint", "dpm3"])
@pytest.mark.parametrize("strength", [0.9, 0.5, 0.4])
def test_a_later_start_never_rises_above_its_level(strength, solver, budget):
    steps = 50
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 0.1, 2.0]], solver=solver, restart_budget=budget)
    plain = RestartScheduler(**SD, solver="euler")
    scheduler.set_timesteps(steps)
    plain.set_timesteps(steps)
    first = steps - int(steps * strength)
    held = scheduler.timesteps[first * scheduler.order :]
    level, levels = begin_with_noise(scheduler, first * scheduler.order)
    assert level == levels[0] == levels.max() == plain.sigmas[first]
    assert (levels.diff() > 0).any()
    assert torch.equal(held, scheduler.timesteps[first * scheduler.order :])
    assert held[0] == plain.timesteps[first]
    assert len(levels) == len(held) + 1


def test_a_call_that_is_left_over_changes_nothing():
    """Heun's extra restarts leave an even number of calls, of which a path to 0 needs an odd one."""
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 0.1, 2.0]], solver="heun", restart_budget="extra")
    scheduler.set_timesteps(50)
    row = 25 if (len(scheduler.timesteps) - 25) % 2 == 0 else 26
    _, levels = begin_with_noise(scheduler, row)
    x = start(float(levels[0]))
    assert levels[0] == levels[1]
    scheduler.scale_model_input(x, scheduler.timesteps[row])
    assert torch.equal(scheduler.step(torch.ones_like(x), scheduler.timesteps[row], x).prev_sample, x)
    assert not torch.equal(scheduler.step(torch.ones_like(x), scheduler.timesteps[row + 1], x).prev_sample, x)


@pytest.mark.parametrize("strength", [0.3, 0.45, 0.5, 0.6, 0.75, 0.8, 0.9])
@pytest.mark.parametrize("steps", [20, 28, 50])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_a_pipeline_that_counts_rows_begins_where_it_would_without_restarts(class_, steps, strength):
    """FLUX passes its own levels; the strength that it rounds to a row is found again."""
    flow = class_ is FlowMatchRestartScheduler
    sigmas = np.linspace(1, 1 / steps, steps) if flow else np.array([*np.geomspace(14, 0.03, steps), 0])
    scheduler, plain = class_(restart=[[4, 1, 0.1, 0.2]], solver="euler"), class_(solver="euler")
    starts = []
    for each in (scheduler, plain):
        each.set_timesteps(sigmas=sigmas)
        rows = len(each.timesteps)
        row = int(rows - rows * strength) if flow else rows - int(rows * strength)
        each.set_begin_index(row)
        data = torch.zeros(1, 4, 8, 8)
        order = (each.timesteps[row][None], torch.ones_like(data))
        (each.scale_noise if flow else each.add_noise)(data, *(order if flow else order[::-1]))
        starts.append(each.sigmas[row].item())
    assert starts[0] == starts[1]


def test_a_start_below_all_restarts_has_none():
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 1.0, 2.0]], solver="heun")
    scheduler.set_timesteps(50)
    _, levels = begin_with_noise(scheduler, 2 * 40)
    assert (levels.diff() <= 0).all()


def test_a_restart_that_would_begin_at_the_start_is_left_out():
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 2.0, 3.0]], solver="euler", restart_budget="extra")
    scheduler.set_timesteps(50)
    row = int((scheduler.sigmas[:30] - 2.0).abs().argmin())
    _, levels = begin_with_noise(scheduler, row)
    assert (levels.diff() <= 0).all()


@pytest.mark.parametrize(
    ("points", "settings", "steps", "begin", "said"),
    [
        (10, {"solver": "heun"}, 50, 2 * 40, r"take 37 evaluations .* 19 in all"),
        (4, {"restart_budget": "extra"}, 20, 20, "strength leaves no step"),
    ],
)
def test_a_strength_that_leaves_too_little_is_refused(points, settings, steps, begin, said):
    scheduler = RestartScheduler(**SD, restart=[[points, 2, 0.1, 2.0]], **settings)
    scheduler.set_timesteps(steps)
    with pytest.raises(InputError, match=said):
        begin_with_noise(scheduler, begin)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_a_sample_that_was_not_noised_here_cannot_enter_within_or_before_a_restart(solver, within):
    scheduler = RestartScheduler(**SD, restart=[[10, 2, 0.1, 2.0]], solver=solver)
    scheduler.set_timesteps(50)
    row = next(row for row, call in enumerate(scheduler._calls) if (call.restart if within else call.level < 2.0))
    scheduler.set_begin_index(row)
    with pytest.raises(InputError, match="wholly above or wholly below"):
        scheduler.scale_model_input(start(), scheduler.timesteps[row])


def test_a_sample_cannot_enter_in_the_middle_of_a_step():
    scheduler = RestartScheduler(**SD, solver="midpoint")
    scheduler.set_timesteps(12)
    scheduler.set_begin_index(5)
    with pytest.raises(InputError, match="in the middle of a step"):
        scheduler.scale_model_input(start(), scheduler.timesteps[5])


def test_a_row_in_the_middle_of_a_heun_step_leaves_the_sample():
    scheduler = RestartScheduler(**SD, solver="heun")
    x = start(3)
    states = run(scheduler, x, begin=5, num_inference_steps=12)
    assert torch.equal(states[1], x)
    assert torch.equal(states[-1], run(scheduler, x, begin=6, num_inference_steps=12)[-1])
