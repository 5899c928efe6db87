"""Unmodified pipelines with the schedulers."""

from functools import wraps
from io import StringIO
from itertools import pairwise

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
)
from tiny_pipelines import PIPELINES, arguments, flux, stable_diffusion, stable_diffusion_3

import restart_sampling as rs
from restart_sampling.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler, guidance_preset

FLOW_KINDS = ("sd3", "flux")
DTYPES = [torch.float16, torch.bfloat16]


def with_scheduler(pipe, **settings):
    flow = isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
    class_ = FlowMatchRestartScheduler if flow else RestartScheduler
    pipe.scheduler = class_.from_config(pipe.scheduler.config, **settings)
    return pipe


def plan(kind):
    return [[3, 2, 0.3, 0.6]] if kind in FLOW_KINDS else [[3, 2, 0.2, 2.0]]


def images(pipe, kind, steps=12, **settings):
    """Latents; one generator an image, which the flow scheduler is given too, as its pipelines pass it none."""
    given = arguments(kind, num_inference_steps=steps, **settings)
    if isinstance(pipe.scheduler, FlowMatchRestartScheduler):
        pipe.scheduler.generator = given["generator"]
    return pipe(**given).images


def record(pipe, monkeypatch):
    """Rows of a run: (model's output, state, level of the row), and the generator's state at the first."""
    scheduler, rows, noise = pipe.scheduler, [], []
    step = scheduler.step

    @wraps(step)
    def recorded(output, timestep, sample, generator=None, return_dict=True):
        if not rows:
            noise.extend(each.get_state() for each in generator or scheduler.generator or ())
        rows.append((output, sample, scheduler.sigmas[scheduler.step_index or 0].item()))
        return step(output, timestep, sample, generator=generator, return_dict=return_dict)

    monkeypatch.setattr(scheduler, "step", recorded)
    return rows, noise


@pytest.mark.parametrize(
    ("kind", "solver", "theirs"),
    [
        ("sd", "heun", HeunDiscreteScheduler),
        ("sd", "euler", EulerDiscreteScheduler),
        ("sdxl", "heun", HeunDiscreteScheduler),
        ("sdxl", "euler", EulerDiscreteScheduler),
        ("sd3", "heun", FlowMatchHeunDiscreteScheduler),
        ("sd3", "euler", FlowMatchEulerDiscreteScheduler),
        ("flux", "euler", FlowMatchEulerDiscreteScheduler),
    ],
)
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
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind), restart_budget="extra")
    rows, noise = record(pipe, monkeypatch)
    result = images(pipe, kind)
    plain = with_scheduler(PIPELINES[kind](), solver="euler")
    images(plain, kind)
    path = rs.restart_path(plain.scheduler.sigmas.tolist(), [rs.RestartInterval(*each) for each in plan(kind)])
    outputs = iter(rows)

    def denoise(x, level):
        output, state, row_level = next(outputs)
        torch.testing.assert_close(x, state, atol=1e-4, rtol=0)
        assert level.item() == pytest.approx(row_level)
        return x - level.float().reshape(-1, *[1] * (x.ndim - 1)) * output

    generator = torch.Generator()
    generator.set_state(noise[0])

    def perturb(x, low, high):
        keep, std = process.rise(low, high)
        return keep * x + std * torch.randn(x.shape, generator=generator)

    expected = rs.sample(denoise, rows[0][1], path, process=process, perturb=perturb)
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


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("budget", [None, "inside", "extra"])
def test_bar_and_callbacks(kind, budget, monkeypatch):
    pipe = with_scheduler(PIPELINES[kind](), restart=plan(kind), restart_budget=budget)
    bars, indices = [], []
    bar = pipe.progress_bar

    def kept(*arguments, **settings):
        bars.append(bar(*arguments, **settings))
        return bars[-1]

    monkeypatch.setattr(pipe, "progress_bar", kept)
    pipe.set_progress_bar_config(disable=False, file=StringIO())

    def callback(pipe, index, timestep, tensors):
        indices.append(index)
        return tensors

    images(pipe, kind, callback_on_step_end=callback)
    rows = len(pipe.scheduler.timesteps)
    assert indices == list(range(rows))
    assert pipe.num_timesteps == rows
    assert [each.n for each in bars] == [each.total for each in bars] == [rows if kind == "flux" else 12]


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


def image_arguments(kind, strength):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return {"image": image, "strength": strength} | ({"height": 16, "width": 16} if kind in FLOW_KINDS else {})


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
@pytest.mark.parametrize("strength", [0.9, 0.5])
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_image_to_image_begins_where_it_would_without_restart_and_never_rises_above(
    kind, strength, solver, monkeypatch
):
    name = {"sd": "StableDiffusion", "sdxl": "StableDiffusionXL", "sd3": "StableDiffusion3"}[kind] + "Img2ImgPipeline"
    starts = []
    for restart in ([], plan(kind)):
        pipe = with_scheduler(PIPELINES[kind](name), restart=restart, solver=solver)
        rows, _ = record(pipe, monkeypatch)
        images(pipe, kind, 24, **image_arguments(kind, strength))
        levels = [level for *_, level in rows]
        assert max(levels) == levels[0]
        assert any(then > now for now, then in pairwise(levels)) == bool(restart)
        starts.append((levels[0], rows[0][1], len(rows)))
    assert starts[0][0] == starts[1][0]
    assert torch.equal(starts[0][1], starts[1][1])
    assert starts[0][2] == starts[1][2]


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_inpainting_blends_at_the_level_of_the_next_row(solver, monkeypatch):
    pipe = with_scheduler(stable_diffusion("StableDiffusionInpaintPipeline"), restart=plan("sd"), solver=solver)
    rows, _ = record(pipe, monkeypatch)
    add_noise, noised = pipe.scheduler.add_noise, []

    def recorded(x0, noise, timesteps):
        result = add_noise(x0, noise, timesteps)
        noised.append(((result - x0) / noise).median().item())
        return result

    monkeypatch.setattr(pipe.scheduler, "add_noise", recorded)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    images(pipe, "sd", 24, mask_image=mask, **image_arguments("sd", 0.9))
    levels = [level for *_, level in rows]
    assert max(levels) == levels[0]
    assert noised == pytest.approx(levels, rel=1e-3)  # the start, then a blend at the end of each row but the last


def test_flux_image_to_image():
    pipe = with_scheduler(flux("FluxImg2ImgPipeline"), restart=plan("flux"), solver="euler")
    images(pipe, "flux", 12, **image_arguments("flux", 0.6))
    begin = pipe.scheduler.begin_index
    levels = pipe.scheduler.sigmas[begin:]
    assert begin > 0
    assert levels.max() == levels[0]
    assert (levels.diff() > 0).any()


def test_restarts_that_strength_leaves_no_room_for_are_refused():
    pipe = with_scheduler(stable_diffusion("StableDiffusionImg2ImgPipeline"), restart=[[10, 2, 0.1, 2.0]])
    with pytest.raises(InputError, match="use more steps"):
        images(pipe, "sd", 30, **image_arguments("sd", 0.3))


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


@pytest.mark.slow
def test_a_compiled_network_is_not_compiled_again():
    pipe = with_scheduler(stable_diffusion())
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend=backend)
    images(pipe, "sd")
    before = len(graphs)
    with_scheduler(pipe, restart=plan("sd"))
    images(pipe, "sd")
    assert before > 0
    assert len(graphs) == before
