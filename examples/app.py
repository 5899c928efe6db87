"""The page of `restart-sampling app` as a Space of Hugging Face: this file, and a requirements.txt with

    restart-sampling[app,hub,text]

Models of one's own are named as everywhere: MODELS="hf://me/flowers" (several with spaces between them), and so are
pipelines of diffusers: PIPELINES="stable-diffusion-v1-5/stable-diffusion-v1-5".
"""

import os

from restart_sampling.app.page import launch, make_page

models = os.environ.get("MODELS", "cifar10-small cifar10-vp-small cifar10-pfgmpp-small").split()
pipelines = os.environ.get("PIPELINES", "tiny-text-to-image").split()
launch(make_page(models, pipelines=pipelines))
