"""Stable Diffusion 1.5 with the paper's settings: 64 steps of the network for each image."""

import torch
from diffusers import StableDiffusionPipeline

from restart_sampling.text_to_image import RestartScheduler, guidance_preset

guidance = 7.5
seeds = [0, 1, 2, 3]

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.scheduler = RestartScheduler.from_config(pipe.scheduler.config, **guidance_preset(guidance))
pipe.to("cuda")

images = pipe(
    ["a photograph of an astronaut riding a horse"] * len(seeds),
    num_inference_steps=30,
    guidance_scale=guidance,
    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
).images
for seed, image in zip(seeds, images, strict=True):
    image.save(f"astronaut-{seed}.png")
