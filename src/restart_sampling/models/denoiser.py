"""Denoisers: a network and the preconditioning that turns it into D(x; sigma), an estimate of the clean image.

The preconditionings are those of EDM [Karras et al. 2022, arXiv 2206.00364], table 1 and equation 7:
`D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)` with F the network and all coefficients functions of sigma.
"""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import require_one_of
from restart_sampling.models.dhariwal_unet import DhariwalUNet
from restart_sampling.models.diffusers_unet import DiffusersUNet
from restart_sampling.models.edm2_unet import EDM2UNet
from restart_sampling.models.song_unet import SongUNet
from restart_sampling.sampling.process import VE, Process

NETWORKS: dict[str, type[nn.Module]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
    "EDM2UNet": EDM2UNet,
    "UNet2DModel": DiffusersUNet,
}
"""Networks by name, called as network(x, noise_labels, class_labels, augment_labels=None) -> [B, out_channels, H, W]:

    x                 scaled noisy images [B, in_channels, H, W], in the dtype of the parameters
    noise_labels      c_noise [B], of any floating dtype
    class_labels      one-hot [B, label_dim]; zeros are no class
    augment_labels    [B, augment_dim]; None is no augmentation, the only choice of some
"""


class Coefficients(NamedTuple):
    """The four coefficients of the preconditioning, each [B] in the dtype of sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Denoiser(nn.Module):
    """What the samplers call: `model(x, sigma, class_labels=None) -> x0`.

    The state x = x0 + sigma * noise has the caller's dtype (float64 in our sampler) and the network that of its
    parameters, to be chosen by `model.to(torch.bfloat16)`. Nothing in the forward pass waits for the device.

    Args:
        img_resolution: height and width of the images.
        img_channels: channels of the images.
        label_dim: number of classes; 0 is unconditional.
        use_fp16: Ignored: checkpoints carry it, but the precision is the caller's choice through `.to(dtype)`.
        model_type: a key of `NETWORKS`.
        sigma_min: lowest noise level that the model knows.
        sigma_max: highest noise level that the model knows.
        D: dimension of the augmented data of PFGM++ [Xu et al. 2023]; None is Gaussian noise, its limit.
        out_channels: channels of the network's output; those after the image's are not used.
        **network: options of the network.

    Attributes:
        model: the network.
        resolution, channels, label_dim, sigma_min, sigma_max, D: as above.
        identity: SHA-256 of the file that it comes from; None: unknown.
        default_plan: one that suits it; None: unknown.
        latents: what its states are latents of; None: they are images.
        weights: what they are, in words, where the file has another than the average; None: the average, or unknown.
        classes: names of the classes; () where none are known.
        fused: whether the network runs with the kernels of `models.kernels`.

    Raises:
        InputError: unknown model_type.
    """

    process: ClassVar[Process] = VE
    identity: str | None = None
    default_plan: str | None = None
    latents: str | None = None
    weights: str | None = None
    classes: tuple[str, ...] = ()
    fused: bool = False

    def __init__(
        self,
        *,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        model_type: str,
        sigma_min: float,
        sigma_max: float,
        D: int | None = None,
        out_channels: int | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        require_one_of("model_type", model_type, tuple(NETWORKS))
        self.resolution = img_resolution
        self.channels = img_channels
        self.label_dim = label_dim
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.D = D
        self.model = NETWORKS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=out_channels or img_channels,
            label_dim=label_dim,
            **network,
        )

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Computes the preconditioning at noise levels sigma [B]."""
        raise NotImplementedError

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the noise levels nearest to sigma that the model knows: shape and dtype as sigma."""
        return sigma

    def round_level(self, level: float) -> float:
        """Returns the noise level nearest to this one that the model knows."""
        return self.round_sigma(torch.tensor([level], dtype=torch.float64, device=self.device)).item()

    def evaluations(self, level: float) -> int:
        """Returns 1: guidance is a net around this one."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, [C, H, W]."""
        return self.channels, self.resolution, self.resolution

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Estimates the clean images [EDM, equation 7].

        Args:
            x: noisy images [B, C, H, W], float32 or float64.
            sigma: their noise levels [B], positive; the coefficients are computed in its dtype.
            class_labels: one-hot [B, label_dim], or class numbers int64 [B]; None (like zeros) is unconditional.
            augment_labels: [B, augment_dim] in training with augmentation; None is no augmentation.

        Returns:
            Clean images, shape and dtype as x.

        Raises:
            InputError: the class labels do not fit the model.
        """
        dtype = next(self.model.parameters()).dtype
        labels = self.one_hot(class_labels)
        if labels is None:
            labels = x.new_zeros(x.shape[0], self.label_dim)
        if augment_labels is not None:
            augment_labels = augment_labels.to(dtype)

        *scales, c_noise = self.coefficients(sigma)
        c_skip, c_out, c_in = (scale.to(x.dtype)[:, None, None, None] for scale in scales)
        out: Tensor = self.model((c_in * x).to(dtype), c_noise, labels.to(dtype), augment_labels)
        return c_skip * x + c_out * out[:, : self.channels].to(x.dtype)

    def one_hot(self, class_labels: Tensor | None) -> Tensor | None:
        """Returns class labels as one-hot [B, label_dim]; None stays None.

        Raises:
            InputError: the class labels do not fit the model.
        """
        if class_labels is None:
            return None
        if self.label_dim == 0:
            raise InputError("class labels were given, but the model is unconditional (label_dim is 0): leave them out")
        if not isinstance(class_labels, Tensor):
            raise InputError(f"class labels are of type {type(class_labels).__name__}; give a tensor of them")
        if class_labels.ndim == 1:
            try:
                return F.one_hot(class_labels, self.label_dim)
            except RuntimeError:  # of the CPU; a GPU does not look at them
                raise InputError(
                    f"class labels are {class_labels.tolist()}, {class_labels.dtype}; give class numbers, int64 [B], "
                    f"from 0 to {self.label_dim - 1}"
                ) from None
        if class_labels.shape[1:] != (self.label_dim,):
            raise InputError(
                f"class labels have the shape {list(class_labels.shape)}; "
                f"it can be [B] (class numbers) or [B, {self.label_dim}] (one-hot)"
            )
        return class_labels


class EDMPrecond(Denoiser):
    """EDM's preconditioning [table 1, column "Ours"; appendix B.6]: unit variance for input and training target.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sigma_data: standard deviation of the data.
        model_type: a key of `NETWORKS`.
        **options: those of `Denoiser` and of the network.
    """

    def __init__(
        self,
        *,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **options: Any,
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, model_type=model_type, **options)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Returns c_skip = sigma_data²/v, c_out = sigma sigma_data/sqrt(v), c_in = 1/sqrt(v), v = sigma² + sigma_data².

        The noise label is c_noise = ln(sigma)/4.
        """
        variance = sigma**2 + self.sigma_data**2
        return Coefficients(
            c_skip=self.sigma_data**2 / variance,
            c_out=sigma * self.sigma_data * variance.rsqrt(),
            c_in=variance.rsqrt(),
            c_noise=sigma.log() / 4,
        )


class EDM2Precond(EDMPrecond):
    """EDM's preconditioning around the network of EDM2 [Karras et al. 2024, arXiv 2312.02696].

    Args:
        model_type: a key of `NETWORKS`.
        **options: those of `EDMPrecond` and of the network.
    """

    def __init__(self, *, model_type: str = "EDM2UNet", **options: Any) -> None:
        super().__init__(model_type=model_type, **options)


class VPPrecond(Denoiser):
    """The variance-preserving SDE of Song et al. 2021 [EDM, table 1, column "VP"; appendix C.1].

    Args:
        beta_d: slope of the noise schedule's rate.
        beta_min: the rate at time 0.
        M: number of time steps that the network was trained with.
        epsilon_t: lowest time.
        model_type: a key of `NETWORKS`.
        **options: those of `Denoiser` and of the network.
    """

    def __init__(
        self,
        *,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **options: Any,
    ) -> None:
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M
        low, high = self.sigma(torch.tensor([epsilon_t, 1.0], dtype=torch.float64, device="cpu")).tolist()
        super().__init__(sigma_min=low, sigma_max=high, model_type=model_type, **options)

    def sigma(self, t: Tensor) -> Tensor:
        """Returns sigma(t) = sqrt(exp(beta_d t²/2 + beta_min t) - 1), times t in [0, 1]; exact near 0 as well."""
        return torch.expm1(t * (self.beta_d / 2 * t + self.beta_min)).sqrt()

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        """Returns the time t >= 0 at which the level is sigma; the root is written without its cancellation near 0."""
        exponent = torch.log1p(sigma**2)
        return 2 * exponent / ((self.beta_min**2 + 2 * self.beta_d * exponent).sqrt() + self.beta_min)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Returns c_skip = 1, c_out = -sigma, c_in = 1/sqrt(sigma²+1), c_noise = (M-1) t(sigma)."""
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=(sigma**2 + 1).rsqrt(),
            c_noise=(self.M - 1) * self.sigma_inv(sigma),
        )


class VEPrecond(Denoiser):
    """The variance-exploding SDE of Song et al. 2021 [EDM, table 1, column "VE"; appendix C.2].

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        model_type: a key of `NETWORKS`.
        **options: those of `Denoiser` and of the network.
    """

    def __init__(
        self, *, sigma_min: float = 0.02, sigma_max: float = 100.0, model_type: str = "SongUNet", **options: Any
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, model_type=model_type, **options)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Returns c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma/2)."""
        one = torch.ones_like(sigma)
        return Coefficients(c_skip=one, c_out=sigma, c_in=one, c_noise=(sigma / 2).log())
