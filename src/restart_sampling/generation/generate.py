"""From seeds to batches of images."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numerics import full_float32
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.sampling.edm_noise import EDMNoise
from restart_sampling.sampling.follow import follow
from restart_sampling.sampling.noise import GaussianNoise, PFGMppNoise
from restart_sampling.sampling.noise import Noise as NoiseSource
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.plan import Plan

Noise = Literal["counter", "edm"]


@dataclass(frozen=True)
class Batch:
    """Images of a few seeds, on the CPU.

    Attributes:
        seeds: B of them.
        labels: class of each image, int64 [B]; None for an unconditional model.
        images: uint8 [B, C, H, W].
    """

    seeds: tuple[int, ...]
    labels: Tensor | None
    images: Tensor


def level_range(model: Denoiser) -> tuple[float, float, Callable[[float], float]]:
    """What `Plan.path` and `Plan.explain` take of a model: sigma_min, sigma_max, and the rounding of a level."""
    return model.sigma_min, model.sigma_max, model.round_level


def model_dtype(model: torch.nn.Module) -> torch.dtype:
    """In which the network computes."""
    return next(model.parameters()).dtype


def network_evaluations(nfe: int, guidance: float) -> int:
    """Evaluations of the network for one image: guidance takes two for each call of the denoiser."""
    return nfe if guidance == 1 else 2 * nfe


def generate(
    model: Denoiser,
    plan: Plan | str,
    seeds: Sequence[int],
    *,
    batch_size: int = 64,
    classes: int | Sequence[int] | None = None,
    guidance: float = 1.0,
    noise: Noise = "counter",
    exact: bool = False,
) -> Iterator[Batch]:
    """Draws images; the image of a seed does not depend on the others, on the batch size or on the order.

    Args:
        model: from `load_model`, on the device to use.
        plan: the sampler, or its text.
        seeds: one for each image.
        batch_size: images at a time.
        classes: one for all images, or one for each seed; default: drawn for each seed, uniform.
        guidance: scale of classifier-free guidance; 1 is none, and other scales cost two evaluations.
        noise: "counter" is ours; "edm" repeats the random numbers of EDM's scripts (`EDMNoise`).
        exact: the same bits at every run on one kind of device, with a network in float32.

    Returns:
        An iterator of batches, in the order of the seeds. Nothing is computed before it is asked for; on an NVIDIA
        device the next batch is under way when one is returned.

    Raises:
        InputError: the plan, a class or the noise does not fit the model (at once), or an image is not finite (when it
            is made).
    """
    plan = Plan.parse(plan) if isinstance(plan, str) else plan
    path = plan.path(*level_range(model))
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; give at least 1")
    if noise not in get_args(Noise):
        raise InputError(f"there is no noise '{noise}'; allowed: {', '.join(get_args(Noise))}")
    if noise == "edm" and model.D is not None:
        raise InputError(
            "noise 'edm' is not defined for PFGM++ models, whose scripts drew unseeded noise; use 'counter'"
        )
    if len(set(seeds)) < len(seeds):
        raise InputError("a seed is given twice; each seed makes one image")
    if not isfinite(guidance):
        raise InputError(f"guidance is {guidance:g}; give a finite scale, 1 for none")
    _check_classes(model, classes, len(seeds), guidance)
    if exact and model_dtype(model) != torch.float32:
        raise InputError(f"exact images need a network in float32, and this one is in {model_dtype(model)}")
    batches = _start_batches(model, plan, path, seeds, batch_size, classes, guidance, noise, exact)
    # One batch ahead, so that the device has work while the host reads the images of the one before.
    return _finish_batches(batches, ahead=1 if model.device.type == "cuda" else 0)


def _check_classes(model: Denoiser, classes: int | Sequence[int] | None, images: int, guidance: float) -> None:
    if model.label_dim == 0:
        if classes is not None:
            raise InputError(f"class {classes} was given, but the model is unconditional; leave the class out")
        if guidance != 1:
            raise InputError(
                f"guidance {guidance:g} was given, but the model is unconditional; only 1 (none) is possible"
            )
    elif classes is not None:
        given = [classes] * images if isinstance(classes, int) else list(classes)
        if len(given) != images:
            raise InputError(
                f"{len(given)} classes were given for {images} seeds; give one class, or one for each seed"
            )
        for label in given:
            if not 0 <= label < model.label_dim:
                raise InputError(f"class {label} is out of range; the model has classes 0 to {model.label_dim - 1}")


Started = Callable[[], Batch]
"""A batch that the device may still be working on; the call waits for it."""


def _finish_batches(started: Iterator[Started], ahead: int) -> Iterator[Batch]:
    waiting: deque[Started] = deque()
    for batch in started:
        waiting.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _start_batches(
    model: Denoiser,
    plan: Plan,
    path: NoisePath,
    seeds: Sequence[int],
    batch_size: int,
    classes: int | Sequence[int] | None,
    guidance: float,
    noise: Noise,
    exact: bool,
) -> Iterator[Started]:
    device = model.device
    solver, restart_solver = plan.solvers
    for start in range(0, len(seeds), batch_size):
        chosen = seeds[start : start + batch_size]
        kernel = _kernel(noise, chosen, path, plan.s_noise, model.D, device)
        x = kernel.start((model.channels, model.resolution, model.resolution), path.levels[0])
        labels = None
        if model.label_dim:
            labels = kernel.labels(model.label_dim)
            if isinstance(classes, int):
                labels = torch.full_like(labels, classes)
            elif classes is not None:
                labels = torch.tensor(classes[start : start + batch_size]).to(device)
        denoise = guided_by_class(model, labels, guidance)
        with full_float32(exact):
            x = follow(denoise, x, path, solver, restart_solver, perturb=kernel)
        yield _start_reading(x, labels, chosen, plan)


def _kernel(
    noise: Noise, seeds: Sequence[int], path: NoisePath, s_noise: float, D: int | None, device: torch.device
) -> NoiseSource:
    if noise == "edm":
        return EDMNoise(seeds, path, s_noise=s_noise, device=device)
    if D is not None:
        return PFGMppNoise(seeds, D=D, s_noise=s_noise, device=device)
    return GaussianNoise(seeds, s_noise=s_noise, device=device)


def _start_reading(x: Tensor, labels: Tensor | None, seeds: Sequence[int], plan: Plan) -> Started:
    """[-1, 1] to uint8 as EDM rounds it; a state that is not finite would become a black image without a word."""
    finite = _start_copy(torch.isfinite(x).flatten(1).all(dim=1))
    images = _start_copy((x * 127.5 + 128).clip(0, 255).to(torch.uint8))
    classes = None if labels is None else _start_copy(labels)

    def finish() -> Batch:
        broken = [seed for seed, good in zip(seeds, finite().tolist(), strict=True) if not good]
        if broken:
            raise InputError(
                f"the image of seed {broken[0]} is not finite with plan '{plan}'; check the checkpoint, whether the "
                f"plan and the guidance suit it, and whether its network overflows in float16 (float32 does not)"
            )
        return Batch(tuple(seeds), classes and classes(), images())

    return finish


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
