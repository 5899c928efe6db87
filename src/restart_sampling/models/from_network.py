"""Nets from networks of any origin: what a network predicts becomes the expected data.

One constructor for each prediction. Which one a network needs cannot be seen from its outputs: a velocity that is taken
for the data gives noise, without an error.
"""

from collections.abc import Sequence
from hashlib import sha256
from math import log, sqrt
from typing import Any, Literal, TypedDict, Unpack, assert_never

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, truth_value
from restart_sampling.base.numerics import state_dtype
from restart_sampling.models.network_call import Network, NetworkCall
from restart_sampling.sampling.net import FunctionNet
from restart_sampling.sampling.pfgmpp import augmented_dimensions
from restart_sampling.sampling.process import FLOW, VE


class Options(TypedDict, total=False):
    """Options that all constructors take; `from_eps` says what each is."""

    clip: bool | tuple[float, float]
    dtype: torch.dtype | None
    device: torch.device | str | None
    identity: str | None
    label_dim: int


def from_eps(
    network: Network,
    alphas_cumprod: Tensor | Sequence[float],
    *,
    continuous: bool = False,
    **options: Unpack[Options],
) -> FunctionNet:
    """Makes a net of a network of DDPM's kind that predicts the noise.

    The network is called as network(x_t, t, **kwargs) with x_t = sqrt(a) x0 + sqrt(1 - a) noise, a = alphas_cumprod[t],
    and timesteps t [B]. The sampler's levels are sigma = sqrt((1 - a) / a), its states x_t / sqrt(a).

    Args:
        network: a torch module (of diffusers too), or any function; for another order or name of its arguments, a
            lambda: `lambda x, t, **kwargs: network(t, x, **kwargs)`.
        alphas_cumprod: [T], falling from below 1 to above 0, such as `scheduler.alphas_cumprod`.
        continuous: whether the network takes times between the timesteps; t is then a float, linear in log sigma
            between them. Otherwise the plan's levels are rounded to those of the table, and t is an integer (int64); a
            solver that asks between the plan's levels (midpoint, dpm2, dpm3) then gets the answer of the nearest
            timestep, which errs by 0.001 with 1,000 timesteps and by 0.1 with 10.
        clip: the range of the data, to which the estimate is clipped: True for [-1, 1], or (low, high). For images and
            not for latents.
        dtype: of the network's input; default: that of its parameters, float32 for a function. The state is float64.
        device: of the states; default: that of its parameters, the CPU for a function.
        identity: says which weights a function has, for runs that are resumed; default: a module's SHA-256.
        label_dim: how many classes the network knows. `rs.generate`, `rs.evaluate` and the commands then draw a class
            for each seed, and call the network with class_labels, int64 [B]; 0: it has none.

    Raises:
        InputError: alphas_cumprod is no such table, the network nothing to call or without weights (meta), dtype not of
            real numbers, clip no range, identity empty, or label_dim below 0; in a call: a module of the network is in
            training mode, or its answer is not like x.

    Source: Ho et al. 2020 (arXiv 2006.11239), as in Karras et al. 2022 (arXiv 2206.00364), table 1.
    """
    return _discrete("eps", network, alphas_cumprod, continuous, options)


def from_v(
    network: Network,
    alphas_cumprod: Tensor | Sequence[float],
    *,
    continuous: bool = False,
    **options: Unpack[Options],
) -> FunctionNet:
    """Makes a net of a network of DDPM's kind that predicts v = sqrt(a) noise - sqrt(1 - a) x0; else as `from_eps`.

    This v is not the velocity of a flow model: that is `from_flow`.

    Source: Salimans and Ho 2022 (arXiv 2202.00512), section 4.
    """
    return _discrete("v", network, alphas_cumprod, continuous, options)


def from_x0(
    network: Network,
    alphas_cumprod: Tensor | Sequence[float],
    *,
    continuous: bool = False,
    **options: Unpack[Options],
) -> FunctionNet:
    """Makes a net of a network of DDPM's kind that predicts the data x0 itself; else as `from_eps`.

    A network that is called with sigma instead of a timestep is one for `from_edm`.
    """
    return _discrete("x0", network, alphas_cumprod, continuous, options)


def from_flow(network: Network, *, reverse: bool = False, **options: Unpack[Options]) -> FunctionNet:
    """Makes a net of a flow-matching network, which predicts a velocity.

    The network is called as network(x, t, **kwargs) with float times t [B]. Where t = 1 is noise, x = (1 - t) x0 +
    t noise and the velocity is noise - x0 (Stable Diffusion 3, FLUX). With `reverse` t = 1 is the data, x = t x0 +
    (1 - t) noise and the velocity is x0 - noise (Lipman et al. 2023; rectified flow of Liu et al. 2023). The sampler's
    levels are the first kind of t in either case. Where only one of both is turned round, or t goes to 1000, give a
    lambda: `lambda x, t, **kwargs: network(x, 1000 * t, **kwargs)`.

    Args:
        network: a torch module, or any function.
        reverse: whether t = 1 is the data, and the velocity points there.
        **options: clip, dtype, device, identity, label_dim, as of `from_eps`.

    Raises:
        InputError: clip is no range; in a call: the network's answer is not like x.

    Source: Lipman et al. 2023 (arXiv 2210.02747); Liu et al. 2023 (arXiv 2209.03003); Esser et al. 2024
    (arXiv 2403.03206).
    """
    call = NetworkCall(network, **options)
    reverse = truth_value("reverse", reverse)

    def denoise(x: Tensor, t: Tensor, /, **kwargs: Any) -> Tensor:
        velocity = call(x, 1 - t if reverse else t, **kwargs)
        return x + _beside(t, x) * velocity if reverse else x - _beside(t, x) * velocity

    return call.net(denoise, "flow, reverse" if reverse else "flow", process=FLOW, sigma_min=0.0, sigma_max=1.0)


def from_edm(
    denoiser: Network, sigma_min: float, sigma_max: float, *, D: int | None = None, **options: Unpack[Options]
) -> FunctionNet:
    """Makes a net of a denoiser as EDM and k-diffusion call it: denoiser(x, sigma, **kwargs) -> x0.

    Args:
        denoiser: a torch module, or any function, of x = x0 + sigma noise and float levels sigma [B].
        sigma_min: the lowest level that it knows; 0: any.
        sigma_max: the highest.
        D: augmented dimensions, if it is a PFGM++ model.
        **options: clip, dtype, device, identity, label_dim, as of `from_eps`.

    Raises:
        InputError: the levels or D are out of range, or clip is no range; in a call: the answer is not like x.

    Source: Karras et al. 2022 (arXiv 2206.00364).
    """
    sigma_min, sigma_max = real_number("sigma_min", sigma_min), real_number("sigma_max", sigma_max)
    if not 0 <= sigma_min < sigma_max:
        raise InputError(
            f"the denoiser has levels from {sigma_min:g} to {sigma_max:g}; give 0 <= sigma_min < sigma_max"
        )
    D = None if D is None else augmented_dimensions(D)
    call = NetworkCall(denoiser, **options)
    return call.net(call, "edm", process=VE, sigma_min=sigma_min, sigma_max=sigma_max, D=D)


def _discrete(
    prediction: Literal["eps", "v", "x0"],
    network: Network,
    alphas_cumprod: Tensor | Sequence[float],
    continuous: bool,
    options: Options,
) -> FunctionNet:
    call = NetworkCall(network, **options)
    continuous = truth_value("continuous", continuous)
    sigmas = _levels(alphas_cumprod)
    places = [log(sigma) for sigma in sigmas]
    table = torch.tensor(places, dtype=state_dtype(call.device), device=call.device)
    middles = (table[1:] + table[:-1]) / 2

    def timestep(sigma: Tensor) -> Tensor:
        place = sigma.to(table.dtype).log()
        if not continuous:
            return torch.searchsorted(middles, place)
        after = torch.searchsorted(table, place).clamp(1, len(table) - 1)
        return after - 1 + ((place - table[after - 1]) / (table[after] - table[after - 1])).clamp(0, 1)

    def denoise(x: Tensor, sigma: Tensor, /, **kwargs: Any) -> Tensor:
        s = _beside(sigma, x)
        scale = (1 + s**2).rsqrt()  # sqrt(a)
        answer = call(scale * x, timestep(sigma), **kwargs)
        match prediction:
            case "eps":
                return x - s * answer
            case "v":
                return scale * (scale * x - s * answer)
            case "x0":
                return answer
        assert_never(prediction)

    def round_level(level: float) -> float:
        if continuous or level == 0:
            return level
        return sigmas[min(range(len(sigmas)), key=lambda t: abs(places[t] - log(level)))]

    return call.net(
        denoise,
        f"{prediction}, levels {sha256(repr(sigmas).encode()).hexdigest()}{', continuous' * continuous}",
        process=VE,
        sigma_min=sigmas[0],
        sigma_max=sigmas[-1],
        round_level=round_level,
    )


def _levels(alphas_cumprod: Tensor | Sequence[float]) -> list[float]:
    """Checks a table of alphas_cumprod and returns its sigmas, which rise."""
    try:
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"alphas_cumprod is of type {type(alphas_cumprod).__name__}, without T numbers; give a tensor or a list"
        ) from None
    if table.ndim != 1 or len(table) < 2:
        raise InputError(f"alphas_cumprod has the shape {list(table.shape)}; give [T], with T of 2 or more")
    values = table.tolist()
    for t, value in enumerate(values):
        if not 0 < value < 1:
            if value == 0 and t == len(values) - 1:
                cure = (
                    "of a schedule with zero terminal SNR leave the last entry out, at which there is no data: "
                    "alphas_cumprod[:-1]"
                )
            elif value in (0, 1):
                cure = f"at {value:g} there is no {'noise' if value else 'data'}; float16 rounds to it, so give float32"
            else:
                cure = "give the cumulative products of 1 - beta"
            raise InputError(f"alphas_cumprod[{t}] is {value:g}, and must lie between 0 and 1; {cure}")
        if t and not value < values[t - 1]:
            raise InputError(
                f"alphas_cumprod[{t}] is {value:g}, not below the {values[t - 1]:g} before it; give the products "
                f"of 1 - beta, which fall with the timestep"
            )
    if values[-1] > 0.5:
        raise InputError(
            f"alphas_cumprod ends at {values[-1]:g}, where there is more data than noise, and samplers start from "
            f"noise; give the cumulative products of 1 - beta, not its values"
        )
    return [sqrt((1 - value) / value) for value in values]


def _beside(level: Tensor, x: Tensor) -> Tensor:
    """Reshapes levels [B] to [B, 1, ...], in the dtype of states x."""
    return level.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
