"""Published plans by name (presets.csv), each with the checkpoint that it was made for and the FID to reproduce.

Names with `-sde` are EDM's stochastic sampler with the settings of Karras et al. 2022 (arXiv 2206.00364), table 5;
those with `-code` have the churn inside the restarts that the Restart authors' sweep script leaves on, and the paper
does not mention; `-dpm3` are on the VP schedule from t = 1 to 1e-3, and their t_min snaps to the last positive level.
"""

import csv
import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from restart_sampling.base.errors import InputError


@dataclass(frozen=True)
class Preset:
    """A name for a plan.

    Attributes:
        name: for the command line.
        plan: in the grammar of `Plan.parse`.
        checkpoint: the model that it suits; on another it may do harm.
        nfe: calls of the denoiser.
        fid: published for 50,000 images, minimum of three draws (arXiv 2306.14878, tables 1 to 5); None: not published.
    """

    name: str
    plan: str
    checkpoint: str
    nfe: int
    fid: float | None


def suits(checkpoint: str, model: str) -> bool:
    """Tells by their names whether a model is the checkpoint that a preset was made for.

    Args:
        checkpoint: of a preset.
        model: a name, a path or a URL, as the user wrote it.
    """
    name = re.sub(r"\.(safetensors|pkl|pt|pth)$", "", re.split(r"[/\\]", model)[-1])
    return name == _FILES.get(checkpoint, checkpoint)


_FILES = dict.fromkeys(
    ("PFGM++ D=2048 unconditional", "PFGM++ with D = 2048, unconditional CIFAR-10"), "pfgmpp-cifar10-32x32-uncond-2048"
)
"""Names of the checkpoints that presets describe otherwise."""

_ROWS = csv.DictReader(files("restart_sampling.sampling").joinpath("presets.csv").read_text("utf-8").splitlines())
PRESETS: dict[str, Preset] = {
    row["name"]: Preset(
        row["name"], row["plan"], row["checkpoint"], int(row["nfe"]), float(row["fid"]) if row["fid"] else None
    )
    for row in _ROWS
}


def preset_text(name: str) -> str:
    """Returns the plan of a preset, in the grammar of `Plan.parse`.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        nearest = get_close_matches(name, PRESETS, n=3, cutoff=0.3)
        raise InputError(
            f"there is no preset '{name}'; nearest: {', '.join(nearest) or 'none'}; "
            f"'restart-sampling plan --list' shows all"
        )
    return PRESETS[name].plan
