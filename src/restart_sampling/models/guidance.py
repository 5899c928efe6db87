"""Guidance: pushes a net's answer away from that of a weaker or unconditional net."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from math import inf, isclose, isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, truth_value
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.sampling.net import FunctionNet, Net, around
from restart_sampling.sampling.net_plan import image_traits, require_net


def guided(
    net: Net,
    scale: float,
    *,
    conditional: Mapping[str, Any] | None = None,
    unconditional: Mapping[str, Any] | None = None,
    guide: Net | None = None,
    interval: tuple[float, float] = (0.0, inf),
    batched: bool = True,
) -> FunctionNet:
    """Guides a net: D = D_guide + scale (D_net - D_guide), at levels within an interval; D_net elsewhere.

    Without a `guide` this is classifier-free guidance, D_guide being the net without its condition, and with one it is
    autoguidance, by a worse model of the same data.

    Args:
        net: whose answer counts.
        scale: 1 is no guidance, more is stronger.
        conditional: keyword arguments of the net, beside those of each call, which has none of the same name.
        unconditional: keyword arguments of the guide, beside those of each call, of which they replace those of the
            same name; tensors, also in dicts, lists and tuples, are [B, ...], or [1, ...] for all images. Default:
            those of the net, for a `guide`.
        guide: a net of the same process and D, whose levels are the net's where both are discrete; default: `net`
            itself, which then needs `unconditional`.
        interval: guidance is on where low < level <= high, in the process's level; on a GPU each call then waits to
            learn its level.
        batched: whether classifier-free guidance makes one call with a batch of twice the size, or two calls.

    Returns:
        A net of the levels that both know. A call takes two evaluations where guidance is on, one elsewhere.

    Raises:
        InputError: no net, no number as scale, nothing to guide by, a guide of another process, or an interval without
            a level of the net; in `round_level`: the guide has other levels; in a call: arguments that are given twice,
            or cannot make one batch.

    Source: Ho and Salimans 2022 (arXiv 2207.12598); Karras et al. 2024 (arXiv 2406.02507) for a second network;
    Kynkäänniemi et al. 2024 (arXiv 2404.07724) for the interval.
    """
    require_net(net)
    scale = real_number("the guidance scale", scale)
    truth_value("batched", batched)
    if not isfinite(scale):
        raise InputError(f"the guidance scale is {scale:g}; give a finite number, 1 for none")
    low, high = _ends(interval, net)
    everywhere = low <= 0 and high >= net.sigma_max
    if guide is None and unconditional is None:
        raise InputError(
            "there is nothing to guide by; give the arguments of the unconditional call (unconditional={...}), or a "
            "second net (guide=...)"
        )
    weaker = net if guide is None else _checked(guide, net)
    bound = conditional or {}

    def denoise(x: Tensor, level: Tensor, /, **kwargs: Any) -> Tensor:
        if twice := kwargs.keys() & bound:
            raise InputError(
                f"the argument {min(twice)} is given both as conditional and in the call; leave out one of them"
            )
        wanted = {**kwargs, **bound}
        on = (level > low) & (level <= high)
        if scale == 1 or not (everywhere or on.any()):
            return net(x, level, **wanted)
        without = wanted if unconditional is None else {**kwargs, **unconditional}
        if batched and guide is None:
            d_guide, d_net = _in_one_batch(net, x, level, without, wanted)
        else:
            d_guide, d_net = weaker(x, level, **without), net(x, level, **wanted)
        result = d_guide + scale * (d_net - d_guide)
        return torch.where(on.reshape(-1, *[1] * (x.ndim - 1)), result, d_net)

    def round_level(level: float) -> float:
        own = net.round_level(level)
        rounded = weaker.round_level(own)
        if not isclose(net.round_level(rounded), rounded, rel_tol=1e-4):
            raise InputError(
                f"level {level:g} is {own:g} to the net and {rounded:g} to the guide; give a guide of the same levels, "
                f"or make one of both with continuous=True"
            )
        return rounded

    def evaluations(level: float) -> int:
        on = scale != 1 and low < level <= high
        return net.evaluations(level) + (weaker.evaluations(level) if on else 0)

    def identify(inner: str) -> str | None:
        by = guide.identity if guide else "itself"
        given = tuple(map(float, (scale, low, high)))
        try:
            arguments = f"{_content(conditional)} over {_content(unconditional)}"
        except TypeError:
            return None
        return by and f"{inner} guided by {by}, scale and interval {given}, with {arguments}"

    return around(
        net,
        denoise,
        identify,
        evaluations=evaluations,
        round_level=round_level,
        sigma_min=max(net.sigma_min, weaker.sigma_min),
        sigma_max=min(net.sigma_max, weaker.sigma_max),
        # Classes that are bound here are not drawn.
        label_dim=0 if "class_labels" in bound else image_traits(net).label_dim,
    )


def _checked(guide: Net, net: Net) -> Net:
    """Returns the guide of a net, which has its process and its D."""
    require_net(guide, "the guide")
    if (guide.process, guide.D) != (net.process, net.D):
        raise InputError(
            f"the guide has the process {guide.process.name} and D {guide.D}, the net {net.process.name} and {net.D}; "
            f"they must be the same"
        )
    return guide


def _ends(interval: tuple[float, float], net: Net) -> tuple[float, float]:
    """Returns the ends of an interval of levels, of which some are the net's."""
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        raise InputError(f"the interval of guidance is {interval!r}; give two levels (low, high)")
    low, high = (real_number("a level of the interval of guidance", each) for each in interval)
    if not (low < high and low < net.sigma_max and net.sigma_min <= high):
        raise InputError(
            f"guidance between the levels {low:g} and {high:g} is nowhere; give (low, high), low < high, among the "
            f"net's levels, which go from {net.sigma_min:g} to {net.sigma_max:g}"
        )
    return low, high


def _in_one_batch(
    net: Net, x: Tensor, level: Tensor, without: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Calls a net once, for its answers without and with the condition."""
    pair = {**wanted, **without}
    if alone := sorted(key for key in without.keys() ^ wanted.keys() if pair[key] is not None):
        one, other = ("unconditional", "conditional") if alone[0] in without else ("conditional", "unconditional")
        raise InputError(
            f"the argument {alone[0]} is given to the {one} call alone; give the {other} one its own, or make "
            f"two calls (batched=False)"
        )
    both = {key: _joined(key, without.get(key), wanted.get(key), len(x)) for key in pair}
    return net(torch.cat([x, x]), torch.cat([level, level]), **both).chunk(2)


def _content(value: Any) -> str:
    """Returns the whole of a value as text, in which tensors and arrays have the SHA-256 of their values.

    Raises:
        TypeError: a value is of a kind whose text may leave something out.
    """
    match value:
        case Tensor() | np.ndarray() if value.dtype != object:
            said = repr((value.dtype, tuple(value.shape), value.tolist()))
            return f"{type(value).__name__} {sha256(said.encode()).hexdigest()}"
        case Mapping():
            return f"{{{', '.join(sorted(f'{_content(key)}: {_content(each)}' for key, each in value.items()))}}}"
        case list() | tuple():
            return f"{type(value).__name__} ({', '.join(map(_content, value))})"
        case None | str() | bytes() | bool() | int() | float() | np.generic() | torch.dtype() | torch.device():
            return repr(value)
    raise TypeError(f"a {type(value).__name__} cannot be told from another")


def _joined(key: str, without: Any, wanted: Any, batch: int) -> Any:
    """Joins one argument for the doubled batch: tensors one after the other; other values must be those of both.

    Dicts, lists and tuples are joined entry by entry. Arrays that are no tensors cannot be told from single values.
    """
    if isinstance(without, Tensor) and isinstance(wanted, Tensor):
        rows = {len(each) if each.ndim else 0 for each in (without, wanted)}
        if without.shape[1:] == wanted.shape[1:] and rows <= {1, batch}:
            return torch.cat([each.expand(batch, *each.shape[1:]) for each in (without, wanted)])
    elif isinstance(without, Mapping) and isinstance(wanted, Mapping) and without.keys() == wanted.keys():
        return {name: _joined(f"{key}[{name!r}]", without[name], wanted[name], batch) for name in wanted}
    elif type(without) is type(wanted) and not hasattr(wanted, "shape"):
        if type(wanted) in (list, tuple) and len(without) == len(wanted):
            return type(wanted)(
                _joined(f"{key}[{place}]", *each, batch) for place, each in enumerate(zip(without, wanted, strict=True))
            )
        if without is wanted or without == wanted:
            return wanted
    raise InputError(
        f"the argument {key} of the unconditional and of the conditional call cannot make one batch; give tensors of "
        f"one shape, [{batch}, ...] or [1, ...], or make two calls (batched=False)"
    )


def guided_by_class(
    model: Denoiser, class_labels: Tensor | None, scale: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Binds class labels to a model, with classifier-free guidance.

    Args:
        model: a denoiser; for guidance, one that was trained with label dropout.
        class_labels: one-hot [B, label_dim], or class numbers int64 [B]; None is unconditional.
        scale: 1 is the plain conditional model.

    Returns:
        denoise(x, sigma) for a batch of len(class_labels) images.

    Raises:
        InputError: the class labels do not fit the model, or guidance was asked for without them.
    """
    labels = model.one_hot(class_labels)
    if scale == 1:
        return lambda x, sigma: model(x, sigma, labels)
    if labels is None:
        raise InputError(f"guidance has the scale {scale} but no class labels; give class labels, or use the scale 1")
    return guided(
        model,
        scale,
        conditional={"class_labels": labels},
        unconditional={"class_labels": torch.zeros_like(labels)},
    )
