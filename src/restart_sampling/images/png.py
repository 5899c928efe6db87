"""PNGs of the kind that samplers write, small and plain, without Pillow's search for all that a file may hold."""

import struct
import zlib

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # length and kind, before the content; its CRC-32 is behind
_HEADER = struct.Struct(">4s2I5B")  # kind, width, height, bits, colours, compression, filter, interlacing
_MODES = {0: "L", 2: "RGB"}
_MAX_PIXELS = 2**16  # of larger ones decoding takes all the time


def decode_plain(png: bytes) -> Image.Image | None:
    """Decodes a PNG of 8 bits, grey or RGB, with nothing in it but pixels; None of all others, also of damaged ones."""
    if not png.startswith(_SIGNATURE):
        return None
    header, pixels, at = b"", [], len(_SIGNATURE)
    try:
        while at < len(png):
            length, kind = _CHUNK.unpack_from(png, at)
            end = at + 8 + length
            chunk = png[at + 4 : end]
            if zlib.crc32(chunk) != int.from_bytes(png[end : end + 4], "big"):
                return None
            if kind == b"IDAT":
                pixels.append(chunk[4:])
            elif kind == b"IHDR" and not header:
                header = chunk
            elif kind != b"IEND" or end + 4 != len(png):
                return None
            at = end + 4
        _, width, height, bits, colours, *rest = _HEADER.unpack(header)
        if bits != 8 or colours not in _MODES or any(rest) or not 0 < width * height <= _MAX_PIXELS:
            return None
        mode = _MODES[colours]
        return Image.frombytes(mode, (width, height), b"".join(pixels), "zip", mode, 0)
    except (struct.error, ValueError, OSError):
        return None  # Pillow will say what is wrong
