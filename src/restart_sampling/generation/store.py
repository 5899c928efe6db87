"""Where generated images go, block by block: a folder or a zip, from the first image to the finished whole.

A block is what one batch makes, and is done or not done as a whole. Its record, written after its images, has their
SHA-256, so that a run that goes on after a kill trusts nothing: what is not there byte for byte is made again.
"""

import hashlib
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import atomic, check_writable, is_partial, remove_folder, remove_partials, write_json
from restart_sampling.images.writers import LABELS, MANIFEST, add_entry, encode_png, image_name

RECORD = "record.json"

Read = Callable[[str], bytes]
"""The content of an image of a block by its name, or of `RECORD`."""


def open_store(out: Path, blocks: Sequence[Sequence[int]]) -> "BlockStore":
    """The store for a folder, or for a file that ends in .zip.

    Args:
        out: where the images go.
        blocks: seeds of the images of each block.
    """
    return _ZipStore(out, blocks) if out.suffix == ".zip" else _FolderStore(out, blocks)


class BlockStore(ABC):
    """Blocks of images on the disk. `write` may be called by many processes, all else by one of them."""

    def __init__(self, out: Path, blocks: Sequence[Sequence[int]]) -> None:
        self.out = out
        self.blocks = blocks

    def check(self, run: Mapping[str, Any], batch: int) -> None:
        """Makes sure that writing destroys nothing but an earlier go at the same run.

        Args:
            run: what defines the images, as in the manifest.
            batch: images in a block.

        Raises:
            InputError: there is another run (the message says what differs), blocks of another size or something else,
                or it cannot be written.
        """
        for found, has_blocks in self._earlier():
            differs = [key for key in {**found["run"], **run} if found["run"].get(key) != run.get(key)]
            if differs:
                old, new = (json.dumps(each.get(differs[0])) for each in (found["run"], run))
                raise InputError(
                    f"{self.out} holds another run, with {differs[0]} {old}, not {new}; choose another --out"
                )
            if has_blocks and found["batch"] != batch:
                raise InputError(
                    f"{self.out} holds images made with --batch {found['batch']}, not {batch}; "
                    f"give --batch {found['batch']} to go on, or choose another --out"
                )
        check_writable(self._manifest_place)

    def names(self, number: int) -> list[str]:
        """Of the images of a block."""
        return [image_name(seed) for seed in self.blocks[number]]

    def intact(self, number: int) -> bool:
        """Whether a block is recorded and its images are there, byte for byte."""
        try:
            with self._open(number) as read:
                images = _read_record(read(RECORD))
                return list(images) == self.names(number) and all(
                    hashlib.sha256(read(name)).hexdigest() == image["sha256"] for name, image in images.items()
                )
        except Exception:  # a damaged file can fail in any way
            return False

    @abstractmethod
    def clean(self) -> None:
        """Removes what a killed process left, before work goes on."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether all is done, given that all blocks are intact."""

    @abstractmethod
    def start(self, manifest: Mapping[str, Any]) -> None:
        """Says what the images will be, before the first of them.

        Args:
            manifest: JSON; "run" is what defines the images, "batch" the images in a block.
        """

    @abstractmethod
    def write(self, number: int, images: Sequence[np.ndarray], labels: Sequence[int | None], threads: Executor) -> None:
        """Writes a block.

        Args:
            number: of the block.
            images: uint8 [C, H, W] each, C = 1 or 3.
            labels: class of each image, or None.
            threads: encode images at the same time.
        """

    @abstractmethod
    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes what belongs to the whole, when all blocks are there."""

    @property
    @abstractmethod
    def _manifest_place(self) -> Path:
        """The file, or the file with the file, that says what the images are."""

    @abstractmethod
    def _earlier(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """The manifests that are there, and whether there are blocks of theirs."""

    @abstractmethod
    def _open(self, number: int) -> AbstractContextManager[Read]:
        """Reads a block."""

    def _labels(self) -> bytes:
        """The dataset.json of all blocks, in their order."""
        labels = []
        for number in range(len(self.blocks)):
            with self._open(number) as read:
                images = _read_record(read(RECORD))
            labels += [(name, image["label"]) for name, image in images.items() if image["label"] is not None]
        return json.dumps({"labels": labels or None}).encode()


class _FolderStore(BlockStore):
    """Images appear as they are made; the records stay beside them, in `.blocks`, as their checksums."""

    def clean(self) -> None:
        for folder in (self.out, *(path for path in self.out.iterdir() if path.is_dir())):
            remove_partials(folder)

    def finished(self) -> bool:
        complete = json.loads((self.out / MANIFEST).read_text())["complete"] is True
        labels = self.out / LABELS
        return complete and labels.exists() and labels.read_bytes() == self._labels()

    def start(self, manifest: Mapping[str, Any]) -> None:
        write_json(self.out / MANIFEST, {**manifest, "complete": False})

    def write(self, number: int, images: Sequence[np.ndarray], labels: Sequence[int | None], threads: Executor) -> None:
        names = self.names(number)
        digests = list(threads.map(self._write_image, names, images))
        with atomic(self._record_place(number)) as temporary:
            temporary.write_bytes(_make_record(names, digests, labels))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        with atomic(self.out / LABELS) as temporary:
            temporary.write_bytes(self._labels())
        write_json(self.out / MANIFEST, {**manifest, "complete": True})

    @property
    def _manifest_place(self) -> Path:
        return self.out / MANIFEST

    def _earlier(self) -> Iterator[tuple[dict[str, Any], bool]]:
        with _refused(self.out):
            found = _folder_manifest(self.out)
        if found is not None:
            yield found, any(self._record_place(0).parent.glob("*.json"))

    @contextmanager
    def _open(self, number: int) -> Iterator[Read]:
        yield lambda name: (self._record_place(number) if name == RECORD else self.out / name).read_bytes()

    def _record_place(self, number: int) -> Path:
        return self.out / ".blocks" / f"{number:06d}.json"

    def _write_image(self, name: str, image: np.ndarray) -> str:
        png = encode_png(image)
        with atomic(self.out / name) as temporary:
            temporary.write_bytes(png)
        return hashlib.sha256(png).hexdigest()


class _ZipStore(BlockStore):
    """Each block is a small zip in `OUT.zip.blocks`, until all are put together; OUT.zip appears whole."""

    @property
    def _folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.blocks")

    @cached_property
    def _sealed(self) -> bool:
        """Whether the whole zip is there, undamaged."""
        try:
            with zipfile.ZipFile(self.out) as archive:
                return archive.testzip() is None
        except Exception:  # a damaged file can fail in any way
            return False

    def intact(self, number: int) -> bool:
        return self._sealed or super().intact(number)

    def clean(self) -> None:
        remove_partials(self.out.parent, self.out.name)
        if self._folder.exists():
            if self._sealed:
                remove_folder(self._folder)
            else:
                remove_partials(self._folder)

    def finished(self) -> bool:
        return self._sealed

    def start(self, manifest: Mapping[str, Any]) -> None:
        write_json(self._folder / MANIFEST, {**manifest, "complete": False})

    def write(self, number: int, images: Sequence[np.ndarray], labels: Sequence[int | None], threads: Executor) -> None:
        names = self.names(number)
        digests = []
        with atomic(self._block_place(number)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, png in zip(names, threads.map(encode_png, images), strict=True):
                add_entry(archive, name, png)
                digests.append(hashlib.sha256(png).hexdigest())
            add_entry(archive, RECORD, _make_record(names, digests, labels))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        with atomic(self.out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for number in range(len(self.blocks)):
                with self._open(number) as read:
                    for name in self.names(number):
                        add_entry(archive, name, read(name))
            add_entry(archive, LABELS, self._labels())
            add_entry(archive, MANIFEST, json.dumps({**manifest, "complete": True}, indent=2).encode())
        remove_folder(self._folder)

    @property
    def _manifest_place(self) -> Path:
        return self.out

    def _earlier(self) -> Iterator[tuple[dict[str, Any], bool]]:
        if self.out.exists():
            with _refused(self.out), zipfile.ZipFile(self.out) as archive:
                found = _parse_manifest(archive.read(MANIFEST))
            yield found, True
        with _refused(self._folder):
            unfinished = _folder_manifest(self._folder)
        if unfinished is not None:
            yield unfinished, any(self._folder.glob("*.zip"))

    @contextmanager
    def _open(self, number: int) -> Iterator[Read]:
        with zipfile.ZipFile(self._block_place(number)) as archive:
            yield archive.read

    def _block_place(self, number: int) -> Path:
        return self._folder / f"{number:06d}.zip"


def _make_record(names: Iterable[str], digests: Iterable[str], labels: Iterable[int | None]) -> bytes:
    """JSON: SHA-256 and label of each image, and the SHA-256 of that."""
    images = {
        name: {"sha256": digest, "label": label} for name, digest, label in zip(names, digests, labels, strict=True)
    }
    return json.dumps({"images": images, "sha256": _record_digest(images)}, indent=2).encode()


def _read_record(text: bytes) -> dict[str, Any]:
    record = json.loads(text)
    if record["sha256"] != _record_digest(record["images"]):
        raise ValueError("the record is damaged")
    return dict(record["images"])


def _record_digest(images: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()


def _folder_manifest(folder: Path) -> dict[str, Any] | None:
    """None where nothing is there yet, or only what was never finished."""
    if not folder.exists() or (folder.is_dir() and all(map(is_partial, folder.iterdir()))):
        return None
    return _parse_manifest((folder / MANIFEST).read_bytes())


def _parse_manifest(text: bytes) -> dict[str, Any]:
    manifest = json.loads(text)
    return {"run": dict(manifest["run"]), "batch": int(manifest["batch"])}


@contextmanager
def _refused(place: Path) -> Iterator[None]:
    """What is there and is not ours ends in one sentence."""
    try:
        yield
    except (OSError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile):
        raise InputError(
            f"{place} exists and is not a run of generate (no readable {MANIFEST}); choose another --out"
        ) from None
