"""One pass over the images, collecting feature sums and, on request, features."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.evaluation.detectors import Detector
from restart_sampling.evaluation.statistics import SUMS, Moments

State = Mapping[str, Tensor]
"""What a `Collector` has so far, on the CPU: `places` of the images, their sums and the rest."""

Gather = Callable[[Tensor], list[Tensor]]
"""Tensors of all processes, from the same call on each; their first dimensions may differ."""


@dataclass(frozen=True)
class Features:
    """Features of all images, in the order of the set.

    Attributes:
        values: float32 [N, d].
        labels: int64 [N]; None: no classes.
        classes: the names of the classes 0, 1, ...; () where none are known.
    """

    values: Tensor
    labels: Tensor | None
    classes: tuple[str, ...] = ()

    @cached_property
    def _parts(self) -> dict[tuple[int, torch.device | None], "Features"]:
        return {}

    def part(self, step: int = 1, device: torch.device | None = None) -> "Features":
        """Takes each `step`-th of the images, with features on a device, and keeps them there for later calls."""
        if (step, device) not in self._parts:
            labels = None if self.labels is None else self.labels[::step]
            self._parts[step, device] = replace(self, values=self.values[::step].to(device), labels=labels)
        return self._parts[step, device]


class Collector:
    """Takes batches of images, keeps sums by group and, on request, the features.

    Args:
        detector: turns images into features.
        images: how many the whole set has, over all processes.
        groups: each block is cut into so many groups of equal size, whose sums are kept apart. They are drawn at
            random, the same for every set of this size, because neighbours may be of one class.
        blocks: runs of neighbours, such as blocks of seeds.
        keep: whether to keep the features, for metrics that need them.
        name: of the image at a place, for messages.
    """

    def __init__(
        self,
        detector: Detector,
        images: int,
        groups: int,
        blocks: int = 1,
        keep: bool = False,
        name: Callable[[int], str] = "image {}, counted from 0,".format,
    ) -> None:
        self.detector = detector
        self._name = name
        self.groups = blocks * groups
        sizes = np.bincount(np.arange(images) * blocks // images, minlength=blocks)
        drawn = (np.random.RandomState(0).permutation(size) * groups // size for size in sizes)
        self._group = np.concatenate([block * groups + own for block, own in enumerate(drawn)]).tolist()
        self.keep = keep
        self.moments: Moments | None = None
        self._indices: list[Tensor] = []
        self._digests: list[Tensor] = []
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._sizes: list[Tensor] = []

    def add(self, images: Tensor, indices: Sequence[int], labels: Tensor | None = None) -> None:
        """Adds uint8 images [B, C, H, W] that stand at these places of the set.

        Raises:
            InputError: the detector fails, or features are not finite; the message names the image.
        """
        self._digests.append(_digests(images))
        self._sizes = [torch.tensor([images.shape[2:]])]  # of the last ones, as all have one size
        features = self.detector(images)
        finite = torch.isfinite(features).all(dim=1).tolist()
        if not all(finite):
            name = self._name(indices[finite.index(False)])
            raise InputError(f"{name} has features that are not finite with detector '{self.detector.name}'")
        if self.moments is None:
            self.moments = Moments(features.shape[1], self.groups, features.device)
        self.moments.add(features, [self._group[index] for index in indices])
        self._indices.append(torch.tensor(indices))
        if self.keep:
            self._features.append(features.cpu())
            if labels is not None:
                self._labels.append(labels)

    def state(self) -> State:
        """Returns everything so far; there must have been images."""
        assert self.moments is not None
        lists = {
            "places": self._indices,
            "digests": self._digests,
            "sizes": self._sizes,
            "features": self._features,
            "labels": self._labels,
        }
        return {name: torch.cat(parts) for name, parts in lists.items() if parts} | self.moments.state()

    def restore(self, state: State) -> None:
        """Begins with what another had, of the same detector, set and groups."""
        self.moments = Moments(state["total"].shape[1], self.groups, self.detector.device)
        self.moments.restore(state)
        self._indices, self._digests = [state["places"]], [state["digests"]]
        self._features, self._labels, self._sizes = (
            [state[name]] if name in state else [] for name in ("features", "labels", "sizes")
        )

    def reduced(self, all_reduce: Callable[[Tensor], None], gather: Gather) -> Moments:
        """Adds up the sums of all processes, the same on each; a process may have had no images."""
        own = 0 if self.moments is None else self.moments.total.shape[1]
        width = max(int(each) for each in gather(torch.tensor(own)))
        moments = self.moments or Moments(width, self.groups, self.detector.device)
        moments.reduce(all_reduce)
        return moments

    def features(self, gather: Gather, classes: tuple[str, ...] = ()) -> Features:
        """Gathers the features of all processes, in the order of the set, with the names of their classes."""
        labels = self._of_all(self._labels, gather)
        return Features(self._of_all(self._features, gather), labels if len(labels) else None, classes)

    def digest(self, gather: Gather) -> str:
        """Computes the SHA-256 of all pixels in the order of the set: the same from a folder, a zip or the sampler."""
        return hashlib.sha256(self._of_all(self._digests, gather).numpy().tobytes()).hexdigest()

    def size(self, gather: Gather) -> tuple[int, int] | None:
        """Finds height and width of the images; None: all came with `restore`, of a version that did not keep it."""
        known = torch.cat(gather(torch.cat([torch.empty(0, 2, dtype=torch.int64), *self._sizes])))
        return (int(known[0, 0]), int(known[0, 1])) if len(known) else None

    def _of_all(self, parts: list[Tensor], gather: Gather) -> Tensor:
        """Gathers one row for each image, from all processes, in the order of the set."""
        order = torch.cat(gather(torch.cat(self._indices or [torch.empty(0)]))).argsort()
        rows = [part for part in gather(torch.cat(parts or [torch.empty(0)])) if len(part)]
        return torch.cat(rows)[order] if rows else torch.empty(0)


def merged(states: Sequence[State]) -> State:
    """Makes one state of those of several processes, which share no image."""
    first, *others = states
    return {
        name: sum((state[name] for state in others), start=tensor.clone())
        if name in SUMS
        else torch.cat([state[name] for state in states if name in state])
        for name, tensor in first.items()
    }


def _digests(images: Tensor) -> Tensor:
    """Computes the SHA-256 of each image, uint8 [B, 32]."""
    rows = np.ascontiguousarray(images.cpu().numpy())
    digests = bytearray()
    begun = hashlib.sha256(bytes(str(rows.shape[1:]), "ascii"))
    half = rows[0].size // 2
    for image in rows.reshape(len(rows), -1):
        digest = begun.copy()
        # From 2048 bytes on hashlib lets go of Python's lock. For a small image that takes longer than the digest where
        # a thread reads ahead; its halves are below.
        digest.update(image[:half].data)
        digest.update(image[half:].data)
        digests += digest.digest()
    return torch.frombuffer(digests, dtype=torch.uint8).reshape(-1, 32)
