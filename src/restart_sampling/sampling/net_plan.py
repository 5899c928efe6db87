"""A net and a plan: what is known of the net, whether they fit, and the path and the noise that they make."""

from collections.abc import Sequence
from dataclasses import fields
from math import isfinite

import torch
from torch import Tensor, nn

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.sampling.follow import follow
from restart_sampling.sampling.net import ImageTraits, Net
from restart_sampling.sampling.noise import GaussianNoise, Noise
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.pfgmpp import PFGMppNoise
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.process import KnownLevels


def known_levels(net: Net) -> list[float | None]:
    """Lists the lowest and the highest level that a net knows, as JSON; null: there is no limit."""
    return [float(level) if isfinite(level) else None for level in (net.sigma_min, net.sigma_max)]


def levels_of(net: Net) -> KnownLevels:
    """Returns what plans take of a net."""
    return KnownLevels(net.sigma_min, net.sigma_max, net.round_level, net.process)


def image_traits(net: Net) -> ImageTraits:
    """Returns what drawings take of a net."""
    own = [entry.name for entry in fields(ImageTraits) if hasattr(net, entry.name)]
    return ImageTraits(**{name: getattr(net, name) for name in own})


def check_channels_of(net: Net, shape: Sequence[int]) -> None:
    """Makes sure that samples have the channels of a checkpoint.

    Raises:
        InputError: they have others.
    """
    traits = image_traits(net)
    channels = traits.channels
    if channels is not None and (len(shape) != 3 or shape[0] != channels):
        own = traits.shape or (channels, 32, 32)
        raise InputError(
            f"the shape of a sample is {tuple(shape)}, and images of the checkpoint have "
            f"{counted(channels, 'channel')}; give (channels, height, width), such as {own}"
        )


def require_net(net: object, role: str = "the net") -> None:
    """Makes sure that something is a net and not a bare network, and not in training.

    Raises:
        InputError: it is none, or in training mode.
    """
    if not hasattr(net, "process"):
        raise InputError(
            f"{role} is a {type(net).__name__}; make one of a network by what it predicts, with from_eps, from_v, "
            f"from_x0, from_flow or from_edm"
        )
    if isinstance(net, nn.Module) and any(module.training for module in net.modules()):
        raise InputError(
            f"{role} is in training mode, in which dropout is random and batches matter; call its eval() first"
        )


def net_path(net: Net, plan: Plan) -> NoisePath:
    """Makes the noise path of a plan on the levels that a net knows.

    Raises:
        InputError: the plan does not fit the net, or was found for another, or it is no net.
    """
    require_net(net)
    check_made_for(net, plan)
    for interval in plan.intervals:
        interval.check_levels(net.process)
    return plan.path(net.sigma_min, net.sigma_max, net.round_level)


def check_made_for(net: Net, plan: Plan) -> None:
    """Makes sure that a plan that was found for one net is not given to another.

    Raises:
        InputError: it was found for another, or for another D of it.
    """
    if plan.made_for is None:
        return
    identity = net.identity
    if identity is None or identity not in (plan.made_for, plan.or_made_for):
        raise InputError(
            f"the plan '{plan}' was found for another model, of identity {plan.made_for[:12]} and not "
            f"{(identity or 'unknown')[:12]}, and one that helps a model can harm another; give --any-model, or in "
            f"Python the text of the plan, to use it all the same"
        )
    if plan.D not in (None, net.D):
        raise InputError(
            f"the plan '{plan}' was found for this model with D = {plan.D}, and not {net.D}; give "
            f"--any-model, or in Python the text of the plan, to use it all the same"
        )


def guidance_of(plan: Plan, asked: float | None) -> float:
    """Returns the guidance scale to draw a plan at: the one that is asked for, the plan's own, or 1.

    Raises:
        InputError: the plan goes with another.
    """
    own = plan.guidance
    if asked is not None and own not in (None, asked):
        raise InputError(
            f"the plan '{plan}' goes with guidance {own:g}, and {asked:g} is asked for; ask for the same, or give the "
            f"text of the plan"
        )
    return next((scale for scale in (asked, own) if scale is not None), 1.0)


def guidance_note(plan: Plan, guidance: float) -> str | None:
    """Says what has to be known of a plan that was found at another guidance scale than this; None: nothing."""
    if plan.found_at in (None, guidance):
        return None
    return f"the plan '{plan}' was found at guidance {plan.found_at:g}, and this is {guidance:g}"


def net_noise(net: Net, seeds: Sequence[int], s_noise: float = 1.0) -> Noise:
    """Makes the noise that belongs to a net: PFGM++'s for its D, else Gaussian for its process.

    Raises:
        InputError: a seed is out of range.
    """
    if net.D is not None:
        return PFGMppNoise(seeds, D=net.D, s_noise=s_noise, device=net.device)
    return GaussianNoise(seeds, s_noise=s_noise, process=net.process, device=net.device)


def drawn_classes(net: Net, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Draws the classes that `generate` draws for these seeds: the arguments of a call; none where the net has none."""
    label_dim = image_traits(net).label_dim
    return {"class_labels": net_noise(net, seeds).labels(label_dim)} if label_dim else {}


def network_evaluations(net: Net, plan: Plan, path: NoisePath | None = None) -> int:
    """Counts the evaluations of networks for one sample: the plan's NFE, but more where guidance takes two for a call.

    Args:
        net: what is called.
        plan: the sampler.
        path: of `net_path`, where it is there already.

    Raises:
        InputError: the plan does not fit the net.
    """
    count = 0

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        nonlocal count
        count += net.evaluations(level.item())
        return x

    state = torch.zeros(1, 1, dtype=torch.float64, device="cpu")
    follow(denoise, state, path or net_path(net, plan), *plan.solvers, net.process, lambda x, low, high: x)
    return count
