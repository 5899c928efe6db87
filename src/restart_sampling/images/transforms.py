"""Crops and scales of the dataset command, with the arithmetic of EDM's dataset_tool.py."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from restart_sampling.base.errors import InputError

Crop = Literal["center-crop", "center-crop-wide"]


@dataclass(frozen=True)
class Transform:
    """What becomes of each picture.

    - No crop: scaled to width x height, whatever its own ratio; grey stays grey.
    - center-crop: the square in the middle, as large as the short side, scaled. RGB.
    - center-crop-wide: of a picture w x h the round(width h / w) rows in the middle, scaled to width x height, with
      black bars to a square of the width; a picture with w < width, or fewer such rows than height, is left out. RGB.
      The number of rows is EDM's: it suits pictures that are as wide as the output, and squeezes wider ones.

    Scaling is Pillow's Lanczos. Raises InputError for settings that do not fit each other.

    Attributes:
        crop: None is no crop.
        size: width and height; None keeps the picture's own.
    """

    crop: Crop | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size is None:
            if self.crop is not None:
                raise InputError(f"--transform {self.crop} needs a --resolution, such as 64x64")
            return
        width, height = self.size
        if self.crop == "center-crop-wide" and height > width:
            raise InputError(f"--resolution {width}x{height}: center-crop-wide needs a width no less than the height")
        check_size(*self.output(self.size), f"--resolution {width}x{height}")

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Computes width and height of what a picture of this size becomes."""
        width, height = self.size or size
        return (width, width) if self.crop == "center-crop-wide" else (width, height)

    def __call__(self, image: Image.Image) -> Image.Image | None:
        """Makes a picture in mode L or RGB of one in mode L, RGB or RGBA (laid on white); None of one too small."""
        image = _on_white(image) if image.mode == "RGBA" else image
        if self.size is None:
            return image
        match self.crop:
            case "center-crop":
                return _center_crop(_rgb(image), self.size)
            case "center-crop-wide":
                return _center_crop_wide(_rgb(image), self.size)
        return image if image.size == self.size else image.resize(self.size, Image.Resampling.LANCZOS)


def check_size(width: int, height: int, what: str) -> None:
    """Checks EDM's rules for datasets.

    Raises:
        InputError: not a square, or its side is no power of two.
    """
    if width != height:
        raise InputError(
            f"{what} gives images of {width}x{height}, and they have to be squares; "
            "set a square --resolution, with --transform center-crop to keep the proportions"
        )
    if width < 1 or width & (width - 1):
        raise InputError(
            f"{what} gives images of {width}x{height}, and the side has to be a power of two; "
            "set a --resolution such as 32x32, 64x64 or 256x256"
        )


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize(size, Image.Resampling.LANCZOS)


def _center_crop_wide(image: Image.Image, size: tuple[int, int]) -> Image.Image | None:
    width, height = size
    rows = round(width * image.height / image.width)
    if image.width < width or rows < height:
        return None
    top, bottom = (image.height - rows) // 2, (image.height + rows) // 2
    middle = image.crop((0, top, image.width, bottom)).resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width, width))
    canvas.paste(middle, (0, (width - height) // 2))
    return canvas
