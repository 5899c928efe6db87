"""One image from the bytes of its file: what is kept of its modes, and what is refused."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from restart_sampling.base.errors import InputError

# Not all that Pillow can open: some of its readers start other programs (EPS) or read from the network.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
SUFFIXES = (*LOSSY, ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tif", ".tiff")

Raw = bytes | np.ndarray
"""An image as its source holds it: the bytes of a file, or uint8 [C, H, W] with C = 1 or 3."""


def is_image(name: str) -> bool:
    """Tells whether a file of this name counts as an image; hidden files and macOS's shadows of files do not."""
    parts = name.split("/")
    hidden = "__MACOSX" in parts or any(part.startswith(".") and part.strip(".") for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def decode(raw: Raw, where: str) -> Image.Image:
    """Decodes a picture to mode L (grey), RGB, or RGBA where there is transparency of any kind.

    Palettes and CMYK become RGB. Of 16 bits the upper 8 are kept. Of an animation the first frame is taken, and the
    orientation that EXIF may state is not applied, as in EDM.

    Args:
        raw: as the source holds it.
        where: the name for messages.

    Raises:
        InputError: the file is damaged, no image, or its pixels are not of 1, 8 or 16 bits.
    """
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[0] if len(raw) == 1 else raw.transpose(1, 2, 0))
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
        image.load()
        return _plain(image, where)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{where} is damaged or no image; replace it or take it out of the set") from None
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{where} is damaged ({reason}); replace it or take it out of the set") from error


def pixels(image: Image.Image) -> np.ndarray:
    """Makes uint8 [C, H, W] of a picture in mode L (C = 1) or RGB (C = 3)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def describe(shape: tuple[int, ...]) -> str:
    """Describes an image's shape [C, H, W] in messages: 32x32 RGB."""
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _plain(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # nearly all are
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow takes the upper 8 bits of 16-bit colours by itself.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(f"{where} has 32-bit pixels, and can have 8 or 16 bits; convert it")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")
