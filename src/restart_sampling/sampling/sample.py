"""Samples from a net, a plan and seeds; the noise is of the kind that the net needs."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.base.numerics import full_float32
from restart_sampling.sampling.follow import follow, walk
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.noise import GaussianNoise, Noise, PFGMppNoise, seed_list
from restart_sampling.sampling.path import NoisePath, check_levels
from restart_sampling.sampling.plan import Plan, as_plan


@dataclass(frozen=True, eq=False)
class Step:
    """A sampler after one of its moves.

    Attributes:
        index: of the move, from 0.
        move: a fall or a rise.
        level: where the state is now, move.then.
        state: [B, ...], not to be written to.
        x0: the denoiser's latest estimate of the data, likewise; None before its first.
    """

    index: int
    move: Move
    level: float
    state: Tensor
    x0: Tensor | None


def sample(net: Net, plan: Plan | str, seeds: Iterable[int], shape: Sequence[int], **kwargs: Any) -> Tensor:
    """Draws one sample for each seed, which depends on its seed alone and not on the others.

    Args:
        net: from `from_eps`, `from_flow`, `load_model` and the like.
        plan: the sampler, or its text; its levels are the net's own: sigma, or t of a flow.
        seeds: one for each sample, in [0, 2^63), in the order of the samples.
        shape: of one sample, without the batch.
        **kwargs: the network's own, passed to each call. The `class_labels` of a checkpoint (`load_model`) are class
            numbers, int64 [B], or rows of weights from 0 to 1 [B, label_dim], one-hot as a rule. A network or function
            of yours gets its keywords as they are: what they may be is for it to check.

    Returns:
        [B, *shape] at the plan's last level, float64 (float32 on MPS), on the net's device.

    Raises:
        InputError: the plan does not fit the net, or goes with a guidance scale, a seed is out of range or given twice,
            the shape has no sizes or not the checkpoint's channels, class labels do not fit the checkpoint or the
            seeds, the net's answer is not like its state, or a sample is not finite.
    """
    seeds = seed_list(seeds)
    [last] = deque(steps(net, plan, seeds, shape, **kwargs), maxlen=1)
    x = last.state
    broken = [
        seed for seed, fine in zip(seeds, torch.isfinite(x).flatten(1).all(dim=1).tolist(), strict=True) if not fine
    ]
    if broken:
        raise InputError(
            f"the sample of seed {broken[0]} is not finite with plan '{plan}'; check whether the network overflows "
            f"in its dtype, and whether the plan suits it"
        )
    return x


def steps(net: Net, plan: Plan | str, seeds: Iterable[int], shape: Sequence[int], **kwargs: Any) -> Iterator[Step]:
    """Draws samples as `sample` does, whose result is the last state, and yields after each move.

    Takes and raises what `sample` does, but does not look for values that are not finite.
    """
    plan = as_plan(plan)
    path = net_path(net, plan)
    if plan.guidance is not None:
        raise InputError(
            f"the plan '{plan}' goes with guidance {plan.guidance:g}, and the net is called as it is; draw images with "
            f"rs.generate, or give a net of rs.guided and the text of the plan"
        )
    if note := guidance_note(plan, 1.0):  # what it was found for is the net before any guidance
        warnings.warn(note, stacklevel=2)
    seeds = seed_list(seeds)
    if len(set(seeds)) < len(seeds):
        raise InputError("a seed is given twice; each seed makes one sample")
    shape = as_shape(shape)
    check_channels_of(net, shape)
    if hasattr(net, "one_hot"):
        _check_labels(net.one_hot, kwargs.get("class_labels"), len(seeds))
    noise = net_noise(net, seeds, plan.s_noise)
    return _steps(net, plan, path, noise, shape, kwargs)


def _check_labels(one_hot: Callable[[Tensor | None], Tensor | None], labels: Any, count: int) -> None:
    """Makes sure that class labels are those of so many samples, on the CPU, where `one_hot` looks at their values."""
    rows = one_hot(labels.cpu() if isinstance(labels, Tensor) else labels)
    if rows is None:
        return
    if len(rows) != count:
        raise InputError(
            f"class labels of {counted(len(rows), 'sample')} are given for {counted(count, 'seed')}; give one for each "
            f"seed"
        )
    if not ((rows >= 0) & (rows <= 1)).all():
        raise InputError(
            f"class labels are rows of values from {rows.min():g} to {rows.max():g}; give one-hot rows, of values from "
            f"0 to 1, or class numbers, int64 [B]"
        )


def as_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of one sample.

    Raises:
        InputError: it is none, or empty.
    """
    if sizes := as_sizes(shape):
        return sizes
    raise InputError(f"the shape of a sample is {shape!r}; give whole numbers above 0, such as (3, 32, 32)")


def as_sizes(shape: object) -> tuple[int, ...]:
    """Returns the sizes of a shape; (): it has none, or is no shape."""
    try:
        sizes = tuple(map(index, shape))  # type: ignore[call-overload]
    except TypeError:
        return ()
    return sizes if min(sizes, default=0) >= 1 else ()


def check_channels_of(net: Net, shape: Sequence[int]) -> None:
    """Makes sure that samples have the channels of a checkpoint.

    Raises:
        InputError: they have others.
    """
    channels = getattr(net, "channels", None)
    if channels is not None and (len(shape) != 3 or shape[0] != channels):
        own = getattr(net, "shape", (channels, 32, 32))
        raise InputError(
            f"the shape of a sample is {tuple(shape)}, and images of the checkpoint have "
            f"{counted(channels, 'channel')}; give (channels, height, width), such as {own}"
        )


def _steps(
    net: Net, plan: Plan, path: NoisePath, noise: Noise, shape: Sequence[int], kwargs: dict[str, Any]
) -> Iterator[Step]:
    x0 = None

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        nonlocal x0
        with full_float32():
            x0 = net(x, level, **kwargs)
        return x0

    start = noise.start(shape, path.levels[0])
    for place, move, x in walk(denoise, start, path, *plan.solvers, net.process, noise):
        yield Step(place, move, move.then, x, x0)


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
    check_levels(plan.intervals, net.process)
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
    label_dim = getattr(net, "label_dim", 0)
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
