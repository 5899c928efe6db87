"""What defines a training run, and the denoiser that it trains."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from restart_sampling.base.errors import InputError
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.training.augmentation import LABELS
from restart_sampling.training.losses import PARAMETRIZATIONS
from restart_sampling.training.memory import in_memory

LABEL_DROPOUT = 0.1
"""How often the class is forgotten, so that the model can be guided [Ho & Salimans 2022]."""


@dataclass(frozen=True)
class Settings:
    """The same settings on the same data make the same model. The number of processes is not among them: it changes
    nothing but the draws of dropout and the rounding.

    Attributes:
        parametrization: a key of `PARAMETRIZATIONS`.
        D: dimension of the augmented data of PFGM++; None otherwise.
        resolution: height and width of the images.
        image_channels: 1 (grey) or 3 (RGB).
        label_dim: number of classes; 0 is unconditional.
        channels: of the network at full resolution.
        channel_mult: their multiplier per resolution, from the full one down.
        blocks: residual blocks per resolution.
        attention: resolutions with self-attention; None is 16x16 where the network has it.
        dropout: probability in the residual blocks.
        augment: probability of each transformation of an image at the start of the run; 0 is flips only.
        images: how many to train on, counted with repetitions; None: `minutes` say how long.
        minutes: of training; None: `images` says how long.
        batch: images a step, of all processes together.
        lr: highest learning rate.
        ema_images: half-life of the average of the weights, in images.
        seed: of the weights, the batches and the noise.
        dtype: of the network's arithmetic; its weights are float32.
        data_images: how many the data set has.
        data_sha256: of its pixels and labels; "" before they are read.
    """

    parametrization: str
    D: int | None
    resolution: int
    image_channels: int
    label_dim: int
    channels: int
    channel_mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] | None
    dropout: float
    augment: float
    images: int | None
    minutes: float | None
    batch: int
    lr: float
    ema_images: int
    seed: int
    dtype: str
    data_images: int
    data_sha256: str = ""

    def run(self) -> dict[str, Any]:
        """Makes JSON of them, without what is not known yet."""
        known = {name: value for name, value in asdict(self).items() if value != ""}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}

    @property
    def class_name(self) -> str:
        """Of the denoiser, a key of `DENOISERS`."""
        return PARAMETRIZATIONS[self.parametrization].class_name

    def init_kwargs(self) -> dict[str, Any]:
        """Arguments of the denoiser but D: a DDPM++ network of this size."""
        return {
            "img_resolution": self.resolution,
            "img_channels": self.image_channels,
            "label_dim": self.label_dim,
            "model_type": "SongUNet",
            "embedding_type": "positional",
            "encoder_type": "standard",
            "decoder_type": "standard",
            "channel_mult_noise": 1,
            "resample_filter": [1, 1],
            "model_channels": self.channels,
            "channel_mult": list(self.channel_mult),
            "num_blocks": self.blocks,
            "attn_resolutions": [16] if self.attention is None else list(self.attention),
            "augment_dim": LABELS if self.augment else 0,
            "dropout": self.dropout,
            **({"label_dropout": LABEL_DROPOUT} if self.label_dim else {}),
        }

    def build(self) -> Denoiser:
        """Builds the denoiser with fresh weights from torch's global generator."""
        return DENOISERS[self.class_name](**self.init_kwargs(), D=self.D)

    def check_network(self) -> int:
        """Makes sure that the network can be built and suits the images; costs no memory.

        Returns:
            The number of its parameters.

        Raises:
            InputError: it cannot, or does not.
        """
        levels = len(self.channel_mult)
        side = 2 ** (levels - 1)
        if self.resolution % side:
            raise InputError(
                f"a network with {levels} resolutions halves the images {levels - 1} times, and {self.resolution}x"
                f"{self.resolution} is no multiple of {side}; give fewer entries to --channel-mult, or resize the "
                "images with 'restart-sampling dataset --resolution'"
            )
        sizes = [self.resolution >> level for level in range(levels)]
        for size in self.attention or ():
            if size not in sizes:
                raise InputError(
                    f"--attention {size}: the network has the resolutions {', '.join(map(str, sizes))}; "
                    "give some of them, or none"
                )
        widths = f"--channels {self.channels} with --channel-mult {','.join(map(str, self.channel_mult))}"
        with in_memory(f"a network of {widths}", "give less"):
            try:
                with torch.device("meta"):
                    model = self.build()
            except (ValueError, ZeroDivisionError) as error:
                raise InputError(
                    f"{widths} cannot be normalised in groups of channels, or is odd; give --channels a multiple of "
                    "32, or 8 or 16"
                ) from error
        return sum(parameter.numel() for parameter in model.parameters())
