"""What the text of a sampler means, and the scheduler that it becomes."""

import re
from pathlib import Path

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_pipelines import SD

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.text_to_image.presets import guidance_preset
from restart_sampling.text_to_image.samplers import (
    KINDS,
    Sampler,
    check_pipeline,
    check_samplers,
    is_flow,
    make_scheduler,
)

# As in the file of Stable Diffusion 1.5.
SD15 = diffusers.PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1).config
SD3 = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ddim", "ddim:50"),
        ("DDIM : 20", "ddim:20"),
        ("ddpm:100", "ddpm:100"),
        ("restart", "restart:30"),
        ("restart [10, 2, 0.1, 2.0]", "restart:30 [10,2,0.1,2]"),
        ("restart:40[10,2,.1,2],[5,2,1,9] solver=heun", "restart:40 [10,2,0.1,2] [5,2,1,9] solver=heun"),
        ("dpmpp:25 use_karras_sigmas=true", "dpmpp:25 use_karras_sigmas=true"),
        ("Restart-DPMpp", "restart-dpmpp:25"),
        ("restart-dpmpp:40[6,1,.1,2]", "restart-dpmpp:40 [6,1,0.1,2]"),
    ],
)
def test_texts(text, canonical):
    assert str(Sampler.parse(text)) == canonical


INTERVALS = st.builds(
    RestartInterval, st.integers(2, 50), st.integers(1, 9), st.floats(0.01, 1.0), st.floats(1.5, 20.0)
)


@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 1000),
    st.lists(INTERVALS, max_size=3),
    st.sampled_from([{}, {"solver": "heun"}, {"restart_grid": "even"}, {"solver": "ddim:eta=0.5", "restart": "null"}]),
)
def test_a_sampler_parses_back(name, steps, intervals, settings):
    alone = KINDS[name].family != "Restart" or "restart" in settings
    sampler = Sampler(name, steps, () if alone else tuple(intervals), tuple(settings.items()))
    assert Sampler.parse(str(sampler)) == sampler


def test_steps_may_stand_beside_the_text():
    assert Sampler.parse("ddim", 20) == Sampler.parse("ddim:20")
    assert Sampler.parse("restart [10,2,0.1,2.0]", 40) == Sampler.parse("restart:40 [10,2,0.1,2.0]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no sampler ''; give one of ddim, ddpm, heun, dpmpp, euler, restart, restart-dpmpp"),
        (
            "ddmp:5",
            "give one of ddim, ddpm, heun, dpmpp, euler, restart, restart-dpmpp, or a .json of 'text tune'; did you "
            "mean ddpm?",
        ),
        ("dpm++:25", "did you mean dpmpp?"),
        ("restart_dpmpp:25", "there is no sampler 'restart_dpmpp:25'"),
        ("ddim50", "did you mean ddim?"),
        ("unipc:20", "unipc is a solver, so did you mean restart:25 restart=null solver=unipc?"),
        ("plan-25.jsn", "or a .json of 'text tune'"),
        ("ddim=50", "cannot read '=50'"),
        ("dpmpp use_karras_sigmas=", "cannot read 'use_karras_sigmas='; write key=value, without spaces"),
        ("dpmpp:25 steps=30", "write the number of steps as dpmpp:30"),
        ("dpmpp num_inference_steps=30", "write the number of steps as dpmpp:30"),
        ("restart:25 solver=deiss", "solver 'deiss' does not exist; available: euler, heun"),
        ("restart:25 solver=deiss", "sa; did you mean deis?"),
        ("restart:25 restart=null solver=dpmpp", "did you mean dpmpp_2m?"),
        ("restart restart_solver=dpm++_2m", "did you mean dpmpp_2m?"),
        ("restart solver=ddim:et=1", "sampler 'restart solver=ddim:et=1': solver ddim has no setting 'et=1'"),
        *(
            (f"restart:30 {written}", f"{said}; write restarts by themselves, such as restart:30 [10,2,0.1,2.0], or")
            for written, said in (
                ("restart=[10,2,0.1,2]", "has restart=[10,2,0.1,2]"),
                ("restart = []", "has restart = []"),
                ("[10,2,0.1,2] restart=", "has restart="),
                ("[10,2,0.1,2]restart=false", "has restart=false"),
                ("restart=None", "has restart=None"),
            )
        ),
        ("ddim:0", "sampler 'ddim:0' has 0 steps"),
        ("ddim:many", "the number of steps is 'many', which is not a whole number"),
        ("ddim 50", "cannot read '50'"),
        ("ddim:50 [3,2,0.1,1]", "has restart intervals, which only restart and restart-dpmpp take"),
        ("restart [3,2,0.1]", "interval [3,2,0.1] has 3 entries"),
        ("restart [1,2,0.1,1]", "N_restart = 1"),
        ("restart [3,2,1,0.1]", "t_min < t_max"),
        ("restart [3,2", "cannot read '[3,2'"),
    ],
)
def test_what_is_no_sampler_is_said_in_one_sentence(text, said):
    with pytest.raises(InputError) as error:
        Sampler.parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_steps_given_twice():
    with pytest.raises(InputError, match="has 50 steps and 20 are asked for"):
        Sampler.parse("ddim:50", 20)


@pytest.mark.parametrize(
    ("text", "config", "kind"),
    [
        ("ddim", SD15, "DDIMScheduler"),
        ("ddpm", SD15, "DDPMScheduler"),
        ("heun", SD15, "HeunDiscreteScheduler"),
        ("dpmpp", SD15, "DPMSolverMultistepScheduler"),
        ("dpmpp solver_order=1 variance_type=null", SD15, "DPMSolverMultistepScheduler"),
        ("dpmpp solver_order=3 algorithm_type=sde-dpmsolver++", SD15, "DPMSolverMultistepScheduler"),
        ("restart", SD15, "RestartScheduler"),
        ("euler", SD3, "FlowMatchRestartScheduler"),
        ("heun", SD3, "FlowMatchRestartScheduler"),
        ("restart [4,1,0.3,0.6]", SD3, "FlowMatchRestartScheduler"),
    ],
)
def test_schedulers_keep_the_pipelines_noise_schedule(text, config, kind):
    scheduler = make_scheduler(Sampler.parse(text), config, 7.5)
    assert type(scheduler).__name__ == kind
    for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "shift", "num_train_timesteps"):
        assert scheduler.config.get(key) == config.get(key), key


@pytest.mark.parametrize(("text", "rows"), [("ddim:50", 50), ("ddpm:100", 100), ("heun:26", 51), ("heun:51", 101)])
def test_the_papers_rows_take_the_evaluations_that_it_prints(text, rows):
    scheduler = make_scheduler(Sampler.parse(text), SD15, 5.0)
    scheduler.set_timesteps(Sampler.parse(text).steps)
    assert len(scheduler.timesteps) == rows


def test_the_samplers_of_the_documentation_take_what_it_says():
    page = (Path(__file__).parents[2] / "docs" / "text-to-image.md").read_text()
    rows = re.findall(r"^\| (`[a-z-]+.*?) \| .* \| ([\d, ]+)(?:;.*)? \|$", page, re.MULTILINE)
    shown = [pair for texts, nfes in rows for pair in zip(re.findall("`(.+?)`", texts), nfes.split(", "), strict=True)]
    assert len(shown) == 13
    for text, nfe in shown:
        sampler = Sampler.parse(text)
        flow = text.startswith("euler") or sampler.steps in (15, 28)
        scheduler = make_scheduler(sampler, SD3 if flow else SD15, sampler.guidance or 7.5)
        scheduler.set_timesteps(sampler.steps)
        assert len(scheduler.timesteps) == int(nfe), text


@pytest.mark.parametrize(("guidance", "rows"), [(2.0, 62), (3.0, 64), (5.0, 64), (7.5, 64), (8.0, 64)])
def test_restart_alone_is_the_papers_preset_of_the_guidance(guidance, rows):
    scheduler = make_scheduler(Sampler.parse("restart"), SD15, guidance)
    assert {key: scheduler.config[key] for key in guidance_preset(guidance)} == guidance_preset(guidance)
    scheduler.set_timesteps(30)
    assert len(scheduler.timesteps) == rows


@pytest.mark.parametrize("steps", [20, 25, 30])
@pytest.mark.parametrize("guidance", [2.0, 5.0])
def test_restart_dpmpp_is_the_preset_of_as_many_evaluations(guidance, steps):
    scheduler = make_scheduler(Sampler.parse(f"restart-dpmpp:{steps}"), SD15, guidance)
    expected = guidance_preset(guidance, steps)
    assert {key: scheduler.config[key] for key in expected} == expected
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps


def test_restart_dpmpp_takes_intervals_in_any_number_of_steps():
    scheduler = make_scheduler(Sampler.parse("restart-dpmpp:40 [6,2,0.1,2]"), SD15, 5.0)
    expected = guidance_preset(5.0, 25) | {"restart": [[6, 2, 0.1, 2.0]]}
    assert {key: scheduler.config[key] for key in expected} == expected
    scheduler.set_timesteps(40)
    assert len(scheduler.timesteps) == 40


def test_intervals_and_settings_are_over_the_preset():
    scheduler = make_scheduler(Sampler.parse("restart:30 [5,1,0.2,3] restart_solver=euler"), SD15, 5.0)
    expected = guidance_preset(5.0) | {"restart": [[5, 1, 0.2, 3.0]], "restart_solver": "euler"}
    assert {key: scheduler.config[key] for key in expected} == expected


def test_the_papers_own_restarts_written_out_are_its_preset():
    written = make_scheduler(Sampler.parse("restart [10,2,0.1,2.0]"), SD15, 5.0)
    preset = make_scheduler(Sampler.parse("restart"), SD15, 5.0)
    assert dict(written.config) == dict(preset.config)


def test_a_plan_that_the_pipeline_came_with_is_not_taken_over():
    saved = make_scheduler(Sampler.parse("restart [4,1,0.3,0.6]"), SD3, 1.0).config
    for text in ("euler", "heun"):
        scheduler = make_scheduler(Sampler.parse(text), saved, 1.0)
        scheduler.set_timesteps(6)
        assert len(scheduler.timesteps) == (6 if text == "euler" else 11)


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        (
            "euler",
            SD15,
            "sampler 'euler:28' is not for models that predict noise, as this pipeline's is one; give",
        ),
        ("ddim", SD3, "sampler 'ddim:50' is not for flow models, as this pipeline's is one; give heun, euler, restart"),
        ("restart", SD3, "no restarts are published for flow models; give intervals in t"),
        ("ddim:1", {**SD15, "beta_start": True}, "sampler 'ddim:1': beta_start = True; give a number"),
        ("ddim:2000", SD15, "the model knows 1000 steps"),
        ("ddim color=red", SD15, "DDIMScheduler has no setting 'color'"),
        ("dpmpp use_karras_sigma=true", SD15, "; did you mean use_karras_sigmas?"),
        ("dpmpp karras=true", SD15, "; did you mean use_karras_sigmas?"),
        ("dpmpp guidence=3", SD15, "has no setting 'guidence'; give one of guidance, solver_order, "),
        (
            "ddim use_karras_sigmas=true",
            SD15,
            "DDIMScheduler has no setting 'use_karras_sigmas', which is of heun, dpmpp, restart, restart-dpmpp; give "
            "one of guidance, clip_sample, set_alpha_to_one, steps_offset, thresholding, dynamic_thresholding_ratio, "
            "clip_sample_range, sample_max_value, timestep_spacing",
        ),
        ("euler use_karras_sigma=true", SD3, "; did you mean use_karras_sigmas?"),
        ("ddim trained_betas=2.5", SD15, "sampler 'ddim:50 trained_betas=2.5': IndexError: "),
        ("restart sigma_max=20", SD15, "sigma_max is 20, and the network knows no level above 14.6146; give that, or"),
        ("dpmpp use_karras_sigmas=maybe", SD15, "use_karras_sigmas is maybe; give true or false"),
        ("dpmpp use_karras_sigmas=1", SD15, "use_karras_sigmas is 1; give true or false"),
        ("dpmpp solver_order=true", SD15, "solver_order is true; give a whole number"),
        ("dpmpp solver_order=2.5", SD15, "solver_order is 2.5; give a whole number"),
        *(
            (
                f"dpmpp solver_order={order}",
                SD15,
                f"solver_order is {order}, and DPMSolverMultistepScheduler has no",
            )
            for order in (-1, 0, 4, 9)
        ),
        (
            "dpmpp solver_order=3 algorithm_type=sde-dpmsolver final_sigmas_type=sigma_min",
            SD15,
            "solver_order is 3, and DPMSolverMultistepScheduler has no such solver; give 2",
        ),
        (
            "ddpm variance_type=foo",
            SD15,
            "variance_type is foo; DDPMScheduler knows fixed_small, fixed_small_log,",
        ),
        ("ddpm variance_type=fixed_larg", SD15, "learned_range; did you mean fixed_large?"),
        (
            "dpmpp variance_type=foo",
            SD15,
            "variance_type is foo; DPMSolverMultistepScheduler knows learned,",
        ),
        ("ddim timestep_spacing=end", SD15, "timestep_spacing is end; DDIMScheduler knows leading, trailing, linspace"),
        ("dpmpp solver_type=3", SD15, "solver_type is 3; give a word"),
        ("restart solver=unipcc", SD15, "unipc"),
        ("restart-dpmpp:24", SD15, "evaluations is 24; there are forms of 20, 25, 30"),
        ("restart-dpmpp [4,1,0.3,0.6]", SD3, "'restart-dpmpp:25 [4,1,0.3,0.6]' is not for flow models"),
        ("restart restart_budget=free", SD15, "restart_budget is 'free'"),
        ("dpmpp algorithm_type=magic", SD15, "magic"),
        ("restart trained_betas=0.1", SD15, "RuntimeError: zero-dimensional tensor"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(text, config, said):
    with pytest.raises(InputError) as error:
        make_scheduler(Sampler.parse(text), config, 7.5)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (diffusers.EDMEulerScheduler(), "the pipeline's scheduler is EDMEulerScheduler that predicts epsilon"),
        (diffusers.VQDiffusionScheduler(4), "the pipeline's scheduler is VQDiffusionScheduler;"),
        (
            diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
            "that predicts flow_prediction",
        ),
    ],
)
def test_an_unknown_scheduler_config_is_named(scheduler, said):
    with pytest.raises(InputError) as error:
        is_flow({**scheduler.config, "_class_name": type(scheduler).__name__})
    assert said in str(error.value)


def test_all_rows_of_a_table_are_checked_before_any_work():
    """These betas end below the paper's t_max of guidance 2, and not below that of 8."""
    low = diffusers.DDIMScheduler(beta_start=0.0001, beta_end=0.005).config
    samplers = [Sampler.parse("ddim:20"), Sampler.parse("restart")]
    check_samplers([(each, 8.0) for each in samplers], low)
    with pytest.raises(InputError, match=r"sampler 'restart:30' at guidance 2: .*t_max is above sigma_max"):
        check_samplers([(each, scale) for each in samplers for scale in (8.0, 2.0)], low)
    check_samplers([(Sampler.parse("restart:28 [4,1,0.3,0.6]"), 3.5)], {**SD3, "use_dynamic_shifting": True})


def test_what_a_sampler_means_in_a_class_of_pipelines():
    restart = Sampler.parse("restart")
    assert check_pipeline("StableDiffusionPipeline", restart) is None
    assert "are the paper's for Stable Diffusion 1.5" in check_pipeline("StableDiffusionXLPipeline", restart)
    assert check_pipeline("StableDiffusionXLPipeline", Sampler.parse("restart [4,1,0.1,2]")) is None
    assert check_pipeline("KandinskyV22Pipeline", Sampler.parse("ddim")) is None
    for sampler in (restart, Sampler.parse("restart-dpmpp")):
        with pytest.raises(InputError, match=f"KandinskyV22Pipeline never scales the input .* {sampler.name} needs"):
            check_pipeline("KandinskyV22Pipeline", sampler)
        assert f"{sampler.name}'s intervals are" in check_pipeline("StableDiffusionXLPipeline", sampler)
    assert check_pipeline("Kandinsky5T2VPipeline", Sampler.parse("heun")) is None


def test_a_learned_flow_map_is_no_flow():
    with pytest.raises(InputError, match="FlowMapEulerDiscreteScheduler is for networks that predict where"):
        is_flow({**diffusers.FlowMapEulerDiscreteScheduler().config, "_class_name": "FlowMapEulerDiscreteScheduler"})
