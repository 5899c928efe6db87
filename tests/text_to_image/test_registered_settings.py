"""What register_to_config changes after a scheduler was made: all of it or nothing."""

import pytest
import torch
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (RestartScheduler, {"num_train_timesteps": 500}),
        (RestartScheduler, {"beta_end": 0.03}),
        (RestartScheduler, {"beta_schedule": "scaled_linear"}),
        (RestartScheduler, {"trained_betas": [0.1, 0.3]}),
        (RestartScheduler, {"rescale_betas_zero_snr": True}),
        (RestartScheduler, {"snr_shift_scale": 3.0}),
        (FlowMatchRestartScheduler, {"shift": 3.0}),
        (FlowMatchRestartScheduler, {"num_train_timesteps": 500}),
    ],
)
def test_the_noise_schedule_stays_as_it_was_made(make, settings):
    scheduler = make()
    before = dict(scheduler.config)
    (key,) = settings
    with pytest.raises(InputError, match=rf"make a new scheduler with from_config\(scheduler.config, {key}="):
        scheduler.register_to_config(**settings)
    assert dict(scheduler.config) == before
    assert make.from_config(scheduler.config, **settings).config[key] == settings[key]
    scheduler.register_to_config(**{key: before[key]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"restarts": []}, r"no setting 'restarts'; did you mean 'restart'\?"),
        ({"use_karras_sigma": True}, r"did you mean 'use_karras_sigmas'\?"),
        ({"solver": "rk9"}, "does not exist"),
        ({"prediction_type": "noise"}, "prediction_type is 'noise'"),
        ({"sigma_schedule": "linear"}, "sigma_schedule is 'linear'"),
    ],
)
def test_what_would_be_refused_by_the_constructor_is_not_registered(settings, said, tmp_path):
    scheduler = RestartScheduler(**SD)
    with pytest.raises(InputError, match=said):
        scheduler.register_to_config(**settings)
    scheduler.save_pretrained(tmp_path)
    assert RestartScheduler.from_pretrained(tmp_path).config.solver == "euler"


@pytest.mark.parametrize(
    "settings",
    [
        {"use_karras_sigmas": True},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"final_sigmas_type": "sigma_min"},
        {"restart": [[4, 2, 0.1, 2.0]], "solver": "heun", "restart_budget": "extra"},
        {"sigma_data": 1.0, "sigma_max": 80.0, "sigma_min": 0.002},
    ],
)
def test_other_settings_hold_as_if_the_scheduler_had_been_made_with_them(settings):
    changed, made = RestartScheduler(**SD), RestartScheduler(**SD, **settings)
    changed.register_to_config(**settings)
    for scheduler in (changed, made):
        scheduler.set_timesteps(20)
    assert torch.equal(changed.timesteps, made.timesteps)
    assert torch.equal(changed.sigmas, made.sigmas)
