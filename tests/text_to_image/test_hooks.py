"""Hooks of diffusers that look at the steps of a run: caches, callbacks, fractions."""

import pytest
from diffusers.hooks import FirstBlockCacheConfig
from pipeline_runs import pipeline, plan, with_scheduler
from tiny_pipelines import arguments

from restart_sampling.text_to_image import reset_caches


@pytest.mark.parametrize("solver", ["euler", "sde_dpmpp_2m"])
def test_a_cache_is_made_anew_after_each_rise(solver):
    """With a threshold that no change exceeds: the blocks run in the first call, and in the first after each rise."""
    pipe = with_scheduler(pipeline("flux"), restart=plan("flux"), solver=solver)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    calls = []
    pipe.transformer.single_transformer_blocks[-1].attn.register_forward_hook(lambda *_: calls.append(1))
    given = {"num_inference_steps": 12, "callback_on_step_end": reset_caches}
    pipe(**arguments("flux", **given))
    assert len(calls) == 1 + len(pipe.scheduler.path.rises) == 3


@pytest.mark.parametrize("fraction", [0.4, 0.8])
def test_guidance_that_a_callback_ends_is_off_for_the_rows_that_are_left(fraction):
    """As diffusers documents it: by pipe.num_timesteps, which counts rows."""
    pipe = with_scheduler(pipeline("sd"), restart=plan("sd"), restart_budget="extra", solver="dpmpp_2m")
    batches = []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))

    def stop(pipe, index, timestep, tensors):
        if index == int(pipe.num_timesteps * fraction):
            tensors["prompt_embeds"] = tensors["prompt_embeds"][-1:]
            pipe._guidance_scale = 0.0
        return tensors

    given = {"callback_on_step_end": stop, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    pipe(**arguments("sd", num_inference_steps=12, **given))
    rows = len(pipe.scheduler.timesteps)
    assert pipe.num_timesteps == rows == len(batches) == 12 + 2 * 2
    guided = int(rows * fraction) + 1
    assert batches == [2] * guided + [1] * (rows - guided)


@pytest.mark.parametrize("hook", ["freeu", "guidance_rescale"])
def test_hooks_of_one_call_see_each_row_as_it_is(hook):
    """They know no step: a run without restarts on a solver of the same rows has the same first picture."""
    pictures = []
    for restart in ([], plan("sd")):
        pipe = with_scheduler(pipeline("sd"), restart=restart, restart_budget="extra")
        more = {"guidance_rescale": 0.7} if hook == "guidance_rescale" else {}
        if hook == "freeu":
            pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
        seen = []

        def keep(pipe, index, timestep, tensors, seen=seen):
            seen.append(tensors["latents"])
            return tensors

        pipe(**arguments("sd", num_inference_steps=12, callback_on_step_end=keep, **more))
        pictures.append(seen)
    first = next(row for row, call in enumerate(pipe.scheduler._calls) if call.rises)
    assert all((one == other).all() for one, other in zip(*(each[:first] for each in pictures), strict=True))
