"""Restart sampling in diffusers pipelines.

The path of this module is written into the files of saved pipelines, so it stays as it is. diffusers is imported when a
scheduler is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from restart_sampling.base.errors import require_extra
from restart_sampling.text_to_image.caches import reset_caches as reset_caches
from restart_sampling.text_to_image.presets import guidance_preset as guidance_preset
from restart_sampling.text_to_image.presets import steps_preset as steps_preset

if TYPE_CHECKING:
    from restart_sampling.text_to_image.flow_match_restart_scheduler import (
        FlowMatchRestartScheduler as FlowMatchRestartScheduler,
    )
    from restart_sampling.text_to_image.restart_scheduler import RestartScheduler as RestartScheduler

_HOME = {
    "FlowMatchRestartScheduler": f"{__name__}.flow_match_restart_scheduler",
    "RestartScheduler": f"{__name__}.restart_scheduler",
    # diffusers looks for the base class in the module that a saved pipeline names.
    "SchedulerMixin": "diffusers.schedulers.scheduling_utils",
}

__all__ = ["FlowMatchRestartScheduler", "RestartScheduler", "guidance_preset", "reset_caches", "steps_preset"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    require_extra("diffusers", "diffusers")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
