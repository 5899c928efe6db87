"""The models of the page, with the plans and the map that are known of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.errors import InputError
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.models.resolve import resolve
from restart_sampling.tuning.run import MAP, read_map, read_plans, read_run, whole

STARTS = {
    "ODE: Heun": "18",
    "SDE: EDM's": "18 churn=8 s_min=0.5 s_max=20",
    "Restart around Heun": "14 [3,2,1.09,3.2]",
}
"""Plans of 35 evaluations that suit the models of this package."""


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen on the page.

    Attributes:
        net: the model.
        classes: names of its classes; () where it has none.
        plans: by name, of which the first is what the page begins with.
        map: content of the file that `tune --map` wrote, or None.
    """

    net: Denoiser
    classes: tuple[str, ...]
    plans: dict[str, str] = field(repr=False)
    map: Mapping[str, Any] | None = field(repr=False)


def load_choice(name: str, tuned: Sequence[Path], device: torch.device) -> Choice:
    """Loads a model, and what was tuned for it.

    Args:
        name: as `load_model` takes it.
        tuned: folders of `tune`, of this model and of others.
        device: where the model is to be.

    Raises:
        InputError: there is no such model, it makes no images, or a folder is none of `tune`.
    """
    checkpoint = read_checkpoint(resolve(name))
    net = checkpoint.build(device=device)
    if net.latents:
        raise InputError(f"--model {name} makes latents of {net.latents}, and the page shows images")
    plans = {"its default plan": net.default_plan} if net.default_plan else {}
    found_map = None
    for folder in tuned:
        if read_run(folder).get("model_sha256") != net.identity:
            continue
        with whole(folder):
            plans |= {
                f"tuned, NFE {content['nfe']} ({folder.name})": content["plan"]
                for content in read_plans(folder)
                if content.get("guidance", 1.0) == 1  # at which the page draws
            }
            if (folder / MAP).exists():
                found_map = read_map(folder)
    numbers = tuple(str(number) for number in range(net.label_dim))
    return Choice(net, checkpoint.classes or numbers, plans | STARTS, found_map)
