"""ComfyUI's SAMPLER: any solver along sigmas that may rise."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch
from comfy.samplers import KSAMPLER
from torch import Tensor
from tqdm.auto import tqdm

from restart_sampling import GaussianNoise, follow, make_solver
from restart_sampling.sampling.noise import seed_of_rises

from .paths import path_of, process_of


def sample_path(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    *,
    solver: str = "heun",
    restart_solver: str | None = None,
    s_noise: float = 1.0,
) -> Tensor:
    """Follows sigmas from the first to the last, called as ComfyUI calls its samplers.

    Args:
        model: model(x, sigma [B], **extra_args) -> denoised; its model_sampling is that of inner_model.inner_model.
        x: [B, ...] at sigmas[0].
        sigmas: [N + 1]; where they rise, noise is added.
        extra_args: of the model. Its `seed`, the first sigma and the place in the batch determine an image's noise.
        callback: called after each call of the model, from whose number i = 0, 1, ... the progress bar and the previews
            are made, and where ComfyUI interrupts.
        disable: whether the console has no progress bar.
        solver: of the main grid, as `make_solver` reads it.
        restart_solver: of the restarts; None: the main grid's.
        s_noise: factor on the noise.

    Returns:
        The state at sigmas[-1], like x.

    Raises:
        InputError: the sigmas are no path, or the model's states are of a kind that is not known.
    """
    if len(sigmas) < 2:
        return x
    arguments = extra_args or {}
    process = process_of(model.inner_model.inner_model.model_sampling)
    path = path_of(sigmas, process)
    solvers = make_solver(solver), make_solver(restart_solver or solver)
    seed = arguments.get("seed")
    first = seed_of_rises(int(torch.randint(2**63 - 1, ()) if seed is None else seed), path.levels[0])
    seeds = [(first + place) % 2**63 for place in range(len(x))]
    noise = GaussianNoise(seeds, s_noise=s_noise, process=process, device=x.device)
    calls = count()

    with tqdm(total=path.nfe(*solvers), disable=disable) as bar:

        def denoise(state: Tensor, sigma: Tensor) -> Tensor:
            denoised: Tensor = model(state, sigma.to(state.dtype), **arguments)
            if callback:
                level = sigma[0]
                callback({"x": state, "i": next(calls), "sigma": level, "sigma_hat": level, "denoised": denoised})
            bar.update()
            return denoised

        return follow(denoise, x, path, *solvers, process, noise)


class PathSampler(KSAMPLER):
    """ComfyUI's sampler of `sample_path`, whose progress counts calls of the model.

    Args:
        solver: of the main grid, as `make_solver` reads it.
        restart_solver: of the restarts; None: the main grid's.
        s_noise: factor on the noise.

    Raises:
        InputError: there is no such solver.
    """

    def __init__(self, solver: str, restart_solver: str | None = None, s_noise: float = 1.0) -> None:
        super().__init__(sample_path, {"solver": solver, "restart_solver": restart_solver, "s_noise": s_noise}, {})
        self.solvers = make_solver(solver), make_solver(restart_solver or solver)

    def sample(self, model_wrap: Any, sigmas: Tensor, extra_args: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        """Samples as every KSAMPLER does, but gives the callback the calls of the model as total, not the sigmas."""
        if callback and len(sigmas) > 1:
            total = path_of(sigmas, process_of(model_wrap.inner_model.model_sampling)).nfe(*self.solvers)
            steps = callback

            def callback(call: int, denoised: Tensor, x: Tensor, _: int) -> None:
                steps(call, denoised, x, total)

        return super().sample(model_wrap, sigmas, extra_args, callback, *args, **kwargs)
