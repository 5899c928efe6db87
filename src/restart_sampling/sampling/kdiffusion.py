"""Restart sampling in k-diffusion's calling convention, for programs that call its samplers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import require_kind, whole_number
from restart_sampling.sampling.follow import follow
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.levels import power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.noise import noise_factor, seed_of_rises
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import FLOW, VE, Process
from restart_sampling.sampling.restart_path import ode_path, restart_path
from restart_sampling.sampling.solvers.protocol import Solver, like
from restart_sampling.sampling.solvers.single_step import Heun

_FORM = "write {t_min: [N_restart, K, t_max]} with t_min above 0, such as {0.1: [10, 2, 2.0]}"
AUTOMATIC_STEPS = 20
"""From so many steps A1111's rule makes restarts by itself."""


def sample_restart(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    restart_list: Mapping[float, Sequence[float]] | None = None,
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
    solver: Solver = Heun(),
    process: Process | None = None,
) -> Tensor:
    """Draws samples by Restart, and is called as k-diffusion's `sample_heun` and the like.

    Args:
        model: model(x, sigma * x.new_ones([B]), **extra_args) -> denoised, like x.
        x: [B, ...] at sigmas[0], already scaled; its dtype is kept.
        sigmas: falling levels, 1-D (a list will do); the last is 0 as a rule.
        extra_args: of the model. From a `seed` in it, as ComfyUI gives it, and the first sigma the noise is made.
        callback: called after each step with a dict of i (number of the step, rises not counted), total (of steps,
            those of restarts included), x and sigma (state and level where the step began, 0-dimensional), sigma_hat
            (the same), and denoised (the model's answer).
        disable: taken and not used; there is no progress bar.
        s_noise: factor on the noise of every rise.
        restart_list: {t_min: [N_restart, K, t_max]}, in A1111's form: N_restart counts points, both t_min and t_max
            snap to the nearest of `sigmas` above 0, and an entry whose t_max then is not above its t_min does nothing.
            None: A1111's automatic choice, see `restart_plan`.
        noise_sampler: noise_sampler(sigma, sigma_next) -> unit noise like x, called anew for each rise, also where the
            same interval comes again. Default: torch's own, from the seed in extra_args if there is one. One that
            returns the same noise again, as k-diffusion's Brownian tree does where K is above 1, is refused.
        solver: of all steps; a stochastic one takes its noise from noise_sampler too.
        process: FLOW for a flow model, whose sigmas are its times t from 1 to 0. Default: VE, which the sigmas must
            show by a first one above 1.

    Returns:
        The state at the last sigma, like x.

    Raises:
        InputError: sigmas is no falling tensor [N + 1], an entry of restart_list is not [N_restart, K, t_max] or out of
            range, s_noise is no finite number from 0 up, the seed is no whole number, the process is not that of the
            model, or cannot be told from the sigmas, or noise_sampler returns no tensor like x, or the same for an
            interval that comes again.

    Source: Restart sampling (arXiv 2306.14878), algorithm 2; conventions of k-diffusion and AUTOMATIC1111's web UI.
    """
    try:
        sigmas = torch.as_tensor(sigmas)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"sigmas is of type {type(sigmas).__name__}; give falling levels [N + 1]") from None
    if sigmas.is_complex():
        raise InputError(f"sigmas is of {sigmas.dtype}; give real numbers")
    sigmas = sigmas if sigmas.is_floating_point() else sigmas.float()  # levels between them are told in their dtype
    if sigmas.ndim != 1:
        raise InputError(f"sigmas has shape {list(sigmas.shape)}; give falling levels [N + 1]")
    factor = noise_factor(s_noise)
    arguments = extra_args or {}
    levels = sigmas.tolist()
    process = _process(model, levels, process)
    levels = [*map(process.without_rounding, levels)]
    if process != VE and restart_list is None and len(levels) - 1 >= AUTOMATIC_STEPS:
        raise InputError(
            "A1111's automatic restarts are for sigmas of VE models; give a flow its own restart_list, such as "
            "{0.3: [4, 1, 0.6]}, or {} for none"
        )
    path = restart_plan(levels, restart_list)
    begun: list[tuple[Tensor, Tensor]] = []  # state and answer at each evaluation of the step in progress
    again = {level for level, count in Counter(move.then for move in path.moves).items() if count > 1}
    drawn: dict[tuple[float, float], Tensor] = {}  # by noise_sampler, up to levels that come again
    falls, total = 0, sum(not move.rises for move in path.moves)
    generator = None
    if (seed := arguments.get("seed")) is not None:
        generator = torch.Generator(x.device).manual_seed(seed_of_rises(whole_number("seed", seed), levels[0]))

    def denoise(state: Tensor, sigma: Tensor) -> Tensor:
        denoised = model(state, sigma.to(state.dtype), **arguments)
        begun.append((state, denoised))
        return denoised

    def perturb(state: Tensor, low: float, high: float) -> Tensor:
        keep, std = process.rise(low, high)
        if noise_sampler is None:
            noise = torch.randn(state.shape, generator=generator, dtype=state.dtype, device=state.device)
        else:
            answer = noise_sampler(sigmas.new_tensor(low), sigmas.new_tensor(high))
            noise = like(state, answer, "noise_sampler")
            if (before := drawn.get((low, high))) is not None and torch.equal(noise, before):
                raise InputError(
                    f"noise_sampler returned the same noise again for the rise from {low:.4g} to {high:.4g}, as "
                    f"k-diffusion's Brownian tree does, and noise that comes again adds up; give one that draws anew, "
                    f"or K = 1"
                )
            if high in again:
                drawn[low, high] = noise
        return keep * state + factor * std * noise

    def report(index: int, move: Move, state: Tensor) -> None:
        nonlocal falls
        if move.rises:
            return
        start, denoised = begun[0]
        begun.clear()
        if callback:
            sigma = sigmas.new_tensor(move.now)
            about = {"x": start, "i": falls, "total": total, "sigma": sigma, "sigma_hat": sigma}
            callback({**about, "denoised": denoised})
        falls += 1

    return follow(denoise, x, path, solver, process=process, perturb=perturb, callback=report)


def _process(model: object, levels: Sequence[float], process: Process | None) -> Process:
    """Returns the process of the states: as given, or VE where the sigmas can be no flow's."""
    require_kind("the process", VE if process is None else process, Process, "rs.VE or rs.FLOW")
    if process != FLOW and _is_flow(model):
        raise InputError("the model is a flow (its model_sampling is CONST); give process=FLOW")
    if process is None and levels and FLOW.without_rounding(levels[0]) <= 1:
        raise InputError(
            f"the sigmas begin at {levels[0]:g}, as a flow's do, and can also be the last ones of a VE model; give "
            f"process=FLOW or process=VE"
        )
    return process or VE


def _is_flow(model: object) -> bool:
    """Says whether a model of ComfyUI, as its samplers are given it, declares that its states are a flow's."""
    for _ in range(4):
        kinds = type(getattr(model, "model_sampling", None)).__mro__
        if any(kind.__name__ == "CONST" for kind in kinds):
            return True
        model = getattr(model, "inner_model", None)
    return False


def restart_plan(sigmas: Sequence[float], restart_list: Mapping[float, Sequence[float]] | None = None) -> NoisePath:
    """Makes the noise path of `sample_restart`, by A1111's rules for restart_list over falling sigmas.

    Without a restart_list the restarts come out of the given number of steps, by A1111's rule: fewer than 20 steps have
    none; from 20 there is one pass of 9 steps; from 36 two passes of a quarter of the steps. Each is between the levels
    nearest to 0.1 and 2, and the main grid is a Karras grid of the steps that are left, to the same last sigma. Where
    one level is the nearest to both, as in the first part of a run that is sampled in two, there are none.

    Raises:
        InputError: the sigmas do not fall, or an entry is not [N_restart, K, t_max] or out of its range.
    """
    ode_path(sigmas)  # its message is of these sigmas, whatever is made of them below
    if restart_list is None:
        steps = len(sigmas) - 1
        restart_list = {}
        if steps >= AUTOMATIC_STEPS:
            restart_steps, repeats = (steps // 4, 2) if steps >= 36 else (9, 1)
            main = (*power_grid(steps - restart_steps * repeats, sigmas[0], sigmas[-2]), sigmas[-1])
            if _nearest(main, 2.0) > _nearest(main, 0.1):  # of a part of the sigmas there may be no such levels
                sigmas, restart_list = main, {0.1: (restart_steps + 1, repeats, 2.0)}
    if not isinstance(restart_list, Mapping):
        raise InputError(f"restart_list is {restart_list!r}; {_FORM}")

    intervals = []
    for t_min, entry in restart_list.items():
        points, repeats, t_max = _whole_entry(t_min, entry)
        low, high = _nearest(sigmas, t_min), _nearest(sigmas, t_max)
        if high > low:
            intervals.append(RestartInterval(points, repeats, low, high))
    return restart_path(sigmas, intervals)


def _nearest(sigmas: Sequence[float], level: float) -> float:
    return min((sigma for sigma in sigmas if sigma > 0), key=lambda sigma: abs(sigma - level))


def _whole_entry(t_min: float, entry: Sequence[float]) -> tuple[int, int, float]:
    """Reads N_restart, K and t_max from an entry of restart_list."""
    try:
        points, repeats, t_max = entry
        if int(points) == points and int(repeats) == repeats and 0 < t_min < inf and isfinite(t_max):
            return int(points), int(repeats), t_max
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"restart_list has {t_min!r}: {entry!r}; {_FORM}")
