"""Configs of diffusers' other schedulers: honoured, or refused by name; keywords that would be dropped."""

import diffusers
import numpy as np
import pytest
import torch
from scheduler_runs import network, run, start
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

PLAN = [[4, 1, 0.1, 2.0]]
BETAS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
]


def named(scheduler):
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


@pytest.mark.parametrize("settings", [{}, SD, {"prediction_type": "v_prediction"}], ids=["defaults", "sd", "v"])
@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("saved", [False, True], ids=["live", "saved"])
def test_the_noise_schedule_of_the_model_is_kept(name, settings, saved, tmp_path):
    """Also where it is a default of the other class that is not ours."""
    theirs = getattr(diffusers, name)(**settings)
    theirs.save_pretrained(tmp_path)
    ours = RestartScheduler.from_pretrained(tmp_path) if saved else RestartScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod.float(), rtol=1e-4, atol=1e-7)
    assert ours.config.prediction_type == theirs.config.prediction_type


@pytest.mark.parametrize("zero", [False, True])
def test_cogvideoxs_shift_is_honoured_in_its_order(zero):
    theirs = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=zero)
    ours = RestartScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod[:-1], theirs.alphas_cumprod[:-1].float(), rtol=1e-3, atol=1e-7)
    level = float(((1 - ours.alphas_cumprod[500]) / ours.alphas_cumprod[500]).sqrt())
    assert level == pytest.approx(3.081 if zero else 2.803, abs=2e-3)
    ours.set_timesteps(10)
    assert ours.sigmas[0] == pytest.approx(4096 if zero else 3**0.5 * 14.61, rel=1e-2)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("exp", "HeunDiscreteScheduler"), ("sigmoid", "DDPMScheduler"), ("laplace", "DDPMScheduler")],
)
def test_schedules_of_betas_that_euler_does_not_know(schedule, theirs, tmp_path):
    other = getattr(diffusers, theirs)(beta_schedule=schedule, beta_start=0.001, beta_end=0.02)
    ours = RestartScheduler.from_config(other.config, restart=None)
    torch.testing.assert_close(ours.alphas_cumprod, other.alphas_cumprod)
    assert ours.config.beta_schedule == schedule
    ours.save_pretrained(tmp_path)
    assert torch.equal(RestartScheduler.from_pretrained(tmp_path).alphas_cumprod, ours.alphas_cumprod)


def test_lus_grid_is_honoured_unless_another_is_asked_for():
    theirs = diffusers.DPMSolverMultistepScheduler(**SD, use_lu_lambdas=True)
    ours = RestartScheduler.from_config(theirs.config)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(12)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)
    for other in (
        RestartScheduler.from_config(theirs.config, use_karras_sigmas=True),
        RestartScheduler.from_config({**theirs.config, "use_karras_sigmas": True}),
    ):
        assert (other.config.use_karras_sigmas, other.config.use_exponential_sigmas) == (True, False)


@pytest.mark.parametrize(("noise", "prediction"), [(False, "sample"), (True, "epsilon")])
def test_old_configs_say_by_predict_epsilon_what_the_network_predicts(noise, prediction):
    config = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "predict_epsilon": noise}
    ours = RestartScheduler.from_config(config)
    assert ours.config.prediction_type == prediction
    assert RestartScheduler.from_config(ours.config).config.prediction_type == prediction


FOREIGN = [
    ("FlowMapEulerDiscreteScheduler", {}),
    ("PiflowScheduler", {}),
    ("HeliosScheduler", {}),
    ("HeliosDMDScheduler", {}),
    ("MiniMaxH3Scheduler", {}),
    ("FlowMatchLCMScheduler", {}),
    ("SCMScheduler", {}),
    ("LCMScheduler", {}),
    ("TCDScheduler", {}),
    ("CMStochasticIterativeScheduler", {}),
    ("DDIMInverseScheduler", {}),
    ("DPMSolverMultistepInverseScheduler", {}),
    ("RePaintScheduler", {}),
    ("UnCLIPScheduler", {}),
    ("DDPMWuerstchenScheduler", {}),
    ("IPNDMScheduler", {}),
    ("KarrasVeScheduler", {}),
    ("LTXEulerAncestralRFScheduler", {}),
    ("ScoreSdeVeScheduler", {}),
    ("AmusedScheduler", {"mask_token_id": 1}),
    ("VQDiffusionScheduler", {"num_vec_classes": 4}),
]


@pytest.mark.parametrize(("name", "settings"), FOREIGN)
@pytest.mark.parametrize("known", [True, False], ids=["named", "by keys"])
@pytest.mark.parametrize("ours", [RestartScheduler, FlowMatchRestartScheduler])
def test_what_restarts_cannot_follow_is_refused(ours, name, settings, known):
    theirs = getattr(diffusers, name)(**settings)
    with pytest.raises(InputError) as error:
        ours.from_config(named(theirs) if known else theirs.config)
    assert "\n" not in str(error.value)
    assert name in str(error.value) or not known


def test_a_config_without_a_class_that_may_be_of_two_is_asked_for_it():
    config = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0).config
    with pytest.raises(InputError, match="may be of FlowMatchHeunDiscreteScheduler or FlowMapEulerDiscreteScheduler"):
        FlowMatchRestartScheduler.from_config(config)
    ours = FlowMatchRestartScheduler.from_config({**config, "_class_name": "FlowMatchHeunDiscreteScheduler"})
    assert ours.config.shift == 3.0


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_flow_sigmas_of_wan_and_sana_are_those_of_the_flow_scheduler(name):
    theirs = getattr(diffusers, name)(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    with pytest.raises(InputError, match="use FlowMatchRestartScheduler"):
        RestartScheduler.from_config(theirs.config)
    ours = FlowMatchRestartScheduler.from_config(theirs.config, restart=[[3, 1, 0.3, 0.6]])
    assert ours.config.shift == 5.0
    theirs.set_timesteps(20)
    ours.set_timesteps(20)
    assert ours.sigmas[0] == pytest.approx(float(theirs.sigmas[0]), abs=2e-3)
    with pytest.raises(InputError, match="use RestartScheduler"):
        FlowMatchRestartScheduler.from_config(diffusers.DDIMScheduler().config)


@pytest.mark.parametrize("grid", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
def test_flow_sigmas_on_a_grid_that_the_flow_scheduler_has_not_are_refused(grid):
    """Those of UniPC with Karras's grid begin at 0.994 0.990 0.983, and the flow scheduler's at 1 0.66 0.43."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    theirs = diffusers.DPMSolverMultistepScheduler(**flow, **{grid: True})
    for config in (theirs.config, named(theirs)):
        with pytest.raises(InputError, match=f"{grid} with use_flow_sigmas"):
            FlowMatchRestartScheduler.from_config(config)
    if grid != "use_lu_lambdas":  # the user's own wish is the flow scheduler's grid
        ours = FlowMatchRestartScheduler.from_config(
            diffusers.DPMSolverMultistepScheduler(**flow).config, **{grid: True}
        )
        assert FlowMatchRestartScheduler.from_config(ours.config).config[grid]


def test_flow_sigmas_without_what_they_need_are_refused_by_both():
    for settings in ({"prediction_type": "flow_prediction"}, {"use_flow_sigmas": True}):
        config = diffusers.UniPCMultistepScheduler(**settings).config
        for ours in (RestartScheduler, FlowMatchRestartScheduler):
            with pytest.raises(InputError, match=r"flow_prediction|FlowMatchRestartScheduler"):
                ours.from_config(config)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm_without_restarts_is_diffusers_own_scheduler(prediction, final, schedule):
    theirs = diffusers.EDMEulerScheduler(
        sigma_data=1.0, prediction_type=prediction, final_sigmas_type=final, sigma_schedule=schedule
    )
    ours = RestartScheduler.from_config(theirs.config)
    expected = run(theirs, start(80), num_inference_steps=12)
    result = run(ours, start(80), num_inference_steps=12)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)
    assert float(ours.init_noise_sigma) == pytest.approx(float(theirs.init_noise_sigma))
    torch.testing.assert_close(result[-1], expected[-1], atol=1e-3, rtol=1e-4)


def test_edm_with_restarts_is_told_a_quarter_of_the_logarithm():
    ours = RestartScheduler.from_config(diffusers.EDMEulerScheduler().config, restart=[[4, 2, 0.1, 2.0]])
    ours.set_timesteps(30)
    assert len(ours.timesteps) == 30
    np.testing.assert_allclose(ours.timesteps.numpy(), 0.25 * np.log(ours.sigmas[:-1].numpy()), atol=1e-5)


def test_cosmos_makes_a_step_twice_and_gives_the_data_itself():
    ours = RestartScheduler.from_config(diffusers.EDMEulerScheduler().config, restart=[[4, 2, 0.1, 2.0]])
    plain, twice = [], []
    for kept, again in ((plain, False), (twice, True)):
        ours.set_timesteps(30)
        x = start(80)
        for timestep in ours.timesteps:
            output = network(ours.scale_model_input(x, timestep), timestep)
            x0 = ours.step(output, timestep, x, return_dict=False)[1] if again else None
            ours._step_index -= again
            x = ours.step(output, timestep, x, pred_original_sample=x0).prev_sample
            kept.append(x)
    torch.testing.assert_close(plain[-1], twice[-1], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"restarts": PLAN}, r"no setting 'restarts'; did you mean 'restart'\?"),
        ({"restart_list": PLAN}, "no setting 'restart_list'"),
        ({"segments": "[4,1,0.1,2]"}, "no setting 'segments'"),
        ({"restart": PLAN, "restart_bugdet": "extra"}, r"did you mean 'restart_budget'\?"),
        ({"use_karras_sigma": True}, r"did you mean 'use_karras_sigmas'\?"),
    ],
)
def test_a_keyword_that_would_be_dropped_is_refused(settings, said, tmp_path):
    base = diffusers.PNDMScheduler(**SD)
    base.save_pretrained(tmp_path)
    for make in (
        lambda: RestartScheduler.from_config(base.config, **settings),
        lambda: RestartScheduler.from_pretrained(tmp_path, **settings),
        lambda: FlowMatchRestartScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler().config, **settings),
    ):
        with pytest.raises(InputError, match=said):
            make()
    _, unused = RestartScheduler.from_config(base.config, return_unused_kwargs=True, mine=3)
    assert unused["mine"] == 3


def test_a_key_that_is_unknown_in_a_config_of_ours_is_refused():
    first = RestartScheduler(**SD)
    with pytest.raises(InputError, match=r"unknown key 'restart_bugdet'; did you mean 'restart_budget'\?"):
        RestartScheduler.from_config({**first.config, "restart_bugdet": "extra"})


def test_an_edited_copy_of_a_config_holds():
    first = RestartScheduler.from_config(diffusers.PNDMScheduler(**SD).config)
    copy = dict(first.config)
    copy.update(restart=PLAN, restart_budget="extra")
    ours = RestartScheduler.from_config(copy)
    ours.set_timesteps(20)
    assert (ours.config.restart, len(ours.timesteps), len(ours.path.rises)) == (PLAN, 23, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"use_karras_sigmas": True},
        {"timestep_spacing": "trailing"},
        {"final_sigmas_type": "sigma_min"},
        {"interpolation_type": "log_linear"},
    ],
)
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "RestartScheduler"])
def test_changed_settings_of_a_copy_hold(name, changed):
    class_ = RestartScheduler if name == "RestartScheduler" else getattr(diffusers, name)
    ours = RestartScheduler.from_config({**class_(**SD).config, **changed})
    assert changed.items() <= dict(ours.config).items()


def test_what_was_given_by_position_survives():
    first = FlowMatchRestartScheduler(1000, 3.0)
    assert FlowMatchRestartScheduler.from_config(first.config, restart=None).config.shift == 3.0
    second = RestartScheduler(1000, 0.00085, 0.012, "scaled_linear")
    assert RestartScheduler.from_config(second.config).config.beta_schedule == "scaled_linear"


def test_settings_that_are_registered_hold_and_assigned_ones_are_refused():
    ours = RestartScheduler(**SD)
    ours.register_to_config(restart=np.array(PLAN), solver="heun")
    ours.set_timesteps(20)
    assert (ours.config.restart, len(ours.path.rises), len(ours.timesteps)) == (PLAN, 1, 39)
    ours.restart = []
    with pytest.raises(InputError, match=r"restart was assigned; use scheduler.register_to_config"):
        ours.set_timesteps(20)
    ours.config["restart"] = []
    with pytest.raises(InputError, match="restart was assigned"):
        ours.set_timesteps(20)


def test_configs_of_version_0_1_0_mean_what_they_meant(tmp_path):
    """Its defaults are in the file: Heun, restarts on diffusers' grid of the steps that are left."""
    (tmp_path / "scheduler_config.json").write_text(
        '{"_class_name": "RestartScheduler", "_diffusers_version": "0.42.1", "beta_end": 0.012, "beta_schedule": '
        '"scaled_linear", "beta_start": 0.00085, "euler_below": 0.0, "final_sigmas_type": "zero", "restart": [[10, 2, '
        '0.1, 2.0]], "restart_budget": null, "restart_grid": "karras", "restart_solver": null, "solver": "heun", '
        '"steps_offset": 1, "timestep_spacing": "leading", "num_train_timesteps": 1000}'
    )
    ours = RestartScheduler.from_pretrained(tmp_path)
    ours.set_timesteps(50)
    main = [move.now for move in ours.path.moves if not (move.restart or move.rises)]
    plain = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1)
    plain.set_timesteps(len(main))
    assert (len(ours.timesteps), len(main), ours.order) == (99, 32, 2)
    np.testing.assert_allclose(main, plain.sigmas[:-1].numpy())
