"""Pipelines that were saved with a scheduler of version 0.1.0 find it again, with its settings."""

import json
import shutil
from importlib import import_module

import numpy as np
import pytest
import torch
from old_files import FILES

from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

CLASSES = {"restart": RestartScheduler, "flow_restart": FlowMatchRestartScheduler}
STATES = dict(np.load(FILES / "schedulers/states.npz"))


def toy_network(x, timestep):
    return torch.tanh(x * (1 + torch.as_tensor(timestep) / 1000))


def check_states(name, scheduler):
    """It does what it did; in float32, where machines differ in the last digits."""
    scheduler.set_timesteps(10)
    scheduler._check_first_step = lambda row, sample: None  # the start of that file has less noise than its level
    np.testing.assert_allclose(scheduler.timesteps.numpy(), STATES[f"{name}.timesteps"], rtol=1e-5, atol=1e-4)
    x = torch.from_numpy(STATES[f"{name}.start"])
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(toy_network(scaled, timestep), timestep, x, generator=generators).prev_sample
    np.testing.assert_allclose(x.numpy(), STATES[f"{name}.end"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_scheduler_is_read(name):
    folder = FILES / f"schedulers/{name}"
    saved = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    scheduler = CLASSES[name].from_pretrained(folder, subfolder="scheduler")
    assert type(scheduler).__name__ == saved["_class_name"]
    for key, value in saved.items():
        if not key.startswith("_"):
            assert scheduler.config[key] == value, key
    check_states(name, scheduler)


@pytest.mark.parametrize("name", CLASSES)
def test_the_path_in_a_saved_pipeline_leads_to_the_class(name):
    index = json.loads((FILES / f"schedulers/{name}/model_index.json").read_text())
    library, class_name = index["scheduler"]
    assert getattr(import_module(library), class_name) is CLASSES[name]
    assert import_module(library).SchedulerMixin is import_module("diffusers").SchedulerMixin  # diffusers looks for it


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_pipeline_is_loaded_by_diffusers(name, tmp_path):
    """Its networks, which are diffusers' own, are left out."""
    from diffusers import DiffusionPipeline

    shutil.copytree(FILES / f"schedulers/{name}", tmp_path / name)
    index = json.loads((tmp_path / name / "model_index.json").read_text())
    parts = {key for key, value in index.items() if isinstance(value, list)} - {"scheduler"}
    pipe = DiffusionPipeline.from_pretrained(tmp_path / name, low_cpu_mem_usage=False, **dict.fromkeys(parts))
    assert type(pipe.scheduler) is CLASSES[name]
    check_states(name, pipe.scheduler)
