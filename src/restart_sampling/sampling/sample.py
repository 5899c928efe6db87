"""Samples from a net, a plan and seeds; the noise is of the kind that the net needs."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import as_sizes, counted
from restart_sampling.base.numerics import full_float32
from restart_sampling.sampling.follow import walk
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import check_channels_of, guidance_note, image_traits, net_noise, net_path
from restart_sampling.sampling.noise import Noise, seed_list
from restart_sampling.sampling.path import NoisePath
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
    if one_hot := image_traits(net).one_hot:
        _check_labels(one_hot, kwargs.get("class_labels"), len(seeds))
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
