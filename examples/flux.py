"""FLUX.1-dev: 28 steps of Euler, and one restart from t = 0.3 up to 0.6 (6 evaluations more)."""

import torch
from diffusers import FluxPipeline

from restart_sampling.text_to_image import FlowMatchRestartScheduler

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.scheduler = FlowMatchRestartScheduler.from_config(
    pipe.scheduler.config, restart=[[4, 1, 0.3, 0.6]], solver="euler", restart_solver="heun"
)
pipe.enable_model_cpu_offload()

generator = torch.Generator().manual_seed(0)
pipe.scheduler.generator = generator  # this pipeline passes its own to the start only
image = pipe("a cat that holds a sign", num_inference_steps=28, guidance_scale=3.5, generator=generator).images[0]
image.save("cat.png")
