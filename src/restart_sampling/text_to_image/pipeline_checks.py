"""What a pipeline does with the rows and says to nobody: found in the variables of its loop, which has set names."""

import sys
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from torch import Tensor

from restart_sampling.base.errors import InputError

_KEPT = {
    "conditioning_mask": "clean_latents",
    "cond_mask": "gt_velocity",
    "vision_condition_mask": "vision_condition_mask",
}
"""Masks of what the loops of LTX 2, Cosmos 2.5 and 3 keep as it is; beside each, a variable of that loop alone."""


def _callers(frames: int) -> Iterator[tuple[CodeType, Mapping[str, Any]]]:
    """Yields the code and the variables of the frames that called this package, the nearest first.

    Of modular pipelines the variables of their block_state are among them.

    Args:
        frames: how many. Of set_timesteps there are diffusers' retrieve_timesteps, the pipeline and its decorators; of
            step the pipeline, or a wrapper of the user's around step and the pipeline.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    for _ in range(frames):
        state = getattr(frame.f_locals.get("block_state"), "__dict__", {})
        yield frame.f_code, {**state, **frame.f_locals}
        if frame.f_back is None:
            return
        frame = frame.f_back


def check_views() -> None:
    """Looks for a loop over parts of a picture.

    Raises:
        InputError: it averages overlapping views after each step.
    """
    if any("views_batch" in code.co_varnames for code, _ in _callers(4)):
        raise InputError(
            "the pipeline averages overlapping views after each step, and with them the noise of restarts, which "
            "would be too weak; use a scheduler without restarts for panoramas"
        )


def check_free_init() -> None:
    """Looks for FreeInit (AnimateDiff), which goes over a video again from its low frequencies and new high ones.

    Raises:
        InputError: it is set; it counts on samples of std 1, and noises them anew as if they were.
    """
    if any("free_init_iteration" in variables for _, variables in _callers(1)):
        raise InputError(
            "FreeInit makes its second start of noise of std 1, and the noise of this scheduler has that of its level; "
            "use disable_free_init, or DDIMScheduler"
        )


def check_clean_parts() -> None:
    """Looks for a loop that keeps a part of the picture clean among noise (inpainting by DeepFloyd IF).

    Raises:
        InputError: it does; it counts on samples whose data have their full size at every level.
    """
    for code, variables in _callers(1):
        mask = variables.get("mask_image")
        if "noised_image" in code.co_varnames and isinstance(mask, Tensor) and (mask != 1).any():
            raise InputError(
                "the pipeline keeps what is not repainted without noise (DeepFloyd IF), and this scheduler would show "
                "it to the network scaled down with the rest, nearly to nothing at high levels; keep the pipeline's "
                "own scheduler"
            )


def denoising_end() -> float | None:
    """Finds the share of the run after which SDXL's base stops."""
    ends = (variables.get("denoising_end") for _, variables in _callers(4))
    end = next((end for end in ends if end is not None), None)
    return end if isinstance(end, float) and 0 < end < 1 else None


def check_conditions() -> None:
    """Looks for tokens that a flow model's loop keeps as they are by a mask.

    Raises:
        InputError: there are some, to which restarts would add noise.
    """
    for _, variables in _callers(2):
        for name, beside in _KEPT.items():
            mask = variables.get(name)
            if beside in variables and isinstance(mask, Tensor) and mask.any():
                raise InputError(
                    "the pipeline keeps its image or video conditions as they are (LTX 2, Cosmos), and restarts would "
                    "add noise to them; use FlowMatchEulerDiscreteScheduler"
                )


def check_ends() -> None:
    """Looks for a network that is told where the step ends, which its loop takes for the next timestep.

    Raises:
        InputError: it is (HunyuanImage and HunyuanVideo 1.5 with MeanFlow).
    """
    for _, variables in _callers(2):
        pipe = variables.get("components", variables.get("self"))  # components: of a modular pipeline
        if getattr(getattr(getattr(pipe, "transformer", None), "config", None), "use_meanflow", False):
            raise InputError(
                "the network is told where each step ends (MeanFlow), and not every step ends at the next timestep; "
                "use solver 'euler' without restarts"
            )


def check_weights(rows: int) -> None:
    """Looks for a loop with a guidance weight for each step.

    Args:
        rows: of the scheduler.

    Raises:
        InputError: they are not as many as rows (Ideogram 4).
    """
    for _, variables in _callers(2):
        weights = variables.get("gw")
        if isinstance(weights, Tensor) and len(weights) != rows:
            raise InputError(
                f"the pipeline has {len(weights)} guidance weights, one for each step, and the scheduler {rows} rows "
                f"(Ideogram 4); use solver 'euler' without restarts"
            )
