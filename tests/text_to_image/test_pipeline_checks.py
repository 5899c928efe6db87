"""Loops that do with the rows what restarts do not bear, as pipelines have them: refused at the first step."""

from contextlib import nullcontext
from copy import deepcopy
from inspect import signature, unwrap
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    Cosmos3OmniPipeline,
    DDPMScheduler,
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    Ideogram4Pipeline,
    IFInpaintingPipeline,
    LTX2ConditionPipeline,
)
from diffusers.pipelines.free_init_utils import FreeInitMixin
from scheduler_runs import FLOW_PLAN, PLAN, start
from tiny_pipelines import SD, generators, unet

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

KEPT = "keeps its image or video conditions"
ENDS = "told where each step ends"
WEIGHTS = r"30 guidance weights, one for each step, and the scheduler \d+ rows"


def ltx2(scheduler, t, x, mask):
    """A step in the loop of LTX 2's pipeline: what the mask has is pulled to the clean latents alone."""
    clean_latents, conditioning_mask = torch.zeros_like(x), torch.full((2, 4, 8, 1), float(mask))
    denoised = 0.5 * x * (1 - conditioning_mask) + clean_latents * conditioning_mask
    return scheduler.step((x - denoised) / scheduler.sigmas[0], t, x)


def modular_ltx2(scheduler, t, x, mask):
    block_state = SimpleNamespace(latents=x, clean_latents=torch.zeros_like(x), conditioning_mask=torch.tensor(mask))
    return scheduler.step(x, t, block_state.latents)


def cosmos3(scheduler, t, x, mask):
    vision_condition_mask = torch.full((4, 1, 1), float(mask))
    return scheduler.step(x * (1 - vision_condition_mask), t, x)


def mean_flow(scheduler, t, x, told):
    """A step in the loop of HunyuanImage's pipeline: the network is told this timestep and the next."""
    self = SimpleNamespace(transformer=SimpleNamespace(config=SimpleNamespace(use_meanflow=told)))
    timestep_r = scheduler.timesteps[1] if self.transformer.config.use_meanflow else t
    return scheduler.step(x * timestep_r / 1000, t, x)


def modular_mean_flow(scheduler, t, x, told):
    components = SimpleNamespace(transformer=SimpleNamespace(config=SimpleNamespace(use_meanflow=told)))
    return scheduler.step(x if components else t, t, x)


def weighted(scheduler, t, x, weights):
    """A step in the loop of Ideogram 4's pipeline."""
    gw = torch.full((30,), 7.0) if weights else None
    return scheduler.step(x if gw is None else gw[0] * x, t, x)


def modular_weighted(scheduler, t, x, weights):
    block_state = SimpleNamespace(latents=x, gw=torch.full((30 if weights else len(scheduler.timesteps),), 7.0))
    return scheduler.step(block_state.gw[0] * x, t, block_state.latents)


@pytest.mark.parametrize(
    ("loop", "with_restarts", "with_heun"),
    [
        (ltx2, KEPT, None),
        (modular_ltx2, KEPT, None),
        (cosmos3, KEPT, None),
        (mean_flow, ENDS, ENDS),
        (modular_mean_flow, ENDS, ENDS),
        (weighted, WEIGHTS, WEIGHTS),
        (modular_weighted, WEIGHTS, WEIGHTS),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_loop_that_does_not_bear_restarts_is_refused(loop, with_restarts, with_heun, wrapped, monkeypatch):
    for settings, sentence in (
        ({"restart": FLOW_PLAN, "restart_budget": "extra"}, with_restarts),
        ({"solver": "heun"}, with_heun),
        ({}, None),
    ):
        for does in (True, False):
            scheduler = FlowMatchRestartScheduler(**settings)
            scheduler.set_timesteps(30)
            if wrapped:  # by a user who counts steps
                step = scheduler.step
                monkeypatch.setattr(scheduler, "step", lambda *given, step=step: step(*given))
            with pytest.raises(InputError, match=sentence) if does and sentence else nullcontext():
                loop(scheduler, scheduler.timesteps[0], start(), does)


def test_the_loops_of_diffusers_have_these_names():
    for pipeline, names in (
        (LTX2ConditionPipeline, {"conditioning_mask", "clean_latents"}),
        (Cosmos3OmniPipeline, {"vision_condition_mask"}),
        (Ideogram4Pipeline, {"gw"}),
    ):
        code = unwrap(pipeline.__call__).__code__
        assert names <= {*code.co_varnames, *code.co_cellvars}
    for network in (HunyuanImageTransformer2DModel, HunyuanVideo15Transformer3DModel):
        assert "use_meanflow" in signature(network.__init__).parameters


@pytest.mark.parametrize("restart", [None, PLAN])
def test_free_init_is_refused_before_its_first_run(restart):
    """Its second start would have twice the noise of its level, with diffusers' Euler too."""

    class Pipeline(FreeInitMixin):
        scheduler = RestartScheduler(**SD, restart=restart)

    pipe = Pipeline()
    pipe.enable_free_init(num_iters=2)
    with pytest.raises(InputError, match="disable_free_init, or DDIMScheduler"):
        pipe._apply_free_init(start(), 0, 30, "cpu", torch.float32, torch.Generator())
    pipe.scheduler.set_timesteps(30)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_copy_draws_other_noise(interrupted):
    """LTX 2 steps its sound by a deep copy of the scheduler, SkyReels each frame; also after a run that was stopped."""
    scheduler = FlowMatchRestartScheduler(restart=FLOW_PLAN)
    scheduler.generator = generators([1, 2])
    if interrupted:
        scheduler.set_timesteps(30)
        scheduler.step(start(), scheduler.timesteps[0], start())
    ends = []
    for each in (scheduler, deepcopy(scheduler)):
        each.set_timesteps(30)
        x = torch.zeros(2, 4, 8, 8)
        for timestep in each.timesteps:
            x = each.step(torch.zeros_like(x), timestep, x).prev_sample
        ends.append(x)
    assert ends[0].std() > 0.5
    assert torch.corrcoef(torch.stack([each.flatten() for each in ends]))[0, 1].abs() < 0.2
    assert deepcopy(scheduler).config.restart == FLOW_PLAN


def test_a_copy_with_a_generator_of_the_user_keeps_it():
    scheduler = FlowMatchRestartScheduler(restart=FLOW_PLAN)
    scheduler.generator = torch.Generator()
    scheduler.set_timesteps(30)
    scheduler.step(start(), scheduler.timesteps[0], start())
    copied = deepcopy(scheduler)
    copied.generator = own = torch.Generator()
    copied.set_timesteps(30)
    assert copied.generator is own


@pytest.mark.parametrize("restart", [None, PLAN])
def test_inpainting_by_deepfloyd_is_refused(restart):
    """It shows its network the clean part at its full size, which a level above 0 would scale down."""
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "watermarker"))
    network = unet(in_channels=3, out_channels=6)
    made = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    pipe = IFInpaintingPipeline(unet=network, scheduler=made, **parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = RestartScheduler.from_config(made.config, restart=restart)

    def draw(mask):
        words = torch.zeros(1, 2, 8)
        return pipe(
            image=torch.full((1, 3, 8, 8), 0.5),
            mask_image=mask,
            prompt_embeds=words,
            negative_prompt_embeds=words,
            num_inference_steps=30,
            output_type="pt",
        ).images

    mask = torch.ones(1, 1, 8, 8)
    assert draw(mask).isfinite().all()
    mask[..., :1] = 0
    with pytest.raises(InputError, match=r"not repainted without noise \(DeepFloyd IF\)"):
        draw(mask)
