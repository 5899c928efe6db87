"""Guidance within a pipeline: at some levels only, or by another network than the unconditional one.

A pipeline that guides evaluates its network on a batch of two halves, without and with the prompt, and takes
D = D_first + scale (D_second - D_first) of the answers. What its network answers in the first half decides what it
guides by: so the network is all that changes, and where both halves are equal there is no guidance.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError

Interval = tuple[float, float]
"""(low, high): guidance is on where low < level <= high."""


@dataclass(frozen=True, eq=False)
class Guide:
    """A network that guides in place of the unconditional one: autoguidance.

    Attributes:
        name: as the user wrote it.
        network: of the class of the pipeline's own, and called as it is.
        sha256: of its weights, in their dtype.
    """

    name: str
    network: torch.nn.Module
    sha256: str


def check_interval(interval: Interval) -> None:
    """Makes sure that a guidance interval is one.

    Raises:
        InputError: it is empty, or below 0.
    """
    low, high = interval
    if not (isfinite(low) and 0 <= low < high):
        raise InputError(
            f"the guidance interval is {low:g} to {high:g}; give two levels, the lower one first, such as 0.3,5"
        )


def rows_on(levels: Sequence[float], interval: Interval | None) -> list[bool]:
    """Tells whether guidance is on at these levels.

    Raises:
        InputError: it is on at none of them.
    """
    if interval is None:
        return [True] * len(levels)
    low, high = interval
    on = [low < level <= high for level in levels]
    if not any(on):
        raise InputError(
            f"guidance is on between the levels {low:g} and {high:g}, and the sampler goes from {levels[0]:.4g} to "
            f"{levels[-1]:.4g} without a step there; give another interval"
        )
    return on


@contextmanager
def guiding(network: torch.nn.Module, on: Sequence[bool], guide: Guide | None) -> Iterator[None]:
    """Has a pipeline guide in these rows alone, by the guide where there is one, in the body.

    Source: Kynkäänniemi et al. 2024 (arXiv 2404.07724); Karras et al. 2024 (arXiv 2406.02507).

    Args:
        network: of the pipeline, which is called once a row.
        on: a value for each row of the scheduler.
        guide: in place of the first half; None: the network itself.
    """
    rows = iter(on)

    def forward(evaluate: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        guided = next(rows)
        if guided and guide is None:
            return evaluate(*arguments, **named)
        own, named = _second_half((arguments, named), _batch(arguments, named))
        answer = evaluate(*own, **named)
        return _paired(guide.network(*own, **named) if guided and guide else answer, answer)

    with _replaced(network, forward):
        yield


@contextmanager
def testing(network: torch.nn.Module, guide: Guide | None) -> Iterator[None]:
    """Has the network answer 0 in the first half and 1 in the second, of which guidance makes its scale.

    Args:
        network: of the pipeline.
        guide: is evaluated too.

    Raises:
        InputError: in a call, the pipeline does not evaluate both halves in one batch.
    """

    def forward(evaluate: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if _batch(arguments, named) != 2:
            raise InputError(
                "a guidance interval and a guide need a pipeline that evaluates an image with and without its prompt "
                "in one batch, as it does not (none does at guidance 1); leave them out"
            )
        own, named = _second_half((arguments, named), 2)
        answer = evaluate(*own, **named)
        other = guide.network(*own, **named) if guide else evaluate(*own, **named)
        return _paired(_each(other, torch.zeros_like), _each(answer, torch.ones_like))

    with _replaced(network, forward):
        yield


@contextmanager
def remembering(networks: Iterable[torch.nn.Module], answers: dict[Any, Any]) -> Iterator[None]:
    """Evaluates networks once for each form of what they are asked, in the body; after that they answer as before.

    Args:
        networks: of the pipeline.
        answers: what they have answered, by the network and the form; it is added to.
    """

    def forward(
        network: torch.nn.Module, evaluate: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        form = network, _form(arguments), _form(named)
        if form not in answers:
            answers[form] = evaluate(*arguments, **named)
        return answers[form]

    with ExitStack() as replaced:
        for network in networks:
            replaced.enter_context(_replaced(network, partial(forward, network)))
        yield


def _form(value: Any) -> Any:
    """Returns what a network is asked, but of tensors their shapes and dtypes."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, dict):
        return tuple((key, _form(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_form, value))
    return value if isinstance(value, Hashable) else type(value)


@contextmanager
def counted_images(
    *networks: torch.nn.Module, evaluated: Callable[[int], None] = lambda images: None
) -> Iterator[Callable[[], int]]:
    """Counts the images that networks evaluate in the body, and yields a function that returns the count.

    Classifier-free guidance evaluates each image twice, in one batch or two; `evaluated` is told how many each
    evaluation has.
    """
    if not networks:
        yield lambda: 0
        return
    images = 0

    def forward(evaluate: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        nonlocal images
        count = _batch(arguments, named)
        images += count
        answer = evaluate(*arguments, **named)
        evaluated(count)
        return answer

    network, *others = networks
    with _replaced(network, forward), counted_images(*others, evaluated=evaluated) as more:
        yield lambda: images + more()


@contextmanager
def _replaced(network: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Calls `forward(the network's own forward, arguments, named arguments)` in its place."""
    before, evaluate = vars(network).get("forward"), network.forward

    @wraps(evaluate)  # pipelines look at its arguments
    def replaced(*arguments: Any, **named: Any) -> Any:
        return forward(evaluate, arguments, named)

    network.forward = replaced
    try:
        yield
    finally:
        if before is None:
            del network.forward
        else:
            network.forward = before


def _batch(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    return len(arguments[0] if arguments else named["hidden_states"])


def _second_half(value: Any, batch: int) -> Any:
    """Halves all tensors of a batch, also in dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value[batch // 2 :] if value.ndim and len(value) == batch else value
    if isinstance(value, dict):
        return {key: _second_half(each, batch) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_second_half(each, batch) for each in value)
    return value


def _paired(first: Any, second: Any) -> Any:
    """Joins two halves to one answer."""
    halves = iter(first if isinstance(first, tuple) else first.values())
    return _each(second, lambda half: torch.cat([next(halves), half]))


def _each(answer: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Makes an answer like a network's, a tuple or diffusers' object of its output, with other tensors."""
    if isinstance(answer, tuple):
        return tuple(change(each) for each in answer)
    return type(answer)(**{key: change(each) for key, each in answer.items()})
