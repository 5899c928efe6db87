"""Unmodified pipelines with the schedulers."""

from copy import deepcopy

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
)
from pipeline_runs import DIFFUSERS_SCHEDULERS, FLOW_KINDS, counts, follow, images, plan, record, with_scheduler
from tiny_pipelines import (
    PIPELINES,
    arguments,
    generators,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_with_controlnet,
)

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import guidance_preset

DTYPES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize(("kind", "solver", "theirs"), DIFFUSERS_SCHEDULERS)
def test_without_restart_images_are_those_of_diffusers_schedulers(kind, solver, theirs):
    pipe = PIPELINES[kind]()
    pipe.scheduler = theirs.from_config(pipe.scheduler.config)
    expected = images(pipe, kind)
    ours = images(with_scheduler(PIPELINES[kind](), solver=solver), kind)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", PIPELINES)
def test_with_restarts_a_pipeline_follows_the_librarys_own_sample(kind, monkeypatch):
    """The library, given the network's outputs in order, asks for each at the state and level of the pipeline."""
    process = rs.FLOW if kind in FLOW_KINDS else rs.VE
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind), solver="heun", restart_budget="extra")
    rows, noise = record(pipe, monkeypatch)
    result = images(pipe, kind)
    plain = with_scheduler(PIPELINES[kind](), solver="euler")
    images(plain, kind)
    path = rs.restart_path(plain.scheduler.sigmas.tolist(), [rs.RestartInterval(*each) for each in plan(kind)])
    expected = follow(rows, noise, path, process, rs.Heun(), rs.Heun())
    assert len(rows) == path.nfe(rs.Heun()) == len(pipe.scheduler.timesteps)
    torch.testing.assert_close(result.flatten(), expected.flatten(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", PIPELINES)
def test_an_image_depends_on_its_seed_alone(kind):
    """Two calls in a row on one pipeline, with other batch sizes."""
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind))
    both, one = images(pipe, kind, seeds=(1, 2)), images(pipe, kind, seeds=(2,))
    torch.testing.assert_close(both[1:], one, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=0.1)
    torch.testing.assert_close(images(pipe, kind, seeds=(1, 2)), both)


@pytest.mark.parametrize(
    ("kind", "solver", "theirs", "settings"),
    [
        ("sd", "heun", HeunDiscreteScheduler, {"prediction_type": "v_prediction"}),
        # With this spacing the first sample has noise and data, as that of diffusers' multistep schedulers.
        (
            "sd",
            "dpmpp_2m",
            DPMSolverMultistepScheduler,
            {"prediction_type": "v_prediction", "timestep_spacing": "leading"},
        ),
        ("sd3", "heun", FlowMatchHeunDiscreteScheduler, {}),
        (
            "sd3",
            "dpmpp_2m",
            DPMSolverMultistepScheduler,
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        ),
    ],
)
def test_a_callback_may_change_the_state_as_with_diffusers_schedulers(kind, solver, theirs, settings, monkeypatch):
    """Also in the middle of a step; with v prediction the slope there depends on the state."""

    def callback(pipe, index, timestep, tensors):
        return {"latents": 0.9 * tensors["latents"]}

    ours, pipe = (PIPELINES[kind]() for _ in range(2))
    with_scheduler(ours, solver=solver, **({} if kind == "sd3" else settings))
    result = images(ours, kind, callback_on_step_end=callback)
    pipe.scheduler = theirs.from_config(pipe.scheduler.config, **settings)
    if solver == "dpmpp_2m":  # on our levels, of which it has others
        set_timesteps = pipe.scheduler.set_timesteps

        def on_our_levels(*arguments, **more):
            set_timesteps(*arguments, **more)
            pipe.scheduler.timesteps, pipe.scheduler.sigmas = ours.scheduler.timesteps, ours.scheduler.sigmas

        monkeypatch.setattr(pipe.scheduler, "set_timesteps", on_our_levels)
    torch.testing.assert_close(result, images(pipe, kind, callback_on_step_end=callback), atol=1e-4, rtol=0)


def test_a_controlnets_fractions_are_shares_of_the_rows(monkeypatch):
    """As documented: a fraction that ends at a timestep is the share of the rows down to it."""
    pipe = with_scheduler(stable_diffusion_with_controlnet(), restart=[[4, 2, 0.1, 1.0]], solver="euler")
    pipe.scheduler.set_timesteps(30)
    rows, down_to = pipe.scheduler.timesteps, 500
    forward, seen = pipe.controlnet.forward, []

    def recorded(sample, timestep, *others, conditioning_scale, **more):
        seen.append((timestep.item(), conditioning_scale))
        return forward(sample, timestep, *others, conditioning_scale=conditioning_scale, **more)

    monkeypatch.setattr(pipe.controlnet, "forward", recorded)
    for end, expected in (
        (0.5, rows[: len(rows) // 2]),
        (int((rows >= down_to).sum()) / len(rows), rows[rows >= down_to]),
    ):
        seen.clear()
        given = arguments("sd", num_inference_steps=30, control_guidance_end=end)
        pipe(image=torch.rand(1, 3, 16, 16), **given)
        assert [time for time, scale in seen if scale > 0] == expected.tolist()


def test_a_panorama_is_refused_since_the_noise_of_its_views_is_averaged():
    pipe = stable_diffusion("StableDiffusionPanoramaPipeline")
    given = arguments("sd", num_inference_steps=12)
    pipe(**given)
    with pytest.raises(InputError, match="averages overlapping views"):
        with_scheduler(pipe, restart=plan("sd"))(**given)
    with_scheduler(pipe, restart=None)(**given)


def test_generators_of_another_length_are_refused():
    pipe = with_scheduler(PIPELINES["flux"](), restart=plan("flux"))
    pipe.scheduler.generator = generators([1, 2])  # of a call before
    with pytest.raises(InputError, match="2 generators for 3 images"):
        pipe(**arguments("flux", seeds=(1, 2, 3), num_inference_steps=12))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_images_of_one_prompt_have_a_generator_each(kind):
    """num_images_per_prompt, and a pipeline that is a copy."""
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind))
    expected = images(pipe, kind, seeds=(3, 4, 5, 6))
    given = arguments(kind, seeds=(0, 0), num_inference_steps=12, num_images_per_prompt=2)
    copy = deepcopy(pipe)
    given["generator"] = generators([3, 4, 5, 6])
    torch.testing.assert_close(copy(**given).images, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("budget", [None, "inside", "extra"])
def test_bar_and_callbacks(kind, budget, monkeypatch):
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind), restart_budget=budget)
    seen, callback = counts(pipe, monkeypatch)
    images(pipe, kind, callback_on_step_end=callback)
    rows = len(pipe.scheduler.timesteps)
    assert seen.indices == list(range(rows))
    assert pipe.num_timesteps == rows
    assert [each.n for each in seen.bars] == [each.total for each in seen.bars] == [rows if kind == "flux" else 12]


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision(kind, dtype):
    exact = images(with_scheduler(PIPELINES[kind](), restart=plan(kind)), kind)
    pipe = with_scheduler(PIPELINES[kind]().to(dtype), restart=plan(kind))
    result = images(pipe, kind, dtype=dtype)
    assert result.dtype == dtype
    # The start is drawn in half precision by the pipeline, so only its likeness is asked for.
    assert torch.isfinite(result).all()
    assert result.float().std() == pytest.approx(exact.std().item(), rel=0.3)


@pytest.mark.parametrize("build", [stable_diffusion, stable_diffusion_3])
def test_a_saved_pipeline_comes_back_with_its_plan(build, tmp_path):
    kind = "sd" if build is stable_diffusion else "sd3"
    pipe = with_scheduler(build(), restart=plan(kind))
    pipe.save_pretrained(tmp_path)
    index = (tmp_path / "model_index.json").read_text()
    assert f'"restart_sampling.text_to_image",\n    "{type(pipe.scheduler).__name__}"' in index
    absent = {name: None for name, part in pipe.components.items() if part is None}
    loaded = DiffusionPipeline.from_pretrained(tmp_path, **absent)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler) is type(pipe.scheduler)
    assert loaded.scheduler.config.restart == plan(kind)
    assert torch.equal(images(loaded, kind), images(pipe, kind))


def test_the_papers_preset_in_a_pipeline(monkeypatch):
    pipe = with_scheduler(stable_diffusion(), **guidance_preset(7.5))
    rows, _ = record(pipe, monkeypatch)
    assert torch.isfinite(images(pipe, "sd", 30)).all()
    assert len(rows) == 64


def test_a_compiled_network_is_not_compiled_again():
    pipe = with_scheduler(stable_diffusion())
    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    images(pipe, "sd")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    for settings in ({"restart": plan("sd")}, {"restart": plan("sd"), "solver": "euler"}, guidance_preset(7.5)):
        with_scheduler(pipe, **settings)
        images(pipe, "sd", 30)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
