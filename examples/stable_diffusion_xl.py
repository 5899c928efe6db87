"""Stable Diffusion XL: AUTOMATIC1111's rule, restarts out of 40 steps of Heun."""

import torch
from diffusers import StableDiffusionXLPipeline

from restart_sampling.text_to_image import RestartScheduler, steps_preset

steps = 40

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16"
)
pipe.scheduler = RestartScheduler.from_config(pipe.scheduler.config, **steps_preset(steps))
pipe.to("cuda")

image = pipe(
    "a lighthouse in a storm, oil painting",
    num_inference_steps=steps,
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save("lighthouse.png")
