"""Public import path of `sample_restart` and `restart_plan`, for users of k-diffusion."""

from restart_sampling.sampling.kdiffusion import restart_plan as restart_plan
from restart_sampling.sampling.kdiffusion import sample_restart as sample_restart
