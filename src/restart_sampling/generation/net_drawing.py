"""`NetDrawing`: a net of images with a plan."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property, partial
from math import isfinite
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import as_sizes, real_number, truth_value, whole_number
from restart_sampling.base.numerics import full_float32
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.drawing import Advance
from restart_sampling.generation.pace import BLOCK, Pace, fitting, in_batches, own_pace
from restart_sampling.generation.seeds import cut
from restart_sampling.models.compiled import CompiledNetwork, uncompiled
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.sampling.edm_noise import EDMNoise
from restart_sampling.sampling.follow import follow
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import (
    check_channels_of,
    guidance_note,
    guidance_of,
    image_traits,
    known_levels,
    net_noise,
    net_path,
    network_evaluations,
)
from restart_sampling.sampling.noise import Noise
from restart_sampling.sampling.plan import Plan, as_plan
from restart_sampling.sampling.process import VE
from restart_sampling.sampling.solvers.protocol import Denoise, evaluate

NoiseKind = Literal["counter", "edm"]


class NetDrawing:
    """A net of images with a plan: a `Drawing`.

    The image of a seed does not depend on the others, on the batch size or on the order.

    Args:
        net: of states [B, C, H, W] whose values are -1 to 1, on the device to use.
        plan: the sampler, or its text; None: the net's own default.
        batch: images of a batch, which are drawn together; None: 64, and as many are drawn together as pay.
        classes: one for all images, or that of each seed; None: drawn for each seed, uniform.
        guidance, noise, exact: as of `generate`.
        shape: (C, H, W); None: the net's `shape`.
        pace: shared by the drawings of a net; None: one of its own.

    Attributes:
        net, plan, batch, pace: as above.
        path: the noise path.
        nfe: calls of the denoiser for an image.
        network_evaluations: evaluations of the network for an image.
        classes: names of the classes; () where none are known.
        guidance: the scale that images are drawn at.
        note: what has to be known of the plan with this guidance; None: nothing.

    Raises:
        InputError: the plan, a class, the guidance or the noise does not fit the net, or its states are latents.
    """

    def __init__(
        self,
        net: Net,
        plan: Plan | str | None = None,
        *,
        batch: int | None = None,
        classes: int | Mapping[int, int] | None = None,
        guidance: float | None = None,
        noise: NoiseKind = "counter",
        exact: bool = False,
        shape: Sequence[int] | None = None,
        pace: Pace | None = None,
    ) -> None:
        traits = image_traits(net)
        if traits.latents:
            raise InputError(
                f"the model makes latents of {traits.latents}, and no images, and this package has no decoder of them; "
                f"draw latents in Python (rs.load_model, rs.sample), and decode them there"
            )
        plan = plan or traits.default_plan
        if plan is None:
            raise InputError(
                "the plan is missing: a plan suits a net, and this one has no default; give one such as "
                "'18 [3,2,0.06,0.30]', or a preset"
            )
        self.net = net
        self.plan = as_plan(plan)
        self.path = net_path(net, self.plan)
        self.batch = BLOCK if batch is None else whole_number("batch_size", batch)
        self.pace = pace or own_pace(batch, exact)
        self.shape = _shape(net, shape)
        self.nfe = self.path.nfe(*self.plan.solvers)
        if not isfinite(real_number("guidance", 1.0 if guidance is None else guidance)):
            raise InputError(f"guidance is {guidance:g}; give a finite scale, 1 for none")
        self.guidance = guidance_of(self.plan, guidance)
        self.note = guidance_note(self.plan, self.guidance)
        self.network_evaluations = network_evaluations(net, self.plan, self.path) * (1 if self.guidance == 1 else 2)
        self.classes = traits.classes
        self._classes, self._noise, self._exact = classes, noise, truth_value("exact", exact)
        self._label_dim = traits.label_dim
        self._dtype = _dtype(net)
        if self.batch < 1:
            raise InputError(f"the batch size is {batch}; give at least 1")
        if noise not in get_args(NoiseKind):
            raise InputError(f"there is no noise '{noise}'; allowed: {', '.join(get_args(NoiseKind))}")
        if noise == "edm" and (net.D is not None or net.process != VE):
            raise InputError(
                "noise 'edm' is not defined for PFGM++ models, whose scripts drew unseeded noise, nor for flows; use "
                "'counter'"
            )
        self._check_classes()
        if self._exact and self._dtype != "float32":
            raise InputError(f"exact images need a network in float32, and this one is in {self._dtype}")

    @cached_property
    def about(self) -> dict[str, Any]:
        """JSON, all that determines the images but their seeds."""
        net = self.net
        network = image_traits(net).model
        compiled = ", compiled" * (isinstance(network, CompiledNetwork) and network.asked_for)
        own: dict[str, Any] = {}
        # The file of a checkpoint says what else there is to know, unless a shape was given.
        if not isinstance(net, Denoiser) or self.shape != net.shape:
            own = {"process": list(astuple(net.process)), "levels": known_levels(net), "shape": list(self.shape)}
        classes: int | dict[str, int] | None
        if isinstance(self._classes, Mapping):  # with keys of JSON, so that a run that was read again is equal
            classes = {str(seed): label for seed, label in self._classes.items()}
        else:
            classes = self._classes
        return {
            "model_sha256": net.identity,
            "D": net.D,
            "plan": str(self.plan),
            "class": classes,
            "guidance": self.guidance,
            "noise": self._noise,
            "arithmetic": f"{self._dtype}{compiled}{', exact' * self._exact}",
            **own,
        }

    def labels(self, seeds: Sequence[int]) -> Tensor | None:
        """Returns the class of each of these seeds, as of `draw`, int64 [N] on the CPU; None: there are no classes."""
        parts = []
        for chosen in cut(seeds, self.batch):
            noise = self._noise_of(chosen)
            if self._noise == "edm" and self._classes is None:
                noise.start(self.shape, self.path.levels[0])  # EDM draws the class after the state
            parts.append(self._labels(chosen, noise))
        known = [part.cpu() for part in parts if part is not None]
        return torch.cat(known) if known else None

    def draw(self, seeds: Sequence[int], advance: Advance = lambda images: None) -> Iterator[Batch]:
        """Draws images of these seeds in batches, in their order.

        Nothing is computed before it is asked for; on an NVIDIA device the next batch is under way when one is given.

        Raises:
            InputError: a seed is given twice (at once); an image is not finite, or the denoiser is not called as often
                as the plan says (when the images are made).
        """
        if len(set(seeds)) < len(seeds):
            raise InputError("a seed is given twice; each seed makes one image")
        # One batch ahead, so that the device has work while the host reads the images of the one before.
        made = _finish_batches(self._start_batches(seeds, advance), ahead=1 if self.net.device.type == "cuda" else 0)
        return in_batches(made, self.batch)

    def call(self, images: int) -> Tensor:
        """Evaluates the denoiser once on so many states at the first level, to see what that takes."""
        denoise, _, x = self.begin(range(images))
        with torch.no_grad(), full_float32(self._exact), uncompiled():
            return evaluate(denoise, x, self.path.levels[0])

    def begin(self, seeds: Sequence[int]) -> tuple[Denoise, Noise, Tensor]:
        """Starts these seeds by hand, for a loop of one's own.

        Returns:
            Their denoiser (with their classes and the guidance), their noise, and their states at the first level.
        """
        noise, x, labels = self._begin(seeds)
        return self._denoise(labels), noise, x

    def _begin(self, seeds: Sequence[int]) -> tuple[Noise, Tensor, Tensor | None]:
        """Makes the noise, the states at the first level and the classes of seeds: EDM draws them in this order."""
        noise = self._noise_of(seeds)
        return noise, noise.start(self.shape, self.path.levels[0]), self._labels(seeds, noise)

    def _check_classes(self) -> None:
        given = self._classes
        if self._label_dim == 0:
            if given is not None:
                raise InputError(f"class {given} was given, but the model is unconditional; leave the class out")
            if self.guidance != 1:
                raise InputError(
                    f"guidance {self.guidance:g} was given, but the model is unconditional; only 1 (none) is possible"
                )
            return
        if self.guidance != 1 and not image_traits(self.net).one_hot:
            raise InputError(
                f"guidance {self.guidance:g} was given, but how this net is told of no class is not known; leave it "
                "out, and give rs.guided(net, scale, unconditional={'class_labels': ...})"
            )
        if given is not None:
            for label in [given] if isinstance(given, int) else given.values():
                if not 0 <= label < self._label_dim:
                    raise InputError(f"class {label} is out of range; the model has classes 0 to {self._label_dim - 1}")

    def _start_batches(self, seeds: Sequence[int], advance: Advance) -> Iterator["_Started"]:
        self.pace.measure(self.call, self.net.device, len(seeds))
        yield from fitting(seeds, self.pace, partial(self._start_batch, advance))

    def _start_batch(self, advance: Advance, seeds: Sequence[int]) -> "_Started":
        calls = 0
        solver, restart_solver = self.plan.solvers
        noise, x, labels = self._begin(seeds)
        denoise = self._denoise(labels)

        def counted(x: Tensor, level: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            x0 = denoise(x, level)
            advance(len(x) / self.nfe)
            return x0

        with full_float32(self._exact):
            x = follow(counted, x, self.path, solver, restart_solver, self.net.process, noise)
        if calls != self.nfe:
            raise InputError(f"the plan has NFE {self.nfe}, but a batch took {calls} calls of the model")
        return self._start_reading(x, labels, seeds)

    def _denoise(self, labels: Tensor | None) -> Denoise:
        if labels is None:
            return self.net
        net = self.net
        if self.guidance == 1:
            # Once a batch for a checkpoint; networks of other origin take the numbers.
            one_hot = image_traits(net).one_hot
            classes = one_hot(labels) if one_hot else labels
            return lambda x, level: net(x, level, class_labels=classes)
        return guided_by_class(cast(Denoiser, net), labels, self.guidance)

    def _noise_of(self, seeds: Sequence[int]) -> Noise:
        if self._noise == "edm":
            return EDMNoise(seeds, self.path, s_noise=self.plan.s_noise, device=self.net.device)
        return net_noise(self.net, seeds, self.plan.s_noise)

    def _labels(self, seeds: Sequence[int], noise: Noise) -> Tensor | None:
        if not self._label_dim:
            return None
        labels = noise.labels(self._label_dim)
        if self._classes is None:
            return labels
        given = [self._classes if isinstance(self._classes, int) else self._classes[seed] for seed in seeds]
        return torch.tensor(given).to(labels.device)

    def _start_reading(self, x: Tensor, labels: Tensor | None, seeds: Sequence[int]) -> "_Started":
        """Starts to read the images; a state that is not finite would be a black one without a word."""
        finite = _start_copy(torch.isfinite(x).flatten(1).all(dim=1))
        images = _start_copy(as_pixels(x))
        classes = None if labels is None else _start_copy(labels)

        def finish() -> Batch:
            broken = [seed for seed, good in zip(seeds, finite().tolist(), strict=True) if not good]
            if broken:
                raise InputError(
                    f"the image of seed {broken[0]} is not finite with plan '{self.plan}'; check the checkpoint, "
                    f"whether the plan and the guidance suit it, and whether its network overflows in float16 "
                    f"(float32 does not)"
                )
            return Batch(tuple(seeds), classes and classes(), images())

        return finish


def as_pixels(x: Tensor) -> Tensor:
    """Turns values from -1 to 1 to uint8 as EDM rounds them; the shape and the device stay."""
    return (x * 127.5 + 128).clip(0, 255).to(torch.uint8)


def check_identity(run: Mapping[str, Any]) -> None:
    """Makes sure that files can say of which net they are.

    Raises:
        InputError: the net has no identity.
    """
    if run["model_sha256"] is None:
        raise InputError(
            "images and results are kept of nets that can be told apart, and this one has no identity; give it one "
            "(identity=... of rs.from_eps and the like), such as the SHA-256 of its weights"
        )


def check_channels(drawing: NetDrawing) -> None:
    """Makes sure that the images can be written and measured.

    Raises:
        InputError: they have neither 1 nor 3 channels.
    """
    if drawing.shape[0] not in (1, 3):
        raise InputError(
            f"images that are written or measured have 1 or 3 channels, and those of this net have {drawing.shape[0]}; "
            f"draw them in Python, with rs.generate or rs.sample"
        )


def _shape(net: Net, shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is None:
        shape = image_traits(net).shape
    sizes = as_sizes(shape)
    if len(sizes) != 3:
        raise InputError(f"the shape of the images is {shape!r}; give (channels, height, width), such as (3, 32, 32)")
    check_channels_of(net, sizes)
    return sizes


def _dtype(net: Net) -> str:
    """Names the dtype in which the network computes, as far as the net says it."""
    parameters = image_traits(net).parameters
    weights = next(parameters(), None) if parameters else None
    return "its own dtype" if weights is None else str(weights.dtype).removeprefix("torch.")


_Started = Callable[[], Batch]
"""A batch that the device may still be working on; the call waits for it."""


def _finish_batches(started: Iterator[_Started], ahead: int) -> Iterator[Batch]:
    waiting: deque[_Started] = deque()
    for batch in started:
        waiting.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _start_copy(tensor: Tensor) -> Callable[[], Tensor]:
    """Starts to copy a tensor to the CPU; the call waits for it."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait
