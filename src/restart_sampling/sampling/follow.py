"""The sampling loop: follows a noise path, for ODE, SDE and Restart alike."""

from collections.abc import Callable, Iterator
from types import NoneType

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import require_kind
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.protocol import Denoise, Solver, evaluate, like, require_solvers
from restart_sampling.sampling.solvers.single_step import Heun

Perturb = Callable[[Tensor, float, float], Tensor]
"""perturb(x, low, high) -> x raised from level low to level high."""


def follow(
    denoise: Denoise,
    x: Tensor,
    path: NoisePath,
    solver: Solver = Heun(),
    restart_solver: Solver | None = None,
    process: Process | None = None,
    perturb: Perturb | None = None,
    callback: Callable[[int, Move, Tensor], None] | None = None,
) -> Tensor:
    """Follows a noise path from its first level to its last.

    Args:
        denoise: denoise(x, sigma) -> x0, the expected data; sigma is a float64 tensor [B] on x's device (float32
            where the device has no float64).
        x: the state [B, ...] at path.levels[0], already scaled. Its dtype is kept (float64 loses nothing).
        path: from `ode_path`, `churn_path`, `restart_path` or `Plan.path`.
        solver: of the main grid.
        restart_solver: of the restart intervals; default `solver`.
        process: how the state mixes data and noise; default: that of `perturb` or of `denoise`, VE if they have none.
        perturb: perturb(x, low, high) -> x at level high, called once for each rise, and for each fall of a stochastic
            solver, which lands lower. Default: Gaussian noise from torch's global generator; `GaussianNoise` gives
            each image its own seed.
        callback: called after each move with its index, the move and the state, which it must not write to.

    Returns:
        The state at path.levels[-1], like x.

    Raises:
        InputError: the denoiser, the noise and `process` differ in their process, the path has levels that it does not
            know, x has no real numbers, or the answer of the denoiser or of `perturb` is not like x.

    Source: Restart sampling (arXiv 2306.14878), algorithm 2.
    """
    for index, move, x in walk(denoise, x, path, solver, restart_solver, process, perturb):  # noqa: B020
        if callback:
            callback(index, move, x)
    return x


@torch.no_grad()
def walk(
    denoise: Denoise,
    x: Tensor,
    path: NoisePath,
    solver: Solver,
    restart_solver: Solver | None = None,
    process: Process | None = None,
    perturb: Perturb | None = None,
) -> Iterator[tuple[int, Move, Tensor]]:
    """Yields the index, the move and the state after each move of a path; takes and raises what `follow` does."""
    if not callable(denoise):
        raise InputError(f"the denoiser is of type {type(denoise).__name__}; give a function of states and levels")
    require_kind("the state", x, Tensor, "a tensor [B, ...]")
    require_kind("the path", path, NoisePath, "one of ode_path, churn_path or restart_path")
    if x.ndim == 0:
        raise InputError("the state is a single number; give a tensor [B, ...]")
    if not x.is_floating_point():
        raise InputError(f"the state is of {x.dtype}; give real numbers, such as torch.float32")
    process = _process(process, denoise, perturb)
    path.check_levels(process)
    restart_solver = restart_solver or solver
    require_solvers(solver, restart_solver)
    noise = perturb or _global_noise(process)
    memory, last_solver = None, solver
    for index, move in enumerate(path.moves):
        active = restart_solver if move.restart else solver
        if move.rises:
            x, memory = like(x, noise(x, move.now, move.then), "perturb"), None
        elif move.now == move.then:
            for _ in range(active.evaluations(move)):
                evaluate(denoise, x, move.now)
        else:
            if active != last_solver:  # one solver's memory means nothing to another
                memory, last_solver = None, active
            x, memory = active.step(denoise, x, move, memory, process)
            landing = active.landing(move, process)
            if landing < move.then:
                x = like(x, noise(x, landing, move.then), "perturb")
        yield index, move, x


def _process(process: Process | None, denoise: Denoise, perturb: Perturb | None) -> Process:
    """Finds the one process of a sampler: that which is given, and which its noise and its denoiser have."""
    require_kind("the process", process, (Process, NoneType), "rs.VE or rs.FLOW")
    stated = {"argument": process, "noise": _of(perturb), "denoiser": _of(denoise)}
    known = {part: each for part, each in stated.items() if each is not None}
    if len(set(known.values())) > 1:
        parts = ", ".join(f"{each.name} ({part})" for part, each in known.items())
        raise InputError(f"the sampler has more than one process: {parts}; give all its parts the same")
    return next(iter(known.values()), VE)


def _of(part: object) -> Process | None:
    process = getattr(part, "process", None)
    return process if isinstance(process, Process) else None


def _global_noise(process: Process) -> Perturb:
    def perturb(x: Tensor, low: float, high: float) -> Tensor:
        keep, std = process.rise(low, high)
        return keep * x + std * torch.randn_like(x)

    return perturb
