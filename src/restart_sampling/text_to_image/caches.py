"""Caches of networks, which diffusers' hooks keep from one step to the next."""

from typing import Any


def reset_caches(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Empties the caches of a pipeline's networks where a restart begins: for `callback_on_step_end`.

    FirstBlockCache, PyramidAttentionBroadcast, FasterCache, TaylorSeer and SeaCache take features of one step for those
    of the next, which is near it; after a rise they are of another noise level.

    Args:
        pipe: with one of our schedulers.
        index: of the step.
        timestep: of the step.
        tensors: of the pipeline, which stay as they are.
    """
    if pipe.scheduler.has_risen:
        from diffusers import ModelMixin
        from diffusers.hooks import HookRegistry

        for network in pipe.components.values():
            if isinstance(network, ModelMixin):  # also those whose cache was applied by hand, which do not know of it
                HookRegistry.check_if_exists_or_initialize(network).reset_stateful_hooks()
    return tensors
