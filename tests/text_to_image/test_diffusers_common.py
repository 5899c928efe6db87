"""The ten checks that diffusers makes of each of its schedulers (SchedulerCommonTest), in our words.

diffusers' own FlowMatchEulerDiscreteScheduler passes four of them (compatibles, from_pretrained, deprecated_kwargs,
getattr); it has no `scale_model_input`, no betas and no timestep 0, so the others are not asked of the flow scheduler.
"""

import inspect

import numpy as np
import pytest
import torch
from diffusers.utils import is_torchsde_available

from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

CONFIG = {"num_train_timesteps": 1100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
MADE = [
    lambda **more: RestartScheduler(**CONFIG, **more),
    lambda **more: RestartScheduler(
        **CONFIG, restart=[[4, 2, 0.1, 2.0]], solver="euler", restart_solver="heun", **more
    ),
]
FLOW = [lambda: FlowMatchRestartScheduler(num_train_timesteps=1000, shift=3.0, restart=[[4, 1, 0.3, 0.6]])]


def sample():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MADE, ids=["plain", "restart"])
def make(request):
    return request.param


@pytest.fixture(params=[*MADE, *FLOW], ids=["plain", "restart", "flow"])
def make_any(request):
    return request.param


def reloaded(scheduler, tmp_path):
    scheduler.save_pretrained(tmp_path)
    return type(scheduler).from_pretrained(tmp_path)


@pytest.mark.parametrize(("steps", "timestep"), [(50, 0), (None, 0), (None, 1)])
def test_from_save_pretrained(make, steps, timestep, tmp_path):
    first, outputs = make(), []
    for scheduler in (first, reloaded(first, tmp_path)):
        if steps:
            scheduler.set_timesteps(steps)
        outputs.append(scheduler.step(0.1 * sample(), timestep, sample(), generator=torch.manual_seed(0)).prev_sample)
    assert (outputs[0] - outputs[1]).abs().sum() < 1e-5


@pytest.mark.parametrize("timestep", [1000.0, 1.0])
def test_from_save_pretrained_of_the_flow_scheduler(timestep, tmp_path):
    scheduler = FLOW[0]()
    last = torch.tensor(timestep) if timestep > 1 else scheduler.timesteps[-1]
    outputs = [
        each.step(0.1 * sample(), last, sample()).prev_sample for each in (scheduler, reloaded(scheduler, tmp_path))
    ]
    assert torch.equal(*outputs)


def test_compatibles(make_any):
    """To every compatible class and back; the original goes back from the last one, whichever that is."""
    scheduler = make_any()
    for compatible in scheduler.compatibles:
        if compatible.__name__ == "DPMSolverSDEScheduler" and not is_torchsde_available():
            continue
        back = type(scheduler).from_config(compatible.from_config(scheduler.config).config)
        assert {key: value for key, value in back.config.items() if key in scheduler.config} == dict(scheduler.config)
        more = back.config.keys() - scheduler.config.keys()
        assert not more & inspect.signature(type(scheduler).__init__).parameters.keys()


def test_from_pretrained(make_any, tmp_path):
    scheduler = make_any()
    loaded = reloaded(scheduler, tmp_path)
    expected = dict(scheduler.config)
    del expected["_use_default_values"]
    assert loaded.config == expected


@pytest.mark.parametrize(("steps", "again"), [(50, 0), (None, 1)])
def test_step_shape(make, steps, again):
    scheduler = make()
    if steps:
        scheduler.set_timesteps(steps)
    first = scheduler.step(0.1 * sample(), 0, sample()).prev_sample
    second = scheduler.step(0.1 * sample(), again, sample()).prev_sample
    assert first.shape == second.shape == sample().shape


def test_outputs_are_equivalent(make):
    scheduler = make()
    outputs = []
    for more in ({}, {"return_dict": False}):
        scheduler.set_timesteps(50)
        outputs.append(scheduler.step(0.1 * sample(), 0, sample(), generator=torch.manual_seed(0), **more))
    torch.testing.assert_close(outputs[0].prev_sample, outputs[1][0])


def test_public_api(make):
    scheduler = make()
    assert hasattr(scheduler, "init_noise_sigma")
    assert scheduler.scale_model_input(sample(), 0.0).shape == sample().shape


def test_add_noise(make):
    scheduler = make()
    scheduler.set_timesteps(100)
    scaled = scheduler.scale_model_input(sample(), 0.0)
    assert scheduler.add_noise(scaled, torch.randn_like(scaled), scheduler.timesteps[5][None]).shape == scaled.shape


def test_deprecated_kwargs(make_any):
    scheduler = make_any()
    assert "kwargs" not in inspect.signature(type(scheduler).__init__).parameters
    assert scheduler._deprecated_kwargs == []


def test_trained_betas(make, tmp_path):
    scheduler = make(trained_betas=np.array([0.1, 0.3]))
    assert scheduler.betas.tolist() == reloaded(scheduler, tmp_path).betas.tolist()


def test_getattr_is_correct(make_any, caplog):
    scheduler = make_any()
    scheduler.dummy_attribute = 5
    scheduler.register_to_config(test_attribute=5)
    assert scheduler.dummy_attribute == 5
    assert scheduler.save_pretrained == scheduler.save_pretrained
    assert not caplog.records
    with pytest.warns(FutureWarning, match="config attribute"):
        assert scheduler.test_attribute == 5
    with pytest.raises(AttributeError, match="does_not_exist"):
        _ = scheduler.does_not_exist
