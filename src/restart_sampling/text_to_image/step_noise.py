"""The noise of a scheduler's restarts: from the pipeline's generators, or from seeds in its own initial latents."""

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.base.numerics import state_dtype
from restart_sampling.sampling.noise import noise

Generators = torch.Generator | list[torch.Generator] | None


def check_generators(generators: Generators, sample: Tensor) -> None:
    """Refuses what is no generator, and a list of them that is not as long as the batch.

    Raises:
        InputError: it is one of these.
    """
    each_image = generators if isinstance(generators, list) else [generators]
    if generators is not None and not all(isinstance(each, torch.Generator) for each in each_image):
        raise InputError(f"the generator is {generators!r}; give a torch.Generator, or a list of one for each image")
    if isinstance(generators, list) and len(generators) != (images := sample.shape[0]):
        raise InputError(
            f"{len(generators)} generators for {counted(images, 'image')}; give one, or one for each image (also in "
            f"the attribute scheduler.generator, which is that of the call before until it is set anew)"
        )


def latent_seeds(x: Tensor) -> Tensor:
    """Makes a seed for each image from all bits of its initial latents: int64 [B], in [0, 2^63), on their device.

    Equal latents, such as those of equal generators, have equal seeds; the batch around an image does not matter.
    """
    words = x.detach().float().reshape(len(x), -1).contiguous().view(torch.int32).long()
    places = torch.arange(1, 2 * words.shape[1], 2, device=x.device)
    seeds = (words * (places * 0x5851F42D4C957F2D)).sum(dim=1) & (2**63 - 1)  # products wrap modulo 2^64
    return seeds if state_dtype(x.device) == torch.float64 else seeds.cpu()  # the noise is made in float64


def seeded_noise(x: Tensor, seeds: Tensor, draw: int) -> Tensor:
    """Draws standard normal noise like x, from seeds [B].

    Args:
        x: state [B, ...].
        seeds: of `latent_seeds`.
        draw: which noise of the run this is, from 1; a step that is made twice has the same.
    """
    return noise(seeds, draw, x[0].numel()).reshape(x.shape).to(x.device, x.dtype)
