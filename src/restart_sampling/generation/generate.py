"""`generate`: images of a net by seed, for programs."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, whole_number
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.net_drawing import NetDrawing, NoiseKind
from restart_sampling.generation.seeds import as_integers
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.plan import Plan


def generate(
    net: Net,
    plan: Plan | str | None = None,
    seeds: Sequence[int] = (),
    *,
    batch_size: int | None = None,
    classes: int | Sequence[int] | None = None,
    guidance: float | None = None,
    noise: NoiseKind = "counter",
    exact: bool = False,
    shape: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Draws images; the image of a seed does not depend on the others, on the batch size or on the order.

    Args:
        net: from `load_model`, `from_eps` and the like, of images whose values are -1 to 1, on the device to use.
        plan: the sampler, or its text; default: that of a model that comes with the package.
        seeds: one for each image.
        batch_size: images of a batch, which are drawn together; default: 64, and as many are drawn together as pay.
        classes: one for all images, or one for each seed; default: drawn for each seed, uniform.
        guidance: scale of classifier-free guidance; 1 is none, and other scales cost two evaluations. Default: the one
            that goes with a plan from a file of `tune`, else 1.
        noise: "counter" is ours; "edm" repeats the random numbers of EDM's scripts (`EDMNoise`).
        exact: the same bits at every run on one kind of device, with a network in float32.
        shape: (C, H, W) of the images, where the net has no resolution of its own.

    Returns:
        An iterator of batches, in the order of the seeds. Nothing is computed before it is asked for.

    Raises:
        InputError: the plan, a class or the noise does not fit the net (at once), or an image is not finite (when it is
            made).
    """
    seeds = as_integers(seeds)
    if not seeds:
        raise InputError("the seeds are missing; give one for each image, such as seeds=range(64)")
    of_seeds = classes_of_seeds(classes, seeds)
    drawing = NetDrawing(
        net, plan, batch=batch_size, classes=of_seeds, guidance=guidance, noise=noise, exact=exact, shape=shape
    )
    if drawing.note:
        warnings.warn(drawing.note, stacklevel=2)
    return drawing.draw(seeds)


def classes_of_seeds(
    classes: int | Sequence[int] | Mapping[int, int] | None, seeds: Sequence[int]
) -> int | Mapping[int, int] | None:
    """Returns classes as `NetDrawing` takes them.

    Args:
        classes: one for all images, one for each seed in their order, or those of the seeds; None: drawn.
        seeds: of the images.

    Raises:
        InputError: there are more or fewer classes than seeds, or a class is no whole number.
    """
    if classes is None:
        return None
    if isinstance(classes, Mapping):
        if missing := [seed for seed in seeds if seed not in classes]:
            raise InputError(f"there is no class for seed {missing[0]}; give one for each seed")
        return {seed: whole_number("class", label) for seed, label in classes.items()}
    if not isinstance(classes, Iterable) or getattr(classes, "ndim", 1) == 0:
        return whole_number("classes", cast(int, classes))
    labels = [whole_number("class", label) for label in classes]
    if len(labels) != len(seeds):
        raise InputError(
            f"{counted(len(labels), 'class')} and {counted(len(seeds), 'seed')} were given; give one class, or one for "
            f"each seed"
        )
    return dict(zip(seeds, labels, strict=True))
