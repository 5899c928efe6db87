"""Presets: the authors' timesteps, and AUTOMATIC1111's rule."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from scheduler_runs import ticks
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import RestartScheduler, guidance_preset, steps_preset

# The authors' pipeline: main timesteps, and for each restart the one where it begins and round(linspace(t_max, t_min)),
# halves to even.
MAIN = [33 * i + 1 for i in reversed(range(30))]
PRESETS = {
    2: (62, {793: [934, 899, 864, 828, 793], 364: [914, 776, 639, 502, 364]}),
    3: (64, {1: [673, 598, 524, 449, 374, 300, 225, 150, 76, 1]}),
    5: (64, {1: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]}),
    8: (64, {1: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]}),
}


@pytest.mark.parametrize("guidance", PRESETS)
def test_guidance_presets_have_the_originals_timesteps(guidance):
    scheduler = RestartScheduler.from_config(DDIMScheduler(**SD).config, **guidance_preset(guidance))
    scheduler.set_timesteps(30)
    evaluations, restarts = PRESETS[guidance]
    expected = []
    for time in MAIN:
        for _ in range(2 if time in restarts else 0):
            high, *inner, low = restarts[time]  # Heun's correction is where a step ends, but not at timestep 1
            expected += [high, *(t for t in inner for _ in range(2)), *([low] if low > 1 else [])]
        expected.append(time)
    assert len(scheduler.timesteps) == evaluations
    assert scheduler.timesteps.tolist() == expected
    assert float(scheduler.sigmas[-1]) == pytest.approx(0.0292, abs=5e-5)  # timestep 0
    assert ticks(scheduler, 30) == 30


@pytest.mark.parametrize("other", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
@pytest.mark.parametrize("preset", [guidance_preset(7.5), guidance_preset(7.5, 25), steps_preset(25)])
def test_presets_have_their_grid_whatever_the_pipelines_config_has(preset, other):
    levels = []
    for settings in ({}, {other: True}):
        config = DPMSolverMultistepScheduler(**SD, timestep_spacing="linspace", **settings).config
        scheduler = RestartScheduler.from_config(config, **preset)
        scheduler.set_timesteps(25)
        levels.append(scheduler.sigmas)
    assert torch.equal(*levels)


@pytest.mark.parametrize(("guidance", "nearest"), [(1, 2), (2.5, 2), (4.5, 5), (6.5, 5), (7.5, 8), (100, 8)])
def test_other_guidance_takes_the_nearest(guidance, nearest):
    assert guidance_preset(guidance) == guidance_preset(nearest)


@pytest.mark.parametrize("evaluations", [20, 25, 30])
@pytest.mark.parametrize("guidance", PRESETS)
def test_forms_of_fewer_evaluations_hold_on_the_grid(guidance, evaluations, caplog):
    settings = guidance_preset(guidance, evaluations)
    scheduler = RestartScheduler.from_config(DDIMScheduler(**SD, timestep_spacing="leading").config, **settings)
    scheduler.set_timesteps(evaluations)
    assert len(scheduler.timesteps) == ticks(scheduler, evaluations) == evaluations
    assert scheduler.path.levels[0] == pytest.approx(14.61, abs=0.01)
    rises, asked = scheduler.path.rises, sorted(settings["restart"], key=lambda each: -each[2])
    assert [rise.then for rise in rises] == [t_max for *_, t_max in asked]
    assert [rise.now for rise in rises] == pytest.approx([t_min for _, _, t_min, _ in asked], rel=0.02)
    assert {t_max for *_, t_max in asked} == {t_max for *_, t_max in guidance_preset(guidance)["restart"]}
    assert sum(call.restart for call in scheduler._calls) / evaluations == pytest.approx(0.25, abs=0.06)
    assert not caplog.records


@pytest.mark.parametrize("evaluations", [0, 24, 25.5, "25"])
def test_another_number_of_evaluations_is_told_which_there_are(evaluations):
    with pytest.raises(InputError, match="there are forms of 20, 25, 30, or leave it out"):
        guidance_preset(7.5, evaluations)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
@pytest.mark.parametrize("steps", [20, 25, 30])
def test_a1111s_rule_with_a_multistep_solver_counts_evaluations(steps, solver):
    scheduler = RestartScheduler(**SD, **steps_preset(steps, solver=solver))
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == ticks(scheduler, steps) == steps
    assert sum(call.restart for call in scheduler._calls) == 9
    assert len(scheduler.path.rises) == 1


@pytest.mark.parametrize("steps", [19, 20, 35, 36, 50])
def test_a1111s_rule_by_steps(steps):
    scheduler = RestartScheduler(**SD, **steps_preset(steps))
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == 2 * steps - 1
    jumps = int((torch.tensor([call.level for call in scheduler._calls]).diff() > 0).sum())
    assert jumps == (0 if steps < 20 else 1 if steps < 36 else 2)
