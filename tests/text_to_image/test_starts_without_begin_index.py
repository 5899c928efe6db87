"""Pipelines that begin in the middle and say so by the timesteps alone (Wan, CogVideoX, Kandinsky, loops by hand)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)
from scheduler_runs import network
from tiny_pipelines import SD, quiet

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

SETTINGS = [
    {"restart": [[4, 1, 0.1, 2.0]]},
    {"restart": [[4, 2, 0.1, 2.0]], "restart_budget": "extra"},
    {"restart": [[4, 2, 0.1, 2.0]], "solver": "heun"},
    {"restart": [[4, 2, 0.1, 2.0]], "solver": "heun", "restart_budget": "extra"},
    {"restart": [[4, 2, 3.0, 8.0]], "solver": "heun", "restart_budget": "inside"},
]


def start_in_the_middle(scheduler, strength, steps=40, copy=True):
    """What these pipelines do: the level of the noising, and that of each call with what the network is told."""
    scheduler.set_timesteps(steps)
    first = max(steps - int(steps * strength), 0) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    data = torch.zeros(1, 4, 8, 8)
    at = timesteps[:1].repeat(1) if copy else timesteps[:1]
    noise = torch.ones_like(data)
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    x = scheduler.scale_noise(data, at, noise) if flow else scheduler.add_noise(data, noise, at)
    level, calls = x.max().item(), []
    for timestep in timesteps:
        scaled = x if flow else scheduler.scale_model_input(x, timestep)
        calls.append((scheduler.sigmas[scheduler.step_index or 0].item() if not flow else None, timestep.item()))
        x = scheduler.step(network(scaled, timestep), timestep, x).prev_sample
    return level, calls


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("strength", [0.95, 0.7, 0.45, 0.4])
@pytest.mark.parametrize("copy", [True, False])
def test_it_begins_where_it_would_without_restarts_and_each_call_is_told_its_own_level(strength, settings, copy):
    plain, _ = start_in_the_middle(EulerDiscreteScheduler(**SD), strength)
    scheduler = RestartScheduler(**SD, **settings)
    level, calls = start_in_the_middle(scheduler, strength, copy=copy)
    assert level == pytest.approx(plain)
    levels, times = zip(*calls, strict=True)
    assert max(levels) == levels[0] == pytest.approx(plain)
    assert scheduler.step_index == len(scheduler.timesteps)
    training = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).log() / 2
    np.testing.assert_allclose(np.log(levels), np.interp(times, np.arange(1000), training), atol=5e-3)
    assert any(then > now for now, then in pairwise(levels)) == (level > settings["restart"][0][2])


def test_a_second_image_begins_there_again():
    scheduler = FlowMatchRestartScheduler(shift=3.0, restart=[[4, 1, 0.3, 0.6]])
    first = start_in_the_middle(scheduler, 0.6)
    assert start_in_the_middle(scheduler, 0.6) == first


def test_training_noise_is_added_at_each_images_own_timestep():
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]])
    scheduler.set_timesteps(20)
    rows = torch.tensor([2, 5])
    data = torch.zeros(2, 4, 8, 8)
    noised = scheduler.add_noise(data, torch.ones_like(data), scheduler.timesteps[rows].clone())
    torch.testing.assert_close(noised[:, 0, 0, 0], scheduler.sigmas[rows])
    assert scheduler.begin_index is None


def test_a_sample_that_was_not_noised_here_is_told_the_right_reason():
    scheduler = RestartScheduler(**SD, restart=[[10, 1, 0.1, 2.0]])
    scheduler.set_timesteps(30)
    x = torch.randn(1, 4, 8, 8)
    with pytest.raises(InputError, match=r"noise it by the scheduler's add_noise or scale_noise, or for SDXL's"):
        scheduler.scale_model_input(x, scheduler.timesteps[15])


@pytest.fixture(scope="module")
def wan():
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()

    def run(scheduler, strength, monkeypatch):
        pipe = WanVideoToVideoPipeline(
            vae=vae, transformer=transformer, scheduler=scheduler, tokenizer=None, text_encoder=None
        )
        seen, forward = [], transformer.forward

        def recorded(*arguments, **named):
            seen.append(named["timestep"].flatten()[0].item())
            return forward(*arguments, **named)

        monkeypatch.setattr(transformer, "forward", recorded)
        result = quiet(pipe)(
            video=torch.zeros(1, 5, 3, 16, 16),
            prompt_embeds=torch.zeros(1, 16, 32),
            negative_prompt_embeds=torch.zeros(1, 16, 32),
            guidance_scale=1.0,
            height=16,
            width=16,
            strength=strength,
            num_inference_steps=20,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )
        monkeypatch.setattr(transformer, "forward", forward)
        return seen, result.frames

    return run


@pytest.mark.parametrize("strength", [0.9, 0.5])
def test_wan_begins_where_it_would_and_is_the_same_again(wan, strength, monkeypatch):
    expected, _ = wan(FlowMatchEulerDiscreteScheduler(shift=3.0), strength, monkeypatch)
    scheduler = FlowMatchRestartScheduler(shift=3.0, restart=[[3, 1, 0.3, 0.6]])
    seen, result = wan(scheduler, strength, monkeypatch)
    assert seen[0] == max(seen) == expected[0]
    assert len(seen) == len(expected)
    assert any(then > now for now, then in pairwise(seen))
    assert torch.equal(wan(scheduler, strength, monkeypatch)[1], result)
