"""Tiny random pipelines from configs; prompts enter as embeddings, so that no tokenizer is needed."""

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet(**settings):
    torch.manual_seed(0)
    return UNet2DConditionModel(
        **{
            "block_out_channels": (4,),
            "layers_per_block": 1,
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("CrossAttnDownBlock2D",),
            "mid_block_type": None,
            "up_block_types": ("CrossAttnUpBlock2D",),
            "cross_attention_dim": 8,
            "attention_head_dim": 2,
            "norm_num_groups": 2,
            **settings,
        }
    ).eval()


def vae(latent_channels=4):
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=latent_channels,
        norm_num_groups=2,
        sample_size=16,
        shift_factor=0.0,
        scaling_factor=1.0,
    ).eval()


def _ddim():
    return DDIMScheduler(**SD, steps_offset=1, clip_sample=False)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion(kind="StableDiffusionPipeline"):
    pipeline = getattr(diffusers, kind)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = pipeline(unet=unet(), vae=vae(), scheduler=_ddim(), requires_safety_checker=False, **parts)
    return quiet(pipe)


def stable_diffusion_with_controlnet():
    torch.manual_seed(0)
    controlnet = ControlNetModel(
        block_out_channels=(4,),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("CrossAttnDownBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
        conditioning_embedding_out_channels=(4, 8),
    ).eval()
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = diffusers.StableDiffusionControlNetPipeline(
        unet=unet(), vae=vae(), controlnet=controlnet, scheduler=_ddim(), requires_safety_checker=False, **parts
    )
    return quiet(pipe)


def stable_diffusion_xl(kind="StableDiffusionXLPipeline"):
    network = unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 8
    )
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = getattr(diffusers, kind)(unet=network, vae=vae(), scheduler=_ddim(), add_watermarker=False, **parts)
    return quiet(pipe)


def stable_diffusion_3(kind="StableDiffusion3Pipeline"):
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=16,  # its inpainting pipeline asks for them
        out_channels=16,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=8,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    ).eval()
    names = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    pipe = getattr(diffusers, kind)(
        transformer=transformer,
        vae=vae(16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **dict.fromkeys(names),
    )
    return quiet(pipe)


def flux(kind="FluxPipeline"):
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=16,
        axes_dims_rope=[2, 2, 4],
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return quiet(getattr(diffusers, kind)(transformer=transformer, vae=vae(1), scheduler=scheduler, **parts))


PIPELINES = {"sd": stable_diffusion, "sdxl": stable_diffusion_xl, "sd3": stable_diffusion_3, "flux": flux}


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def arguments(kind, seeds=(0,), dtype=torch.float32, **settings):
    """What a pipeline of this kind is called with: embeddings of one prompt, and one generator an image."""
    random = torch.Generator().manual_seed(9)

    def embeddings(*shape):
        one = torch.randn(1, *shape, generator=random).to(dtype)
        return one.expand(len(seeds), *one.shape[1:])

    given = {"prompt_embeds": embeddings(5, 8), "generator": generators(seeds), "output_type": "latent"}
    if kind != "flux":
        given |= {"negative_prompt_embeds": embeddings(5, 8), "guidance_scale": 3.0}
    if kind != "sd":
        given["pooled_prompt_embeds"] = embeddings(8 if kind == "sdxl" else 16)
    if kind in ("sdxl", "sd3"):
        given["negative_pooled_prompt_embeds"] = embeddings(8 if kind == "sdxl" else 16)
    if "image" not in settings:
        given |= {"height": 16, "width": 16}
    return given | settings
