"""diffusers' `UNet2DModel` as a network of ours, for which diffusers has to be installed."""

from typing import Any

from torch import Tensor, nn

from restart_sampling.base.errors import require_extra


class DiffusersUNet(nn.Module):
    """An unconditional `UNet2DModel`.

    Args:
        img_resolution: height and width of the images.
        in_channels: channels of the input.
        out_channels: channels of the output.
        label_dim: 0.
        **config: the other arguments of `UNet2DModel`, as a folder's config.json has them.

    Raises:
        InputError: diffusers is not installed.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, **config: Any
    ) -> None:
        super().__init__()
        require_extra("diffusers", "diffusers")
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=img_resolution, in_channels=in_channels, out_channels=out_channels, **config
        )

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Runs the network on images [B, in_channels, H, W] and timesteps [B]; there are no other labels."""
        out: Tensor = self.unet(x, noise_labels).sample
        return out
