"""Bad input, other schedulers' configs, and what importing loads."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from scheduler_runs import PLAN, start
from tiny_pipelines import SD, generators

import restart_sampling as rs
from restart_sampling import text_to_image
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler, guidance_preset

SENTENCES = [
    (RestartScheduler, {"restart": [[4, 2, 0.1]]}, r"the entry \[4, 2, 0.1\]; give lists"),
    (RestartScheduler, {"restart": [4, 2, 0.1, 2.0]}, "the entry 4; give lists"),
    (RestartScheduler, {"restart": [[1, 2, 0.1, 2.0]]}, "give at least 2"),
    (RestartScheduler, {"solver": "unipc:p=4"}, "give p from 1 to 3"),
    (RestartScheduler, {"solver": "rk9"}, "does not exist"),
    (RestartScheduler, {"restart_budget": "half"}, "restart_budget is 'half'"),
    (RestartScheduler, {"restart_grid": "cosine"}, "restart_grid is 'cosine'"),
    (RestartScheduler, {"prediction_type": "flow_prediction"}, "FlowMatchRestartScheduler"),
    (RestartScheduler, {"beta_schedule": "cosine"}, "beta_schedule is 'cosine'; RestartScheduler knows linear,"),
    (RestartScheduler, {"beta_start": "0.00085"}, "beta_start = '0.00085'; give a number"),
    (RestartScheduler, {"num_train_timesteps": None}, "num_train_timesteps = None; give a whole number"),
    (RestartScheduler, {"sigma_max": "80"}, "sigma_max = '80'; give a number"),
    (RestartScheduler, {"steps_offset": 1.5}, r"steps_offset = 1\.5; give a whole number"),
    (RestartScheduler, {"num_train_timesteps": 0}, "num_train_timesteps is 0; give at least 1"),
    (RestartScheduler, {"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr = 'no'; give True or False"),
    (RestartScheduler, {"timestep_type": "even"}, "timestep_type is 'even'; give discrete or continuous"),
    (RestartScheduler, {"rho": 3.0, "use_karras_sigmas": True}, "rho is 3.0, which is of EDM's levels"),
    (RestartScheduler, {"sigma_schedule": "exponential"}, "sigma_schedule is 'exponential', which is of EDM's levels"),
    (RestartScheduler, {"sigma_data": 0.0}, "sigma_data is 0; EDM's levels need a finite number above 0"),
    (RestartScheduler, {"sigma_data": 0.5, "sigma_min": 0}, "sigma_min is 0; EDM's"),
    (RestartScheduler, {"sigma_data": 0.5, "sigma_max": float("nan")}, "sigma_max is nan; EDM's"),
    (RestartScheduler, {"sigma_data": 0.5, "use_beta_sigmas": True}, "use_beta_sigmas is True, which EDM's levels"),
    (RestartScheduler, {"sigma_data": 0.5, "snr_shift_scale": 3.0}, "snr_shift_scale is 3.0, which EDM's levels"),
    (
        RestartScheduler,
        {"sigma_data": 0.5, "sigma_schedule": "exponential", "use_karras_sigmas": True},
        "use_karras_sigmas is True, which EDM's levels",
    ),
    (
        RestartScheduler,
        {"sigma_data": 0.5, "restart": [[2, 1, 0.1, 2.0]], "restart_grid": "timesteps"},
        "restart_grid is 'timesteps'; give one of karras, exponential, even",
    ),
    (
        RestartScheduler,
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "restart_grid": "timesteps"},
        "restart_grid is 'timesteps'; give one of karras, exponential, even",
    ),
    (FlowMatchRestartScheduler, {"num_train_timesteps": -5}, "num_train_timesteps is -5; give at least 1"),
    (FlowMatchRestartScheduler, {"use_dynamic_shifting": "false"}, "use_dynamic_shifting = 'false'; give True or"),
    (FlowMatchRestartScheduler, {"shift": True}, "shift = True; give a number"),
    (RestartScheduler, {"steps_offset": True}, "steps_offset = True; give a whole number"),
    (FlowMatchRestartScheduler, {"shift": "3"}, "shift = '3'; give a number"),
    (FlowMatchRestartScheduler, {"shift": None}, "shift = None; give a number"),
    (FlowMatchRestartScheduler, {"invert_sigmas": True}, "Mochi"),
    (FlowMatchRestartScheduler, {"stochastic_sampling": True}, "set it to false"),
]


@pytest.mark.parametrize(("class_", "settings", "sentence"), SENTENCES)
def test_bad_settings_are_refused_when_the_scheduler_is_made(class_, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        class_(**settings)


def test_configs_of_other_kinds_of_models_are_refused():
    with pytest.raises(InputError, match="no noise schedule of betas"):
        RestartScheduler.from_config(FlowMatchEulerDiscreteScheduler().config)
    with pytest.raises(InputError, match="not of a flow model"):
        FlowMatchRestartScheduler.from_config(DDIMScheduler().config)
    flow = FlowMatchEulerDiscreteScheduler().config
    for preset in (guidance_preset(5), guidance_preset(5, evaluations=25)):
        with pytest.raises(
            InputError, match=r"no presets for flow models; give restarts in t, such as restart=\[\[4, 1"
        ):
            FlowMatchRestartScheduler.from_config(flow, **preset)
    with pytest.raises(InputError, match="has no setting 'restarts'; did you mean 'restart'"):
        FlowMatchRestartScheduler.from_config(flow, restarts=[[4, 1, 0.3, 0.6]])
    with pytest.raises(InputError, match=r"t_max is above 1, .*; these levels as sigma are \[3,2,0\.375,0\.75\]"):
        FlowMatchRestartScheduler.from_config(flow, restart=[[3, 2, 0.6, 3]]).set_timesteps(18)
    with pytest.raises(InputError, match="flow_prediction"):
        RestartScheduler.from_config(UniPCMultistepScheduler(prediction_type="flow_prediction").config)


@pytest.mark.parametrize(
    ("restart", "steps", "sentence"),
    [
        ([[4, 2, 0.1, 200.0]], 30, "t_max is above"),
        ([[10, 2, 0.1, 2.0]], 15, "take 37 evaluations"),
        ([[2, 1, 0.5, 0.6]], 6, "snaps to"),
    ],
)
def test_plans_that_do_not_fit_are_refused(restart, steps, sentence):
    with pytest.raises(InputError, match=sentence):
        RestartScheduler(**SD, restart=restart, solver="heun", restart_budget="inside").set_timesteps(steps)


def test_own_timesteps_may_be_any_sequence():
    rows = []
    for timesteps in ([900, 500, 100], np.array([900, 500, 100]), torch.tensor([900.0, 500.0, 100.0])):
        scheduler = RestartScheduler(**SD, solver="heun")
        scheduler.set_timesteps(timesteps=timesteps)
        rows.append(scheduler.timesteps.tolist())
    assert rows == [[900, 500, 500, 100, 100]] * 3


NO_GRIDS = [
    ({"timesteps": []}, "give a list of at least 1"),
    ({"timesteps": 0.5}, "timesteps = 0.5; give a list"),
    ({"timesteps": ["900", "1"]}, "give a list"),
    ({"timesteps": [[900], [1, 2]]}, "give a list"),
    ({"timesteps": [1500, 1200, 500, 1]}, "timesteps has 1500; give numbers from 0 to (999|1000)"),
    ({"timesteps": [900, 500, -1]}, "timesteps has -1;"),
    ({"timesteps": [999, 500, 500, 1]}, "timesteps has 500 after 500; with restarts"),
    ({"timesteps": [500, 900, 1]}, "timesteps has 900 after 500"),
    ({"sigmas": []}, "give a list of at least"),
    ({"sigmas": 0.5}, "sigmas = 0.5; give a list"),
    ({"sigmas": [1.0, 0.5, 0.5, 0.1]}, "sigmas has 0.5 after 0.5"),
    ({"sigmas": [float("nan"), 0.1]}, "sigmas has nan"),
    ({}, "give num_inference_steps, timesteps or sigmas"),
]


@pytest.mark.parametrize(("given", "sentence"), NO_GRIDS)
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_what_is_no_main_grid_is_refused(class_, given, sentence):
    with pytest.raises(InputError, match=sentence):
        class_(restart=[[3, 1, 0.2, 0.4]]).set_timesteps(**given)


def test_restarts_that_were_registered_ask_for_a_falling_grid():
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(timesteps=[999, 500, 500, 1])
    scheduler.register_to_config(restart=[[3, 1, 0.2, 0.4]])
    with pytest.raises(InputError, match="500 after 500"):
        scheduler.set_timesteps(timesteps=[999, 500, 500, 1])


def test_steps_and_own_levels_at_once_are_refused_as_in_diffusers():
    with pytest.raises(ValueError, match="Can only pass one"):
        RestartScheduler(**SD).set_timesteps(10, sigmas=[10.0, 1.0, 0.0])


def test_an_unknown_timestep_is_refused():
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(10)
    with pytest.raises(InputError, match=r"3\.5 is not one of"):
        scheduler.step(start(), 3.5, start())


def test_the_plan_survives_another_scheduler():
    first = RestartScheduler(**SD, restart=PLAN)
    last = RestartScheduler.from_config(EulerDiscreteScheduler.from_config(first.config).config)
    assert last.config.restart == PLAN


@pytest.mark.parametrize("passed", [False, True])
def test_a_list_of_generators_of_another_length_is_refused_at_the_first_step(passed):
    scheduler = RestartScheduler(**SD, restart=PLAN)
    scheduler.set_timesteps(25)
    scheduler.generator = None if passed else generators([1, 2, 3])
    with pytest.raises(InputError, match="3 generators for 2 images"):
        scheduler.step(start(), scheduler.timesteps[0], start(), generators([1, 2, 3]) if passed else None)


@pytest.mark.parametrize("given", [5, (torch.Generator(),), [None, None]])
@pytest.mark.parametrize("restart", [[], PLAN])
def test_what_is_no_generator_is_refused_also_where_no_noise_is_added(given, restart):
    scheduler = RestartScheduler(**SD, restart=restart)
    scheduler.set_timesteps(25)
    with pytest.raises(InputError, match=r"give a torch\.Generator, or a list of one for each image"):
        scheduler.step(start(), scheduler.timesteps[0], start(), given)


@pytest.mark.parametrize("name", ["model_output", "pred_original_sample"])
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 1, 8, 8), (2, 4, 1, 1)])
def test_an_output_of_another_shape_is_not_broadcast(name, shape):
    scheduler = FlowMatchRestartScheduler()
    scheduler.set_timesteps(5)
    outputs = {"model_output": start(), name: torch.zeros(shape)}
    with pytest.raises(InputError, match=r"network's output is \[[124, 8]+\] and the sample \[2, 4, 8, 8\]"):
        scheduler.step(timestep=scheduler.timesteps[0], sample=start(), **outputs)
    scheduler.step(start(), scheduler.timesteps[0], start())  # no row was taken by it


@pytest.mark.parametrize("begin", [-1, 2.0, "3", None])
def test_what_is_no_row_is_refused(begin):
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(10)
    with pytest.raises(InputError, match="begin_index"):
        scheduler.set_begin_index(begin)


IMPORTS = [
    "import restart_sampling.text_to_image as t; t.steps_preset(30); assert 'torch' not in sys.modules",
    """
import restart_sampling as rs
assert rs.text_to_image.guidance_preset(3.0) == rs.guidance_preset(3.0)
assert 'torch' not in sys.modules
from restart_sampling import *
assert 'diffusers' not in sys.modules
""",
]


@pytest.mark.parametrize("code", IMPORTS)
def test_names_are_loaded_when_they_are_used(code):
    subprocess.run([sys.executable, "-c", f"import sys; {code}"], check=True)


def test_schedulers_have_one_name():
    assert rs.FlowMatchRestartScheduler.__module__ == "restart_sampling.text_to_image"
    assert rs.text_to_image.RestartScheduler is rs.RestartScheduler


def test_a_missing_diffusers_names_the_extra(monkeypatch):
    monkeypatch.delitem(vars(text_to_image), "RestartScheduler")
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"restart-sampling\[diffusers\]"):
        _ = text_to_image.RestartScheduler
