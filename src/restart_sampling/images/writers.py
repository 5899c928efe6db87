"""How images that are written are named and encoded.

Folders and zips have the layout of EDM's datasets: `000000/000123.png` for each image, and `dataset.json` with labels.
"""

import io

import numpy as np
from PIL import Image

MANIFEST = "manifest.json"
LABELS = "dataset.json"
SUBSET = "subset.csv"  # the prompts of images of captions


def image_name(seed: int) -> str:
    """Names the image of a seed, a thousand a folder: `000000/000123.png`."""
    return f"{seed - seed % 1000:06d}/{seed:06d}.png"


def as_picture(image: np.ndarray) -> Image.Image:
    """Makes a picture of a uint8 image [C, H, W], C = 1 (grey) or 3 (RGB)."""
    return Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))


def encode_png(image: np.ndarray) -> bytes:
    """Encodes a uint8 image [C, H, W], C = 1 (grey) or 3 (RGB), as PNG: without loss."""
    return picture_png(as_picture(image))


def image_grid(images: np.ndarray, columns: int, scale: int = 2) -> np.ndarray:
    """Joins uint8 images [N, C, H, W] row by row to one, [C, H', W'], with white between them and where none are left.

    Args:
        images: N of them.
        columns: images in a row.
        scale: each pixel is drawn as so many, and the space between the images is as wide.
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    gap = ((0, rows * columns - count), (0, 0), (0, scale), (0, scale))
    large = np.pad(images.repeat(scale, axis=2).repeat(scale, axis=3), gap, constant_values=255)
    cells = large.reshape(rows, columns, *large.shape[1:]).transpose(2, 0, 3, 1, 4)
    return cells.reshape(channels, rows * scale * (height + 1), columns * scale * (width + 1))[:, :-scale, :-scale]


def picture_png(picture: Image.Image, compress_level: int = -1) -> bytes:
    """Encodes a picture as PNG; level 0 is the fastest, -1 the one that zlib takes by itself."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=compress_level)
    return buffer.getvalue()
