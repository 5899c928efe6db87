"""What the tests of pipelines share: a scheduler put into one, a run, and what its scheduler saw."""

from functools import wraps
from io import StringIO
from types import SimpleNamespace

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
)
from tiny_pipelines import PIPELINES, arguments

import restart_sampling as rs
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

FLOW_KINDS = ("sd3", "flux")
NAMES = {"sd": "StableDiffusion", "sdxl": "StableDiffusionXL", "sd3": "StableDiffusion3", "flux": "Flux"}

DIFFUSERS_SCHEDULERS = [
    ("sd", "heun", HeunDiscreteScheduler),
    ("sd", "euler", EulerDiscreteScheduler),
    ("sdxl", "heun", HeunDiscreteScheduler),
    ("sdxl", "euler", EulerDiscreteScheduler),
    ("sd3", "heun", FlowMatchHeunDiscreteScheduler),
    ("sd3", "euler", FlowMatchEulerDiscreteScheduler),
    ("flux", "euler", FlowMatchEulerDiscreteScheduler),
]
"""Pipelines, our solvers, and the scheduler that does the same without restarts; FLUX takes no Heun of diffusers."""


def pipeline(kind, task=""):
    """A tiny pipeline; task is "Img2Img", "Inpaint" or none."""
    return PIPELINES[kind](f"{NAMES[kind]}{task}Pipeline")


def with_scheduler(pipe, **settings):
    flow = isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
    class_ = FlowMatchRestartScheduler if flow else RestartScheduler
    pipe.scheduler = class_.from_config(pipe.scheduler.config, **settings)
    return pipe


def plan(kind):
    return [[3, 2, 0.3, 0.6]] if kind in FLOW_KINDS else [[3, 2, 0.2, 2.0]]


def task_arguments(kind, task, strength):
    if not task:
        return {}
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    given = {"image": image, "strength": strength}
    if task == "Inpaint" or kind in FLOW_KINDS:
        given |= {"height": 16, "width": 16}
    if task == "Inpaint":
        given["mask_image"] = torch.zeros(1, 1, 16, 16)
        given["mask_image"][..., 8:] = 1
    return given


def images(pipe, kind, steps=12, task="", strength=1.0, **settings):
    """Latents; one generator an image, which the flow scheduler is given too, as its pipelines pass it none."""
    given = arguments(kind, num_inference_steps=steps, **task_arguments(kind, task, strength), **settings)
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
        result = step(output, timestep, sample, generator=generator, return_dict=return_dict)
        rows.append((output, sample, scheduler.sigmas[scheduler.step_index - 1].item()))
        return result

    monkeypatch.setattr(scheduler, "step", recorded)
    return rows, noise


def follow(rows, noise, path, process, solver, restart_solver):
    """The library's `sample` along a path, given a pipeline's outputs: it must ask at the pipeline's states."""
    outputs = iter(rows)

    def denoise(x, level):
        output, state, row_level = next(outputs)
        torch.testing.assert_close(x.reshape(state.shape), state, atol=1e-4, rtol=0)
        assert abs(level.item() - row_level) < 1e-5 * row_level
        return x - level.float().reshape(-1, *[1] * (x.ndim - 1)) * output

    generator = torch.Generator()
    generator.set_state(noise[0])

    def perturb(x, low, high):
        keep, std = process.rise(low, high)
        return keep * x + std * torch.randn(x.shape, generator=generator)

    result = rs.follow(denoise, rows[0][1], path, solver, restart_solver, process, perturb)
    assert next(outputs, None) is None
    return result


def counts(pipe, monkeypatch):
    """What a user sees of the progress of the runs that follow: bars, and the indices that callbacks get."""
    seen = SimpleNamespace(bars=[], indices=[])
    bar = pipe.progress_bar

    def kept(*arguments, **settings):
        seen.bars.append(bar(*arguments, **settings))
        return seen.bars[-1]

    def callback(pipe, index, timestep, tensors):
        seen.indices.append(index)
        return tensors

    monkeypatch.setattr(pipe, "progress_bar", kept)
    pipe.set_progress_bar_config(disable=False, file=StringIO())
    return seen, callback
