"""Samplers for diffusion models: a sampler is a path of noise levels.

The public names are loaded when they are first used, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restart_sampling.errors import InputError as InputError
    from restart_sampling.generation.generate import Batch as Batch
    from restart_sampling.generation.generate import generate as generate
    from restart_sampling.models.checkpoint import load_model as load_model
    from restart_sampling.models.denoiser import guided as guided
    from restart_sampling.models.fast import fast as fast
    from restart_sampling.sampling.analytic import GaussianMixture as GaussianMixture
    from restart_sampling.sampling.edm_noise import EDMKernel as EDMKernel
    from restart_sampling.sampling.levels import karras_levels as karras_levels
    from restart_sampling.sampling.levels import log_grid as log_grid
    from restart_sampling.sampling.levels import power_grid as power_grid
    from restart_sampling.sampling.levels import vp_time_grid as vp_time_grid
    from restart_sampling.sampling.multistep import DEIS as DEIS
    from restart_sampling.sampling.multistep import IPNDM as IPNDM
    from restart_sampling.sampling.multistep import AdamsBashforth as AdamsBashforth
    from restart_sampling.sampling.multistep import DPMSolverPP2M as DPMSolverPP2M
    from restart_sampling.sampling.multistep import DPMSolverPP3M as DPMSolverPP3M
    from restart_sampling.sampling.multistep import DPMSolverPP3MPublished as DPMSolverPP3MPublished
    from restart_sampling.sampling.noise import GaussianKernel as GaussianKernel
    from restart_sampling.sampling.noise import PFGMppKernel as PFGMppKernel
    from restart_sampling.sampling.noise import noise as noise
    from restart_sampling.sampling.noise import pfgmpp_move as pfgmpp_move
    from restart_sampling.sampling.noise_path import Move as Move
    from restart_sampling.sampling.noise_path import NoisePath as NoisePath
    from restart_sampling.sampling.noise_path import RestartInterval as RestartInterval
    from restart_sampling.sampling.noise_path import churn_path as churn_path
    from restart_sampling.sampling.noise_path import ode_path as ode_path
    from restart_sampling.sampling.noise_path import restart_path as restart_path
    from restart_sampling.sampling.plan import Plan as Plan
    from restart_sampling.sampling.predictor_corrector import SASolver as SASolver
    from restart_sampling.sampling.predictor_corrector import UniPC as UniPC
    from restart_sampling.sampling.presets import PRESETS as PRESETS
    from restart_sampling.sampling.process import FLOW as FLOW
    from restart_sampling.sampling.process import VE as VE
    from restart_sampling.sampling.process import Process as Process
    from restart_sampling.sampling.sample import sample as sample
    from restart_sampling.sampling.singlestep import DPMSolver2 as DPMSolver2
    from restart_sampling.sampling.singlestep import DPMSolver3 as DPMSolver3
    from restart_sampling.sampling.singlestep import Midpoint as Midpoint
    from restart_sampling.sampling.solvers import Euler as Euler
    from restart_sampling.sampling.solvers import Heun as Heun
    from restart_sampling.sampling.solvers import make_solver as make_solver
    from restart_sampling.sampling.stochastic import DDIM as DDIM
    from restart_sampling.sampling.stochastic import SDEDPMSolverPP2M as SDEDPMSolverPP2M
    from restart_sampling.text_to_image import FlowMatchRestartScheduler as FlowMatchRestartScheduler
    from restart_sampling.text_to_image import RestartScheduler as RestartScheduler
    from restart_sampling.text_to_image import guidance_preset as guidance_preset

_HOMES = {
    "errors": ("InputError",),
    "generation.generate": ("Batch", "generate"),
    "models.checkpoint": ("load_model",),
    "models.denoiser": ("guided",),
    "models.fast": ("fast",),
    "sampling.analytic": ("GaussianMixture",),
    "sampling.edm_noise": ("EDMKernel",),
    "sampling.levels": ("karras_levels", "log_grid", "power_grid", "vp_time_grid"),
    "sampling.multistep": (
        "DEIS",
        "IPNDM",
        "AdamsBashforth",
        "DPMSolverPP2M",
        "DPMSolverPP3M",
        "DPMSolverPP3MPublished",
    ),
    "sampling.noise": ("GaussianKernel", "PFGMppKernel", "noise", "pfgmpp_move"),
    "sampling.noise_path": ("Move", "NoisePath", "RestartInterval", "churn_path", "ode_path", "restart_path"),
    "sampling.plan": ("Plan",),
    "sampling.predictor_corrector": ("SASolver", "UniPC"),
    "sampling.presets": ("PRESETS",),
    "sampling.process": ("FLOW", "VE", "Process"),
    "sampling.sample": ("sample",),
    "sampling.singlestep": ("DPMSolver2", "DPMSolver3", "Midpoint"),
    "sampling.solvers": ("Euler", "Heun", "make_solver"),
    "sampling.stochastic": ("DDIM", "SDEDPMSolverPP2M"),
    "text_to_image": ("FlowMatchRestartScheduler", "RestartScheduler", "guidance_preset"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
# A star import must not ask for diffusers.
__all__ = ["__version__", *sorted(_HOME.keys() - {"FlowMatchRestartScheduler", "RestartScheduler"})]


def __getattr__(name: str) -> Any:
    if name == "text_to_image":
        return import_module("restart_sampling.text_to_image")
    if name not in _HOME:
        raise AttributeError(f"module 'restart_sampling' has no attribute '{name}'")
    value = getattr(import_module(f"restart_sampling.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
