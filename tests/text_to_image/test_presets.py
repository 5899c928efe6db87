"""Presets: the authors' timesteps, and AUTOMATIC1111's rule."""

import pytest
import torch
from diffusers import DDIMScheduler
from scheduler_runs import ticks
from tiny_pipelines import SD

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


@pytest.mark.parametrize(("guidance", "nearest"), [(1, 2), (2.5, 2), (4.5, 5), (6.5, 5), (7.5, 8), (100, 8)])
def test_other_guidance_takes_the_nearest(guidance, nearest):
    assert guidance_preset(guidance) == guidance_preset(nearest)


@pytest.mark.parametrize("steps", [19, 20, 35, 36, 50])
def test_a1111s_rule_by_steps(steps):
    scheduler = RestartScheduler(**SD, **steps_preset(steps))
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == 2 * steps - 1
    jumps = int((torch.tensor([call.level for call in scheduler._calls]).diff() > 0).sum())
    assert jumps == (0 if steps < 20 else 1 if steps < 36 else 2)
