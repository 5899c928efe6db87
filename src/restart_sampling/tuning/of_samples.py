"""`OfSamples`: gives plans their scores by a function of the user's on samples, such as `sliced_wasserstein(data)`."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from inspect import getsource
from math import nan
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, require_kind, whole_number
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.seeds import cut
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import drawn_classes, net_path
from restart_sampling.sampling.noise import seed_list
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.sample import sample
from restart_sampling.tuning.objective import Key, ObjectiveError, Scores
from restart_sampling.tuning.score import Score

MOST = 1e100
"""Of what a function of the user's returns, and one by it the least: squares of it have to be floats."""


@dataclass(frozen=True)
class OfSamples:
    """A function of the user's on samples, such as `sliced_wasserstein(data)`.

    Attributes:
        net: draws the samples.
        shape: of one sample.
        function: of samples [n, *shape], float, on the net's device; lower is better. It is called for each group of
            seeds, of which all that are compared have the same size.
        batch: samples at a time.
    """

    net: Net
    shape: Sequence[int]
    function: Callable[[Tensor], float]
    batch: int = 1024

    @property
    def about(self) -> dict[str, Any]:
        """The name of the function, its identity (that of `sliced_wasserstein` is of its data) or its code's, and D."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        identity = getattr(self.function, "identity", None)
        own = _sha256(_code(self._source)) if identity is None else identity
        augmented = {} if self.net.D is None else {"D": self.net.D}
        return {"objective": name, "objective_sha256": own, "shape": self.shape, **augmented}

    @property
    def about_before(self) -> dict[str, Any]:
        """The identity of the code in versions whose runs knew it by its text, comments and all."""
        named = getattr(self.function, "identity", None) is not None
        return {} if named else {"objective_sha256": _sha256(self._source)}

    @property
    def _source(self) -> str | None:
        """The text of the function, as two files may each have one of the same name; None: not known."""
        try:
            return getsource(self.function)
        except (OSError, TypeError):  # typed into a shell, or no function
            return None

    def check_identity(self) -> None:
        """Makes sure that a later start can tell whether its function is this one.

        Raises:
            InputError: it was made by other code, as a lambda, `functools.partial` or a function in a function, each of
                which may have other data, and has no identity.
        """
        unnamed = "<" in getattr(self.function, "__qualname__", "<")
        if unnamed and getattr(self.function, "identity", None) is None:
            raise InputError(
                f"a folder is kept of an objective that can be told apart from others, and {self.about['objective']} "
                f"has no name of its own; give it an identity (objective.identity = 'distance to set 1'), give a "
                f"function that a module defines by name, or leave out out"
            )

    @property
    def features(self) -> dict[str, int]:
        """There is no detector."""
        return {}

    def nfe(self, plan: str) -> int:
        """Returns the calls of the denoiser for a sample."""
        parsed = Plan.parse(plan)
        return net_path(self.net, parsed).nfe(*parsed.solvers)

    def measure(self, key: Key, ranks: Ranks, keep: Path | None = None) -> Scores:
        """Measures as `Objective.measure` says; there are no images to keep.

        Raises:
            ObjectiveError: the function returned what is no finite number.
        """
        size = len(key.seeds) // key.parts
        parts, own = cut(key.seeds, size), []
        with ranks.failing_together():
            for places in cut(ranks.deal(range(len(parts))), max(1, self.batch // size)):
                samples = self._draw(key.plan, [seed for place in places for seed in parts[place]])
                own += [
                    (place, self._value(key.plan, part))
                    for place, part in zip(places, torch.split(samples, size), strict=True)
                ]
        values = [value for _, value in sorted(pair for pairs in ranks.gather(own) for pair in pairs)]
        return {"objective": Score.of_means(values, key.blocks, key.groups)}

    def _draw(self, plan: str, seeds: Sequence[int]) -> Tensor:
        drawn = [
            sample(self.net, plan, each, self.shape, **drawn_classes(self.net, each)) for each in cut(seeds, self.batch)
        ]
        return torch.cat(drawn)

    def _value(self, plan: str, samples: Tensor) -> float:
        try:
            value = self.function(samples)
        except InputError as failure:  # the function's, and not one of the plan
            raise ObjectiveError(f"the objective failed: {failure}") from failure
        try:
            number = real_number("the objective", value)
        except InputError:  # such as a text, or a complex tensor
            number = nan
        if number and not 1 / MOST <= abs(number) <= MOST:
            raise ObjectiveError(
                f"the objective returned {value!r} for {len(samples)} finite samples of plan '{plan}'; it has to "
                f"return a finite number, lower where samples are better, and 0 or from {1 / MOST:g} to {MOST:g} in "
                f"size"
            )
        return number


def _sha256(text: str | None) -> str | None:
    return text and sha256(text.encode()).hexdigest()


def _code(source: str | None) -> str | None:
    """Writes a function without what does not run: comments, docstrings and the layout of its lines."""
    try:
        tree = ast.parse(dedent(source or ""))
    except SyntaxError:  # of a lambda, amid the lines that it stands in
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def sliced_wasserstein(data: Tensor, directions: int = 128, seed: int = 0) -> Callable[[Tensor], float]:
    """Makes an objective of data that are no images: the sliced 2-Wasserstein distance of samples to them.

    Args:
        data: [M, ...].
        directions: random ones, the same at each call.
        seed: of the directions.

    Returns:
        A function of samples [n, ...] of the same shape: the root of the mean over directions of the squared distance.
        It raises InputError for samples of another shape.

    Raises:
        InputError: data is no such tensor, directions is no whole number above 0, or seed is out of range.

    Source: Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", section 3.
    """
    require_kind("data", data, Tensor, "a tensor [M, ...]")
    if data.ndim < 2 or not len(data):
        raise InputError(f"data has the shape {list(data.shape)}; give [M, ...], with M of 1 or more")
    if whole_number("directions", directions) < 1:
        raise InputError(f"directions is {directions}; give at least 1")
    (seed,) = seed_list([seed])
    flat = data.detach().cpu().double().flatten(1)
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(flat.shape[1], directions, generator=generator, dtype=torch.float64)
    axes /= axes.norm(dim=0)
    wanted = (flat @ axes).sort(dim=0).values

    def sliced_wasserstein_distance(samples: Tensor) -> float:
        if samples.shape[1:] != data.shape[1:]:
            raise InputError(f"samples are {list(samples.shape[1:])}, and the data {list(data.shape[1:])}")
        found = (samples.detach().cpu().double().flatten(1) @ axes).sort(dim=0).values
        # Both sets as quantile functions, read at as many places as the samples are.
        places = (torch.arange(len(found), dtype=torch.float64) + 0.5) / len(found) * len(wanted)
        return (found - wanted[places.long()]).square().mean().sqrt().item()

    about = sha256(f"{list(data.shape)} {directions} {seed}".encode())
    about.update(flat.contiguous().numpy().tobytes())
    sliced_wasserstein_distance.identity = about.hexdigest()  # type: ignore[attr-defined]  # for runs that are resumed
    return sliced_wasserstein_distance
