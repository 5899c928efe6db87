"""Noise paths of ComfyUI's models: from the texts that nodes take, and to sigmas and back."""

import re
from dataclasses import replace
from math import isclose
from typing import Any

import torch
from torch import Tensor

from restart_sampling import FLOW, VE, InputError, NoisePath, Plan, Process
from restart_sampling.sampling.levels import GRIDS
from restart_sampling.sampling.plan_text import split_plan


def process_of(model_sampling: Any) -> Process:
    """Finds how the states of a model mix data and noise: VE for EPS, v and EDM models, FLOW for CONST.

    By what the model does to make its first state, so that flows whose noise is scaled, and kinds that other nodes
    define, are known as well.

    Raises:
        InputError: the mixture is not linear in sigma, or has no noise.
    """

    def mixture(sigma: float) -> tuple[float, float]:
        level, zero, one = torch.tensor(sigma), torch.zeros(1), torch.ones(1)
        weights = [model_sampling.noise_scaling(level, *pair).item() for pair in ((zero, one), (one, zero))]
        return weights[0], weights[1]

    (low_alpha, low_std), (alpha, std), (high_alpha, high_std) = map(mixture, (0.25, 0.5, 0.75))
    slopes = 2 * (high_alpha - low_alpha), 2 * (high_std - low_std)
    numbers = low_alpha - slopes[0] / 4, slopes[0], low_std - slopes[1] / 4, slopes[1]
    process = Process("of the model", *(round(number, 6) for number in numbers))  # those of float32
    if not (isclose(alpha, process.alpha(0.5), abs_tol=1e-5) and isclose(std, process.std(0.5), abs_tol=1e-5)):
        raise InputError(
            f"the model's state at sigma 0.5 is {alpha:g} data + {std:g} noise; the samplers are for models whose "
            f"state is data + sigma noise (EPS, v, EDM) or (1 - sigma) data + sigma noise (flows)"
        )
    return next((known for known in (VE, FLOW) if known == process), process)


def sigma_range(model_sampling: Any) -> tuple[float, float]:
    """Returns the lowest and the highest sigma that a model knows."""
    low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
    return low, process_of(model_sampling).without_rounding(high)


def path_of(sigmas: Tensor, process: Process) -> NoisePath:
    """Makes the path of sigmas [N + 1], rises included.

    Raises:
        InputError: they are not one row, or no path, see `NoisePath.through`.
    """
    if sigmas.ndim != 1:
        raise InputError(f"the sigmas have the shape {list(sigmas.shape)}; give one row [N + 1]")
    return NoisePath.through([*map(process.without_rounding, sigmas.tolist())])


def sigmas_of(path: NoisePath) -> Tensor:
    """Returns the levels of a path as sigmas, float32 on the CPU, as ComfyUI's own schedulers do."""
    return torch.tensor(path.levels, dtype=torch.float32)


def read_plan(text: str) -> Plan:
    """Reads a plan from its text, or from the name of a preset; no files, which are not a workflow's to name.

    Raises:
        InputError: it is none.
    """
    if text.strip().endswith(".json"):
        raise InputError(f"plan '{text.strip()}' is a file; give its text, which is the value of \"plan\" in the file")
    return Plan.parse(text)


def plan_path(plan: Plan, model_sampling: Any, denoise: float = 1.0) -> NoisePath:
    """Makes the path of a plan for a model.

    Args:
        plan: the sampler.
        model_sampling: of the model.
        denoise: below 1, image-to-image, as in ComfyUI's `BasicScheduler`: the last of int(steps / denoise) steps, as
            many as the plan has; of a plan that lists its levels, this share of them. Restarts rise to the first level
            at most, and those that begin there or higher are left out.

    Raises:
        InputError: the plan does not fit the model, or denoise is not above 0, up to 1.
    """
    if not 0 < denoise <= 1:
        raise InputError(f"denoise is {denoise:g}; give a number above 0, up to 1")
    low, high = sigma_range(model_sampling)
    if denoise == 1:
        return plan.path(low, high)
    if plan.own_levels:
        steps, levels = max(1, round(plan.steps * denoise)), plan.levels(low, high)
    else:
        steps, levels = plan.steps, replace(plan, steps=int(plan.steps / denoise)).levels(low, high)
    return plan.path_on(levels[-(steps + 1) :], capped=True)


def read_restarts(text: str) -> Plan:
    """Reads restart intervals, with settings of a plan that are about rises: `[10,2,0.1,2] gamma=0.05`, `churn=20`.

    The steps of the plan that is returned, and its main grid, mean nothing.

    Raises:
        InputError: the text is of something else.
    """
    if re.match(r"\s*[\d.]", text):
        raise InputError(
            f"restarts '{text}' begin with a number; the steps are those of the sigmas, so write the restarts alone, "
            f"such as [10,2,0.1,2]"
        )
    _, intervals, settings = split_plan(f"1 {text}")
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in ("solver", "restart_solver", "s_noise"):
            raise InputError(f"'{setting}' is not of the sigmas; set it in the node 'Restart Sampler'")
        if key in ("steps", "sigma_min", "sigma_max") or (key == "grid" and value not in GRIDS):
            raise InputError(f"'{setting}' is not of the restarts; the main grid is that of the sigmas")
    return Plan(1, intervals).set(*settings)


def restarts_path(restarts: Plan, sigmas: Tensor, model_sampling: Any) -> NoisePath:
    """Adds restarts to falling sigmas [N + 1].

    Where these begin below the model's highest sigma (image-to-image), restarts rise to the first one at most, and
    those that begin there or higher are left out.

    Raises:
        InputError: the sigmas do not fall, or the restarts do not fit them.
    """
    levels = path_of(sigmas, process_of(model_sampling)).levels
    start, highest = levels[0], sigma_range(model_sampling)[1]
    return restarts.path_on(levels, capped=start < highest and not isclose(start, highest, rel_tol=1e-5))
