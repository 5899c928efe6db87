"""The nodes: a plan, restarts on sigmas, a sampler, and what a sampler will do."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from restart_sampling import InputError, make_solver
from restart_sampling.sampling.explain import explain_sampler
from restart_sampling.sampling.solvers.by_name import SOLVERS

from .paths import path_of, plan_path, process_of, read_plan, read_restarts, restarts_path, sigmas_of
from .sampler import PathSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from restart_sampling import NoisePath, Process

PLAN = "30 [10,2,0.1,2] solver=euler restart_solver=heun"
"""The paper's for Stable Diffusion, on Karras's grid."""
SAME = "as solver"


class RestartPlan:
    """A sampler from the text of its plan."""

    CATEGORY = "sampling/restart"
    DESCRIPTION = (
        "A whole sampler from one line, such as 18 [3,2,0.06,0.30] solver=dpmpp_2m, for SamplerCustom and "
        "SamplerCustomAdvanced. The picture shows the noise level against the calls of the model."
    )
    RETURN_TYPES = ("SAMPLER", "SIGMAS", "IMAGE", "STRING", "INT")
    RETURN_NAMES = ("sampler", "sigmas", "picture", "explanation", "NFE")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Lists the inputs."""
        plan = (
            "Steps, restarts [N_restart, K, t_min, t_max], settings; or a preset's name. Levels are the model's sigmas."
        )
        denoise = "Below 1, image-to-image: begins at a lower sigma with as many steps."
        return {
            "required": {
                "model": ("MODEL",),
                "plan": ("STRING", {"default": PLAN, "tooltip": plan}),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 1.0, "step": 0.01, "tooltip": denoise}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, plan: str | None = None) -> bool | str:
        """Refuses what is no plan before the workflow runs."""
        return _fine(read_plan, plan)

    def run(self, model: Any, plan: str, denoise: float) -> tuple[PathSampler, Tensor, Tensor, str, int]:
        """Makes the sampler and its sigmas, and says what they will do."""
        read = read_plan(plan)
        sampling = model.get_model_object("model_sampling")
        path = plan_path(read, sampling, denoise)
        sampler = PathSampler(read.solver, read.restart_solver, read.s_noise)
        picture, explanation, nfe = _describe(path, sampler, process_of(sampling), str(read))
        return sampler, sigmas_of(path), picture, f"plan       {read}\n{explanation}", nfe


class RestartSigmas:
    """Restarts on the sigmas of any scheduler."""

    CATEGORY = "sampling/restart"
    DESCRIPTION = "Adds restarts to the sigmas of any scheduler; run them with Restart Sampler, which adds the noise."
    RETURN_TYPES = ("SIGMAS",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Lists the inputs."""
        restarts = "[N_restart, K, t_min, t_max] each: K times from t_min up to t_max and down in N_restart - 1 steps."
        return {
            "required": {
                "model": ("MODEL",),
                "sigmas": ("SIGMAS",),
                "restarts": ("STRING", {"default": "[10,2,0.1,2]", "tooltip": restarts}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, restarts: str | None = None) -> bool | str:
        """Refuses what are no restarts before the workflow runs."""
        return _fine(read_restarts, restarts)

    def run(self, model: Any, sigmas: Tensor, restarts: str) -> tuple[Tensor]:
        """Makes the sigmas with the rises."""
        sampling = model.get_model_object("model_sampling")
        return (sigmas_of(restarts_path(read_restarts(restarts), sigmas, sampling)),)


class RestartSampler:
    """Any solver, along sigmas that may rise."""

    CATEGORY = "sampling/restart"
    DESCRIPTION = (
        "Runs a solver along sigmas, and adds noise where they rise. The noise is from the seed of the sampling node. "
        "The progress bar counts calls of the model."
    )
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Lists the inputs."""
        settings = "Of the solver, such as eta=0.5 of ddim, order=3 of deis and ab, p=2 of unipc, tau=0.5:p=2 of sa."
        s_noise = "Factor on the noise of every rise, and of stochastic solvers."
        return {
            "required": {
                "solver": (list(SOLVERS), {"default": "heun"}),
                "restart_solver": ([SAME, *SOLVERS], {"default": SAME, "tooltip": "In the restarts."}),
                "s_noise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.001, "tooltip": s_noise}),
            },
            "optional": {"settings": ("STRING", {"default": "", "tooltip": settings})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, solver: str | None = None, settings: str | None = None) -> bool | str:
        """Refuses what is no solver before the workflow runs."""
        return _fine(make_solver, solver and _with_settings(solver, settings or ""))

    def run(self, solver: str, restart_solver: str, s_noise: float, settings: str = "") -> tuple[PathSampler]:
        """Makes the sampler."""
        solver = _with_settings(solver, settings)
        return (PathSampler(solver, solver if restart_solver == SAME else restart_solver, s_noise),)


class RestartPath:
    """What a sampler will do along sigmas."""

    CATEGORY = "sampling/restart"
    DESCRIPTION = (
        "Shows what Restart Sampler will do along sigmas: its path as a picture and in words, calls of the model."
    )
    RETURN_TYPES = ("IMAGE", "STRING", "INT")
    RETURN_NAMES = ("picture", "explanation", "NFE")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Lists the inputs."""
        return {"required": {"model": ("MODEL",), "sampler": ("SAMPLER",), "sigmas": ("SIGMAS",)}}

    def run(self, model: Any, sampler: Any, sigmas: Tensor) -> tuple[Tensor, str, int]:
        """Describes the path."""
        if not isinstance(sampler, PathSampler):
            raise InputError("the sampler is not one of Restart Sampler or Restart Plan; others do not follow rises")
        process = process_of(model.get_model_object("model_sampling"))
        return _describe(path_of(sigmas, process), sampler, process, sampler.extra_options["solver"])


def _describe(path: NoisePath, sampler: PathSampler, process: Process, name: str) -> tuple[Tensor, str, int]:
    """Returns the picture of a path [1, H, W, 3], its explanation, and its calls of the model."""
    from restart_sampling.pictures.noise_paths import plot_path

    nfe = path.nfe(*sampler.solvers)
    figure = plot_path(path.schedule(*sampler.solvers), f"{name}: {nfe} evaluations")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=200)
    pixels = np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None], explain_sampler(path, **sampler.extra_options, process=process), nfe


def _with_settings(solver: str, settings: str) -> str:
    return ":".join([solver, *re.findall(r"[^\s,:]+", settings)])


def _fine(read: Callable[[str], object], text: str | None) -> bool | str:
    """Says whether a text can be read, or why not; a text that is not known yet can."""
    try:
        if text is not None:
            read(text)
    except InputError as error:
        return str(error)
    return True


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (RestartPlan, RestartSigmas, RestartSampler, RestartPath)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "RestartPlan": "Restart Plan",
    "RestartSigmas": "Restart Sigmas",
    "RestartSampler": "Restart Sampler",
    "RestartPath": "Restart Path",
}
