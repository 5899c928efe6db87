"""PNGs of the kind that samplers write, small and plain, without Pillow's search for all that a file may hold."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from restart_sampling.images.decode import pixels

SMALL = 96**2
"""Pixels; of larger images decoding takes nearly all the time, and threads can do it at once."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # length and kind, before the content; its CRC-32 is behind
_HEADER = struct.Struct(">4s2I5B")  # kind, width, height, bits, colours, compression, filter, interlacing
_MODES = {0: "L", 2: "RGB"}
_START = len(_SIGNATURE) + 4 + _HEADER.size + 4  # length of signature and header
_FRAME = 1000  # bytes that compression may add; what is longer could be a bomb


def decode_plain(png: bytes) -> Image.Image | None:
    """Decodes a PNG of 8 bits, grey or RGB, with nothing in it but pixels; None of all others, also of damaged ones."""
    if not png.startswith(_SIGNATURE):
        return None
    header, parts, at = b"", [], len(_SIGNATURE)
    try:
        while at < len(png):
            length, kind = _CHUNK.unpack_from(png, at)
            end = at + 8 + length
            chunk = png[at + 4 : end]
            if zlib.crc32(chunk) != int.from_bytes(png[end : end + 4], "big"):
                return None
            if kind == b"IDAT":
                parts.append(chunk[4:])
            elif kind == b"IHDR" and not header:
                header = chunk
            elif kind != b"IEND" or end + 4 != len(png):
                return None
            at = end + 4
        _, width, height, bits, colours, *rest = _HEADER.unpack(header)
        if bits != 8 or colours not in _MODES or any(rest) or not 0 < width * height <= SMALL:
            return None
        mode = _MODES[colours]
        return Image.frombytes(mode, (width, height), b"".join(parts), "zip", mode, 0)
    except (struct.error, ValueError, OSError):
        return None  # Pillow will say what is wrong


def decode_alike(pngs: Sequence[bytes]) -> np.ndarray | None:
    """Decodes PNGs that differ in nothing but their pixels, all in one chunk: uint8 [B, C, H, W], in half the time.

    None where the first is none of `decode_plain`, or another is not like it or damaged.
    """
    image = decode_plain(pngs[0])
    if image is None:
        return None
    start, end = pngs[0][:_START], _chunk(b"IEND", b"")
    above = bytes(1 + image.width * len(image.getbands()))  # a row of zeros; its first byte is the filter
    size = len(above) * image.height
    filtered = []
    for png in pngs:
        content = png[_START + _CHUNK.size : -len(end) - 4]
        if len(content) > size + _FRAME or png != start + _chunk(b"IDAT", content) + end:
            return None
        try:
            filtered.append(zlib.decompress(content, bufsize=size))
        except zlib.error:
            return None
        if len(filtered[-1]) != size:
            return None
    # Pillow undoes the filters of all in one call, as of a tall image: each below a row of zeros, which is what the
    # filters take for the row above the first, and in a block of zlib's that is not compressed.
    block = b"\0" + struct.pack("<HH", len(above) + size, 0xFFFF ^ (len(above) + size)) + above
    stack = (image.width, (1 + image.height) * len(pngs))
    try:
        tall = Image.frombytes(image.mode, stack, block.join([b"x\1", *filtered]), "zip", image.mode, 0)
    except ValueError:
        return None
    rows = pixels(tall).reshape(-1, len(pngs), 1 + image.height, image.width)
    return rows[:, :, 1:].swapaxes(0, 1).copy()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return _CHUNK.pack(len(content), kind) + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")
