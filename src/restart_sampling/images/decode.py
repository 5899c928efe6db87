"""One image from the bytes of its file: what is kept of its modes, and what is refused."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from restart_sampling.base.errors import InputError, shorten

# Not all that Pillow can open: some of its readers start other programs (EPS) or read from the network.
FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF"]
LOSSY: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
if features.check("jpg_2000"):
    FORMATS += ["JPEG2000"]
    LOSSY += (".jp2", ".j2k")
if "avif" in features.modules and features.check("avif"):
    FORMATS += ["AVIF"]
    LOSSY += (".avif",)
SUFFIXES = (*LOSSY, ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".tga")

MAX_FILE = 2**29  # bytes of one file, unpacked
_MAX_PIXELS = 2**26  # of one picture: a GiB while it is laid on white
_HIDDEN = re.compile(r"(?:^|/)(?:\.+[^./]|__MACOSX(?:/|\Z))")

Raw = bytes | np.ndarray
"""An image as its source holds it: the bytes of a file, or uint8 [C, H, W] with C = 1 or 3."""


def is_image(name: str) -> bool:
    """Tells whether a file of this name counts as an image; hidden ones do not."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Tells whether a file or a folder above it is hidden, or is one of macOS's shadows of files."""
    return _HIDDEN.search(name) is not None


def check_file(size: int, source: Path, name: str) -> None:
    """Checks a file's size before it is read.

    Raises:
        InputError: it is larger than that of an image.
    """
    if size > MAX_FILE:
        raise InputError(
            f"{source}: {shorten(name, 200)} has {size:,} bytes, and a file of an image can have {MAX_FILE:,}; "
            "take it out"
        )


def decode(raw: Raw, where: str) -> Image.Image:
    """Decodes a picture to mode L (grey), RGB, or RGBA where there is transparency of any kind.

    Palettes and CMYK become RGB. Of 16 bits the upper 8 are kept. Of an animation the first frame is taken, and the
    orientation that EXIF may state is not applied, as in EDM.

    Args:
        raw: as the source holds it.
        where: the name for messages, at whose end a TGA is known.

    Raises:
        InputError: the file is damaged or no image, has too many pixels, or pixels that are not of 1, 8 or 16 bits.
    """
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[0] if len(raw) == 1 else raw.transpose(1, 2, 0))
    try:
        # A TGA begins with no signature, so that anything could be one.
        image = Image.open(io.BytesIO(raw), formats=["TGA"] if where.lower().endswith(".tga") else FORMATS)
        if image.width * image.height > _MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format == "PNG" and "transparency" in image.info:
            _match_depth(image)
        image.load()
        return _plain(image, where)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's limit is above ours
        raise InputError(f"{where} has more than {_MAX_PIXELS:,} pixels, the most that are read; scale it") from None
    except UnidentifiedImageError:
        raise InputError(f"{where} is damaged or no image; replace it or take it out of the set") from None
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{where} is damaged ({reason}); replace it or take it out of the set") from error


def pixels(image: Image.Image) -> np.ndarray:
    """Makes uint8 [C, H, W] of a picture in mode L (C = 1) or RGB (C = 3)."""
    # What np.asarray does, in half the time for small pictures.
    array = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
    return array.transpose(2, 0, 1)


def describe(shape: tuple[int, ...]) -> str:
    """Describes an image's shape [C, H, W] in messages: 32x32 RGB."""
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _match_depth(png: Image.Image) -> None:
    """Brings the transparent colour, which a PNG states in its own depth, to the 8 bits that Pillow makes of it."""
    colour, depth = png.info["transparency"], png.tile[0][3]  # type: ignore[attr-defined]
    if depth == "RGB;16B":
        png.info["transparency"] = tuple(value >> 8 for value in colour)
    elif depth in ("L;2", "L;4"):
        png.info["transparency"] = colour * (85 if depth == "L;2" else 17)


def _plain(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # nearly all are
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _upper_bits(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("I", "F"):
        raise InputError(f"{where} has 32-bit pixels, or signed ones, and can have 8 or 16 bits; convert it")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """Keeps the upper 8 bits of 16-bit grey, as Pillow does of 16-bit colours by itself."""
    array = np.asarray(image)
    bits = image.tag_v2[258][0] if image.format == "TIFF" else 16  # type: ignore[attr-defined]  # a TIFF may have 12
    grey = Image.fromarray((array >> (bits - 8)).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    opaque = (array != image.info["transparency"]).astype(np.uint8) * 255
    return Image.merge("LA", (grey, Image.fromarray(opaque))).convert("RGBA")
