"""Where generated images go: a folder, or one zip file, with a manifest of what made them.

Both have the layout of EDM's datasets: `000000/000123.png` for each image, and `dataset.json` with the labels.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from restart_sampling.errors import InputError
from restart_sampling.files import atomic, check_writable, write_json

MANIFEST = "manifest.json"
LABELS = "dataset.json"


class ImageWriter(Protocol):
    """Takes images one after another."""

    def write(self, seed: int, image: np.ndarray, label: int | None) -> None:
        """Writes one image, uint8 [C, H, W], C = 1 or 3."""
        ...


def image_name(seed: int) -> str:
    """Where the image of a seed is, a thousand a folder: `000000/000123.png`."""
    return f"{seed - seed % 1000:06d}/{seed:06d}.png"


def encode_png(image: np.ndarray) -> bytes:
    """A uint8 image [C, H, W], C = 1 (grey) or 3 (RGB), as PNG: without loss."""
    return picture_png(Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)))


def picture_png(picture: Image.Image, compress_level: int = -1) -> bytes:
    """A picture as PNG; level 0 is the fastest, -1 the one that zlib takes by itself."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=compress_level)
    return buffer.getvalue()


def add_entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Puts a file into a zip, with a fixed date and no compression (PNG has its own): same images, same bytes."""
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)


def check_destination(out: Path, run: Mapping[str, Any]) -> None:
    """Makes sure that writing to `out` destroys nothing but an earlier go at the same run.

    Args:
        out: a folder, or a file that ends in .zip.
        run: what defines the images, as in the manifest.

    Raises:
        InputError: `out` holds another run (the message says what differs) or something else, or cannot be written.
    """
    found = _read_manifest(out) or run
    differs = [key for key in {**found, **run} if found.get(key) != run.get(key)]
    if differs:
        old, new = (json.dumps(each.get(differs[0])) for each in (found, run))
        raise InputError(f"{out} holds another run, with {differs[0]} {old}, not {new}; choose another --out")
    check_writable(out if _is_zip(out) else out / MANIFEST)


def _read_manifest(out: Path) -> dict[str, Any] | None:
    """The run that made `out`; None where nothing is there yet."""
    try:
        if _is_zip(out):
            if not out.exists():
                return None
            with zipfile.ZipFile(out) as archive:
                text = archive.read(MANIFEST).decode()
        else:
            if not out.exists() or (out.is_dir() and not any(out.iterdir())):
                return None
            text = (out / MANIFEST).read_text()
        return dict(json.loads(text)["run"])
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        raise InputError(
            f"{out} exists and is not a run of generate (no readable {MANIFEST}); choose another --out"
        ) from None


def _is_zip(out: Path) -> bool:
    return out.suffix == ".zip"


@contextmanager
def open_writer(out: Path, manifest: Mapping[str, Any]) -> Iterator[ImageWriter]:
    """A writer to a folder, or to a file that ends in .zip. Call `check_destination` first.

    A zip appears whole at the end or not at all. In a folder each image appears whole; its manifest, written first,
    says `"complete": true` when all are there.

    Args:
        out: a folder, or a file that ends in .zip.
        manifest: JSON; "run" is what defines the images.
    """
    if _is_zip(out):
        with atomic(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            zip_writer = _ZipWriter(archive)
            yield zip_writer
            add_entry(archive, LABELS, json.dumps({"labels": zip_writer.labels or None}).encode())
            add_entry(archive, MANIFEST, json.dumps({**manifest, "complete": True}, indent=2).encode())
    else:
        write_json(out / MANIFEST, {**manifest, "complete": False})
        folder_writer = _FolderWriter(out)
        yield folder_writer
        write_json(out / LABELS, {"labels": folder_writer.labels or None})
        write_json(out / MANIFEST, {**manifest, "complete": True})


class _FolderWriter:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels: list[tuple[str, int]] = []

    def write(self, seed: int, image: np.ndarray, label: int | None) -> None:
        name = image_name(seed)
        with atomic(self.folder / name) as temporary:
            temporary.write_bytes(encode_png(image))
        if label is not None:
            self.labels.append((name, label))


class _ZipWriter:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.labels: list[tuple[str, int]] = []

    def write(self, seed: int, image: np.ndarray, label: int | None) -> None:
        name = image_name(seed)
        add_entry(self.archive, name, encode_png(image))
        if label is not None:
            self.labels.append((name, label))
