"""Hooks of diffusers that look at the steps of a run: caches, callbacks, fractions; adapters."""

import diffusers
import pytest
import torch
from diffusers import hooks
from pipeline_runs import images, pipeline, plan, with_scheduler
from tiny_pipelines import arguments, quiet

from restart_sampling.text_to_image import reset_caches

ALWAYS = (-1, 1001)  # timesteps
NEVER_AGAIN = 1000  # steps until a cache is renewed


def first_block(pipe):
    return hooks.FirstBlockCacheConfig(threshold=1e9)  # which no change exceeds


def attention_broadcast(pipe):
    return hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=NEVER_AGAIN,
        spatial_attention_timestep_skip_range=ALWAYS,
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def taylor_seer(pipe):
    return hooks.TaylorSeerCacheConfig(cache_interval=NEVER_AGAIN, disable_cache_before_step=1, max_order=1)


def computed(pipe, layer, **given):
    """Batch sizes of the calls of a layer in a run with the callback."""
    calls = []
    layer.register_forward_hook(lambda layer, inputs, output: calls.append(len(output)))
    pipe(**given, num_inference_steps=12, callback_on_step_end=reset_caches)
    return calls


@pytest.mark.parametrize("solver", ["euler", "sde_dpmpp_2m"])
@pytest.mark.parametrize(
    ("cache", "apply", "expected"),
    [
        (first_block, None, 3),
        (attention_broadcast, None, 3),
        (attention_broadcast, hooks.apply_pyramid_attention_broadcast, 3),  # as the examples of diffusers do it
        (taylor_seer, None, 5),  # it needs two calls for a slope
    ],
)
def test_a_cache_is_made_anew_after_each_rise(cache, apply, expected, solver):
    """A block runs in the first call, and in the first after each of two rises."""
    pipe = with_scheduler(pipeline("flux"), restart=plan("flux"), solver=solver)
    (apply or type(pipe.transformer).enable_cache)(pipe.transformer, cache(pipe))
    calls = computed(pipe, pipe.transformer.single_transformer_blocks[-1].attn.to_q, **arguments("flux"))
    assert len(pipe.scheduler.path.rises) == 2
    assert len(calls) == expected


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_faster_cache_asks_without_the_prompt_after_each_rise():
    """With guidance: in the first call and the first after each rise; in all others it is told from the prompt's."""
    pipe = with_scheduler(pipeline("sd3"), restart=plan("sd3"))
    names = ("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections")
    cache = hooks.FasterCacheConfig(
        unconditional_batch_skip_range=NEVER_AGAIN,
        unconditional_batch_timestep_skip_range=ALWAYS,
        attention_weight_callback=lambda network: 0.5,
        tensor_format="BCHW",
        current_timestep_callback=lambda: pipe.scheduler.timesteps[pipe.scheduler.step_index or 0],
        _unconditional_conditional_input_kwargs_identifiers=names,
    )
    hooks.apply_faster_cache(pipe.transformer, cache)
    batches = computed(pipe, pipe.transformer.pos_embed, **arguments("sd3"))
    rises = [row for row, call in enumerate(pipe.scheduler._calls) if call.rises]
    assert [row for row, batch in enumerate(batches) if batch == 2] == [0, *(row + 1 for row in rises)]


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


def test_an_adapter_is_that_of_its_merged_weights_in_every_row():
    """LoRA: the weights of a call are the same in all, so that merging them changes nothing but the rounding."""
    peft = pytest.importorskip("peft")
    pipe = with_scheduler(pipeline("sd"), restart=plan("sd"), restart_budget="extra", solver="dpmpp_2m")
    plain = images(pipe, "sd")
    torch.manual_seed(1)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    adapted = images(pipe, "sd")
    assert (adapted - plain).abs().max() > 1e-2
    pipe.unet.set_adapters("default", weights=0.5)
    half = images(pipe, "sd")
    assert (half - adapted).abs().max() > 1e-2
    pipe.unet.fuse_lora()
    assert torch.allclose(images(pipe, "sd"), half, atol=1e-4)


def test_perturbed_attention_is_scaled_by_the_timestep_of_the_row(monkeypatch):
    """PAG."""
    pipe = diffusers.AutoPipelineForText2Image.from_pipe(pipeline("sd"), enable_pag=True, pag_applied_layers=["down"])
    with_scheduler(quiet(pipe), restart=plan("sd"), restart_budget="extra")
    times = []
    scale = type(pipe)._get_pag_scale

    def seen(pipe, t):
        times.append(float(t))
        return scale(pipe, t)

    monkeypatch.setattr(type(pipe), "_get_pag_scale", seen)
    images(pipe, "sd", pag_scale=3.0, pag_adaptive_scale=0.01)
    assert times == pipe.scheduler.timesteps.tolist()
    assert len(times) == 12 + 2 * 2


def ip_adapter(network):
    """Random weights of an IP-Adapter for a tiny UNet, with images as vectors of 6."""
    torch.manual_seed(2)
    cross = network.config.cross_attention_dim
    names = [name for name in network.attn_processors if name.endswith("attn2.processor")]
    widths = [network.get_submodule(name.removesuffix(".processor")).to_q.out_features for name in names]
    keys = {
        f"{2 * number + 1}.to_{key}_ip.weight": torch.randn(width, cross)
        for number, width in enumerate(widths)
        for key in "kv"
    }
    projection = {"proj.weight": torch.randn(4 * cross, 6), "proj.bias": torch.zeros(4 * cross)}
    return {
        "image_proj": {**projection, "norm.weight": torch.ones(cross), "norm.bias": torch.zeros(cross)},
        "ip_adapter": keys,
    }


def test_an_ip_adapter_is_asked_in_every_row():
    pipe = with_scheduler(pipeline("sd"), restart=plan("sd"), restart_budget="extra", solver="dpmpp_2m")
    plain = images(pipe, "sd")
    pipe.unet._load_ip_adapter_weights(ip_adapter(pipe.unet))
    calls = []
    pipe.unet.encoder_hid_proj.register_forward_hook(lambda *_: calls.append(1))
    given = {"ip_adapter_image_embeds": [torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(4))]}
    pipe.set_ip_adapter_scale(0.0)
    assert torch.allclose(images(pipe, "sd", **given), plain, atol=1e-4)
    assert len(calls) == len(pipe.scheduler.timesteps) == 12 + 2 * 2
    pipe.set_ip_adapter_scale(1.0)
    assert (images(pipe, "sd", **given) - plain).abs().max() > 1e-2
