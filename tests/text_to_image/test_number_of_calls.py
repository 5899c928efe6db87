"""num_inference_steps is the number of calls of the network, the first level that of the same grid without restarts."""

import logging

import diffusers
import numpy as np
import pytest
import torch
from scheduler_runs import run, start
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler
from restart_sampling.text_to_image.row_layout import _say_once

SPACINGS = [
    {},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
]
README = [[10, 2, 0.1, 2.0]]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [22, 25, 30, 50])
def test_by_default_there_are_as_many_calls_as_steps_from_the_stock_grids_first_level(steps, spacing):
    scheduler, stock = (
        RestartScheduler(**SD, **spacing, restart=README),
        diffusers.EulerDiscreteScheduler(**SD, **spacing),
    )
    scheduler.set_timesteps(steps)
    stock.set_timesteps(steps)
    assert len(scheduler.timesteps) == scheduler.num_inference_steps == steps
    assert scheduler.order == 1
    assert scheduler.sigmas[0] == stock.sigmas[0]
    assert scheduler.sigmas[-2] == stock.sigmas[-2]
    assert len(scheduler.path.rises) == 2


def test_pipelines_that_make_their_own_levels_of_the_steps_count_likewise():
    """FLUX makes an array; a list is the user's, whose levels stay and whose restarts are on top."""
    scheduler = FlowMatchRestartScheduler(restart=[[4, 1, 0.3, 0.6]])
    ramp = np.linspace(1, 1 / 20, 20)
    for sigmas, rows in ((ramp, 20), (ramp.tolist(), 23)):
        scheduler.set_timesteps(sigmas=sigmas)
        assert len(scheduler.timesteps) == scheduler.num_inference_steps == rows
        assert scheduler.sigmas[0] == 1
    main = {call.level for call in scheduler._calls if not call.restart}
    np.testing.assert_allclose(sorted(main), np.sort(ramp), rtol=1e-6)


def test_too_few_steps_say_how_many_would_do():
    scheduler = RestartScheduler(**SD, restart=README)
    with pytest.raises(InputError, match=r"too few steps: .*; use more steps \((\d+) would do\)") as error:
        scheduler.set_timesteps(18)
    enough = int(str(error.value).split("use more steps (")[1].split()[0])
    with pytest.raises(InputError, match="too few steps"):
        scheduler.set_timesteps(enough - 1)
    scheduler.set_timesteps(enough)
    assert len(scheduler.path.rises) == 2


def test_what_snaps_is_said_once(caplog):
    _say_once.cache_clear()
    for level in (logging.ERROR, logging.WARNING):  # what nobody heard has not been said
        with caplog.at_level(level, _say_once.__module__):
            for _ in range(2):
                scheduler = RestartScheduler(**SD, restart=README)
                for _ in range(2):
                    scheduler.set_timesteps(30)
    level = scheduler.path.rises[0].now
    assert level < 0.09
    assert [record.message for record in caplog.records] == [
        f"of the main grid's levels, the nearest to t_min is used: [10,2,0.1,2] begins at level {level:.4g}"
    ]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("restart", [None, [[4, 2, 0.1, 2.0]]])
def test_a_last_level_that_comes_twice_is_called_in_vain_as_by_euler(spacing, restart):
    config = {**SD, **spacing, "final_sigmas_type": "sigma_min"}
    scheduler, stock = RestartScheduler(**config, restart=restart), diffusers.EulerDiscreteScheduler(**config)
    results = [run(each, start(14), num_inference_steps=20) for each in (scheduler, stock)]
    assert len(scheduler.timesteps) == 20
    assert scheduler.sigmas[-1] == pytest.approx(float(stock.sigmas[-1]))
    if restart is None:
        assert torch.equal(scheduler.timesteps, stock.timesteps)
        torch.testing.assert_close(results[0][-1], results[1][-1], atol=1e-4, rtol=0)


def test_a_thousand_steps_of_a_leading_grid_are_eulers():
    config = {**SD, "timestep_spacing": "leading", "steps_offset": 1}
    scheduler, stock = RestartScheduler(**config), diffusers.EulerDiscreteScheduler(**config)
    results = [run(each, start(14), num_inference_steps=1000)[-1] for each in (scheduler, stock)]
    assert torch.equal(scheduler.timesteps, stock.timesteps)
    torch.testing.assert_close(*results, atol=1e-3, rtol=0)


def test_a_last_zero_among_the_sigmas_of_a_flow_is_called_in_vain():
    scheduler, stock = FlowMatchRestartScheduler(), diffusers.FlowMatchEulerDiscreteScheduler()
    results = [run(each, start(), sigmas=[1.0, 0.6, 0.2, 0.0])[-1] for each in (scheduler, stock)]
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
    assert scheduler.timesteps.tolist() == stock.timesteps.tolist()


@pytest.mark.parametrize(
    ("sigmas", "said"),
    [([14.0, 3.0, 5.0, 0.0], "level 2 of it is 3 and the next 5"), ([2.0, 2.0], "has only level 2")],
)
def test_levels_that_do_not_fall_are_named(sigmas, said):
    with pytest.raises(InputError, match=said) as error:
        RestartScheduler(**SD).set_timesteps(sigmas=sigmas)
    assert len(str(error.value)) < 200
