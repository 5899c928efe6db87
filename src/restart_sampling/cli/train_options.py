"""The options of `restart-sampling train`, and what they make of it: the settings of the run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.logbook import require_logbook
from restart_sampling.cli.options import FiniteRange, as_one, log_option, read_list

if TYPE_CHECKING:
    import torch

    from restart_sampling.base.ranks import Ranks
    from restart_sampling.images.image_set import ImageSet
    from restart_sampling.training.settings import Settings
    from restart_sampling.training.trainer import NetworkRuns

_D = 2048  # of PFGM++ where the user gives none
_MOST, _WIDEST = 2**31 - 1, 2**16  # beyond what any memory holds; torch answers numbers of more bits with a traceback
_OPTIONS = (
    click.option(
        "--parametrization",
        required=True,
        type=click.Choice(["edm", "vp", "pfgmpp"]),
        help="Noise, loss and preconditioning.",
    ),
    click.option(
        "--D", "D", type=click.IntRange(1), metavar="D", help=f"Augmented dimensions of pfgmpp; default: {_D}."
    ),
    click.option("--cond", is_flag=True, help="Train on the classes too."),
    click.option(
        "--minutes", type=FiniteRange(0, min_open=True), metavar="N", help="Train for so long, without the saves."
    ),
    click.option("--images", type=click.IntRange(1), metavar="N", help="Train on so many, counted with repetitions."),
    click.option(
        "--batch",
        default=512,
        show_default=True,
        type=click.IntRange(1, _MOST),
        help="Images a step, of all processes together; an H100 wants 512 each.",
    ),
    click.option(
        "--lr",
        default=1e-3,
        show_default=True,
        type=FiniteRange(0, 1, min_open=True),
        help="Highest learning rate of Adam.",
    ),
    click.option(
        "--ema-images",
        default=500_000,
        show_default=True,
        type=click.IntRange(1),
        metavar="N",
        help="Half-life of the average of the weights, which is the model; at first a twentieth of the images so far.",
    ),
    click.option(
        "--augment",
        default=0.0,
        show_default=True,
        type=FiniteRange(0, 1),
        metavar="P",
        help="Turn, scale, stretch and shift images, each with this probability, falling to 0 along the run; the "
        "network is told, and draws plain images. For few images and long runs; EDM has 0.12. 0 is flips only.",
    ),
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Of all that is drawn."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Of the network's arithmetic; auto is bfloat16 on cuda, float32 elsewhere.",
    ),
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Run the network with kernels of this package where these serve, which is the default on cuda, else by "
        "torch.compile: minutes at the start, faster steps. Or run it as it is.",
    ),
    click.option(
        "--save-minutes", default=2.0, show_default=True, type=FiniteRange(0, min_open=True), help="Between two saves."
    ),
    click.option(
        "--channels", default=64, show_default=True, type=click.IntRange(4, _WIDEST), help="Width of the network."
    ),
    click.option(
        "--channel-mult", "mult_text", default="1,2,2", show_default=True, help="Multiples of it, one a resolution."
    ),
    click.option(
        "--blocks", default=2, show_default=True, type=click.IntRange(1), help="Residual blocks a resolution."
    ),
    click.option(
        "--attention",
        "attention_text",
        metavar="SIZES",
        help="Resolutions with attention, or none; default: 16 if there.",
    ),
    click.option("--dropout", default=0.05, show_default=True, type=FiniteRange(0, 1, max_open=True)),
    log_option,
)


@dataclass(frozen=True)
class TrainOptions:
    """What the user asks of a training run: the values of `train_options`."""

    parametrization: str
    D: int | None
    cond: bool
    minutes: float | None
    images: int | None
    batch: int
    lr: float
    ema_images: int
    augment: float
    seed: int
    dtype: str
    compiled: bool | None
    save_minutes: float
    channels: int
    mult_text: str
    blocks: int
    attention_text: str | None
    dropout: float
    log_kind: str | None

    def check(self) -> None:
        """Makes sure that what the run needs is installed, and that the options go together.

        Raises:
            InputError: it is not, or they do not.
        """
        require_extra("matplotlib", "figures")
        require_logbook(self.log_kind)
        if (self.minutes is None) == (self.images is None):
            raise InputError("give either --minutes or --images: how long to train")
        if self.D is not None and self.parametrization != "pfgmpp":
            raise InputError(
                f"--D {self.D} is for --parametrization pfgmpp; {self.parametrization} has no augmented dimensions"
            )
        _ = self.channel_mult, self.attention  # raise for a text that cannot be read

    @property
    def channel_mult(self) -> tuple[int, ...]:
        """Multiples of the width."""
        return _sizes("--channel-mult", self.mult_text)

    @property
    def attention(self) -> tuple[int, ...] | None:
        """Resolutions with attention; None: that is left to us."""
        if self.attention_text is None:
            return None
        return () if self.attention_text == "none" else _sizes("--attention", self.attention_text)

    def network(self, ranks: Ranks) -> NetworkRuns:
        """Finds how the network runs on these processes.

        Raises:
            InputError: they cannot share a batch.
        """
        from restart_sampling.models.fast import kernels_serve

        if self.batch % ranks.size:
            raise InputError(
                f"--batch {self.batch} cannot be shared by {ranks.size} processes; give a multiple of that"
            )
        if self.compiled is not False and kernels_serve(ranks.device, self.batch // ranks.size):
            return "kernels"
        return "compiled" if self.compiled else "plain"

    def dtype_on(self, device: torch.device) -> str:
        """Finds the dtype of the network's arithmetic on a device."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if device.type == "cuda" else "float32"

    def settings(self, pictures: ImageSet, device: torch.device) -> Settings:
        """Makes the settings of a run on these images.

        Raises:
            InputError: they are no squares, have no classes, or D is out of its range.
        """
        from restart_sampling.sampling.pfgmpp import augmented_dimensions
        from restart_sampling.training.settings import Settings
        from restart_sampling.training.training_set import count_classes, square_side

        own: dict[str, Any] = {
            each.name: getattr(self, each.name) for each in fields(Settings) if hasattr(self, each.name)
        }
        of_data = {
            "D": augmented_dimensions(self.D or _D) if self.parametrization == "pfgmpp" else None,
            "resolution": square_side(pictures),
            "image_channels": pictures.shape[0],
            "label_dim": count_classes(pictures) if self.cond else 0,
            "dtype": self.dtype_on(device),
            "data_images": len(pictures),
        }
        return Settings(**{**own, **of_data})


train_options = as_one("asked", TrainOptions, _OPTIONS)
"""Adds the options of a training run, which come to the command as `asked`."""


def _sizes(option: str, text: str) -> tuple[int, ...]:
    sizes = tuple(read_list(int, text))
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= _MOST:
        raise InputError(f"{option} {text}: give integers from 1 with commas between them")
    return sizes
