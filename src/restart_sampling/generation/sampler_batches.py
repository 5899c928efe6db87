"""The images of a sampler without writing any, in this process's share."""

from collections.abc import Sequence

from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.measure import Batches
from restart_sampling.generation.blocks import cut, joined
from restart_sampling.generation.generate import Noise, generate
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.sampling.plan import Plan


def sampler_batches(
    model: Denoiser,
    plan: Plan,
    seeds: Sequence[int],
    ranks: Ranks,
    *,
    batch_size: int,
    classes: int | None = None,
    guidance: float = 1.0,
    noise: Noise = "counter",
    exact: bool = False,
    done: frozenset[int] = frozenset(),
) -> Batches:
    """This process's share of the images of the seeds, straight from the sampler.

    Args:
        model: and what follows, of `generate`.
        ranks: the processes.
        done: places whose images are not needed again; blocks that are done in part are drawn whole.
    """
    places = cut(range(len(seeds)), batch_size)
    own = ranks.deal([block for block in places if not done.issuperset(block)])
    made = generate(
        model,
        plan,
        [seeds[place] for place in joined(own)],
        batch_size=batch_size,
        classes=classes,
        guidance=guidance,
        noise=noise,
        exact=exact,
    )
    return ((block, batch.images, batch.labels) for block, batch in zip(own, made, strict=True))
