"""Image-to-image, inpainting, and SDXL's base and refiner: pipelines that enter in the middle."""

from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from diffusers.modular_pipelines.stable_diffusion_xl.before_denoise import StableDiffusionXLSetTimestepsStep
from pipeline_runs import (
    DIFFUSERS_SCHEDULERS,
    FLOW_KINDS,
    counts,
    follow,
    images,
    pipeline,
    plan,
    record,
    with_scheduler,
)
from tiny_pipelines import PIPELINES, SD, arguments

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import RestartScheduler, guidance_preset

TASKS = ["Img2Img", "Inpaint"]
SOLVERS = ["heun", "euler"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("kind", "solver", "theirs"), DIFFUSERS_SCHEDULERS)
def test_without_restart_images_are_those_of_diffusers_schedulers(kind, solver, theirs, task):
    pipe = pipeline(kind, task)
    pipe.scheduler = theirs.from_config(pipe.scheduler.config)
    expected = images(pipe, kind, task=task, strength=0.6)
    ours = images(with_scheduler(pipeline(kind, task), solver=solver), kind, task=task, strength=0.6)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("solver", "strength", "budget"),
    [
        ("heun", 0.9, None),
        ("euler", 0.6, "extra"),
        pytest.param("heun", 0.6, "extra", marks=pytest.mark.slow),
        pytest.param("euler", 0.9, None, marks=pytest.mark.slow),
    ],
)
def test_it_begins_where_it_would_without_restart_and_never_rises_above(
    kind, task, solver, strength, budget, monkeypatch
):
    starts = []
    for restart in ([], plan(kind)):
        pipe = with_scheduler(pipeline(kind, task), restart=restart, solver=solver, restart_budget=budget)
        rows, _ = record(pipe, monkeypatch)
        seen, callback = counts(pipe, monkeypatch)
        images(pipe, kind, 24, task, strength, callback_on_step_end=callback)
        levels = [level for *_, level in rows]
        assert max(levels) == levels[0]
        assert any(then > now for now, then in pairwise(levels)) == bool(restart)
        assert seen.indices == list(range(len(rows)))
        assert pipe.num_timesteps == len(rows)
        assert [each.n for each in seen.bars] == [each.total for each in seen.bars]
        starts.append((levels[0], rows[0][1]))
    assert starts[0][0] == starts[1][0]
    assert torch.equal(starts[0][1], starts[1][1])


@pytest.mark.parametrize("kind", PIPELINES)
def test_it_follows_the_librarys_own_sample_from_there(kind, monkeypatch):
    """Extra restarts, Euler in the main grid: what is left of it is that without restarts, level by level.

    FLUX leaves too few rows for that, so there the levels of the main grid are the scheduler's.
    """
    process = rs.FLOW if kind in FLOW_KINDS else rs.VE
    settings = {"solver": "euler", "restart_solver": "heun", "restart_budget": "extra"}
    pipe = with_scheduler(pipeline(kind, "Img2Img"), restart=plan(kind), **settings)
    rows, noise = record(pipe, monkeypatch)
    result = images(pipe, kind, 24, "Img2Img", 0.5)
    plain = with_scheduler(pipeline(kind, "Img2Img"), solver="euler")
    images(plain, kind, 24, "Img2Img", 0.5)
    levels = plain.scheduler.sigmas[plain.scheduler.begin_index :].tolist()
    if kind == "flux":
        calls = pipe.scheduler._calls[pipe.scheduler.begin_index :]
        levels = [*(call.level for call in calls if not call.restart), 0.0]
    points, repeats, t_min, t_max = plan(kind)[0]
    path = rs.restart_path(levels, [rs.RestartInterval(points, repeats, t_min, min(t_max, levels[0]))])
    expected = follow(rows, noise, path, process, rs.Euler(), rs.Heun())
    torch.testing.assert_close(result.flatten(), expected.flatten(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_inpainting_blends_at_the_level_of_the_next_row(kind, solver, monkeypatch):
    pipe = with_scheduler(pipeline(kind, "Inpaint"), restart=plan(kind), solver=solver)
    rows, _ = record(pipe, monkeypatch)
    name = "scale_noise" if kind in FLOW_KINDS else "add_noise"
    add, noised = getattr(pipe.scheduler, name), []

    def recorded(x0, first, second):
        result = add(x0, first, second)
        noise = second if kind in FLOW_KINDS else first
        keep = noise - x0 if kind in FLOW_KINDS else noise
        noised.append(((result - x0) / keep).median().item())
        return result

    monkeypatch.setattr(pipe.scheduler, name, recorded)
    images(pipe, kind, 24, "Inpaint", 0.9)
    # The start, then a blend at the end of each row but the last.
    assert noised == pytest.approx([level for *_, level in rows], rel=2e-3)


def test_restarts_that_strength_leaves_no_room_for_are_refused():
    pipe = with_scheduler(pipeline("sd", "Img2Img"), restart=[[10, 2, 0.1, 2.0]])
    with pytest.raises(InputError, match="use more steps"):
        images(pipe, "sd", 30, "Img2Img", 0.3)


def test_the_papers_preset_keeps_its_main_grid():
    pipe = with_scheduler(pipeline("sd", "Img2Img"), **guidance_preset(7.5))
    images(pipe, "sd", 30, "Img2Img", 0.6)
    rows = pipe.scheduler.timesteps[pipe.scheduler.begin_index :].tolist()
    assert rows[:17] == [33.0 * i + 1 for i in reversed(range(1, 18))]
    assert len(rows) == 18 + 34


def latents(kind, seed=5):
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def base_and_refiner(make, cut, monkeypatch=None):
    """Latents of both, and the rows of each."""
    base, refiner = make(pipeline("sdxl")), make(pipeline("sdxl", "Img2Img"))
    seen = [record(each, monkeypatch)[0] for each in (base, refiner)] if monkeypatch else None
    given = arguments("sdxl", num_inference_steps=20)
    first = base(denoising_end=cut, **given).images
    del given["height"], given["width"]
    return first, refiner(image=first, denoising_start=cut, **given).images, seen


@pytest.mark.parametrize(("solver", "theirs"), [("heun", HeunDiscreteScheduler), ("euler", EulerDiscreteScheduler)])
def test_base_and_refiner_without_restart_are_those_of_diffusers_schedulers(solver, theirs):
    def make(pipe):
        pipe.scheduler = theirs.from_config(pipe.scheduler.config)
        return pipe

    expected = base_and_refiner(make, 0.7)
    result = base_and_refiner(lambda pipe: with_scheduler(pipe, solver=solver), 0.7)
    for ours, other in zip(result[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("budget", ["inside", "extra"])
@pytest.mark.parametrize("restart", [[[3, 2, 3.0, 8.0]], [[3, 2, 0.1, 0.4]]], ids=["above", "below"])
def test_base_and_refiner_share_a_path_whose_restarts_are_on_one_side(restart, budget, monkeypatch):
    settings = {"solver": "euler", "restart_solver": "heun", "restart_budget": budget, "restart": restart}
    *_, (base, refiner) = base_and_refiner(lambda pipe: with_scheduler(pipe, **settings), 0.7, monkeypatch)
    whole = with_scheduler(pipeline("sdxl"), **settings)
    whole.scheduler.set_timesteps(20)
    assert [level for *_, level in base + refiner] == whole.scheduler.sigmas[:-1].tolist()


def test_a_base_whose_restart_crosses_the_cut_and_a_refiner_that_would_begin_in_one_refuse():
    settings = {"solver": "euler", "restart": [[6, 1, 0.1, 2.0]]}
    with pytest.raises(InputError, match=r"denoising_end=0\.7 stops at timestep 300, and a restart goes across it"):
        base_and_refiner(lambda pipe: with_scheduler(pipe, **settings), 0.7)
    refiner = with_scheduler(pipeline("sdxl", "Img2Img"), **settings)
    given = arguments("sdxl", num_inference_steps=20, image=latents("sdxl"))
    with pytest.raises(InputError, match="denoising_start"):
        refiner(denoising_start=0.7, **given)


def test_a_modular_base_whose_restart_crosses_the_cut_refuses():
    base = StableDiffusionXLSetTimestepsStep().init_pipeline()
    for t_max, across in ((2.0, True), (0.5, False)):
        base.update_components(scheduler=RestartScheduler(**SD, restart=[[6, 1, 0.1, t_max]]))
        with pytest.raises(InputError, match=r"denoising_end=0\.7") if across else nullcontext():
            base(num_inference_steps=20, denoising_end=0.7)


def test_a_base_says_once_what_its_refiner_must_have(caplog):
    base = with_scheduler(pipeline("sdxl"), restart=[[3, 1, 3.0, 8.0]])
    base(denoising_end=0.7, **arguments("sdxl", num_inference_steps=20))
    assert "restart_budget='extra', which keeps its grid" in caplog.text
    caplog.clear()
    base.scheduler.register_to_config(restart_budget="extra")
    base(denoising_end=0.7, **arguments("sdxl", num_inference_steps=20))
    assert "denoising_end" not in caplog.text
