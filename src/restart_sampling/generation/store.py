"""`BlockStore`: a folder or zip of images, block by block, from the first to the last.

A block is what one batch makes, and is done or not done as a whole. Its record, written after its images, has their
SHA-256 and the run that they belong to, so that a run that goes on after a kill trusts nothing: what is not there byte
for byte, or is another run's, is made again.

Images appear in the folder as they are made, their records in `.blocks` there. For OUT.zip the folder is
`OUT.zip.blocks`, until the zip is made of it, whole and with the records.
"""

import glob
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError, one_line
from restart_sampling.base.files import (
    atomic,
    check_ratio,
    check_writable,
    is_partial,
    remove_folder,
    remove_partials,
    write_bytes,
    write_json,
)
from restart_sampling.base.lock import lock_beside, lock_in, locked
from restart_sampling.base.numbers import is_whole
from restart_sampling.generation.seeds import joined, parse_seeds
from restart_sampling.images.writers import LABELS, MANIFEST, encode_png, image_name
from restart_sampling.images.zips import ZipWriter

_RECORDS = ".blocks"
_OLD_BLOCK = "[0-9]*.zip"  # of version 0.1.0, where the whole becomes a zip

Read = Callable[[str], bytes]
"""The content of a file of the store, by its name."""


class BlockStore:
    """Blocks of images on the disk. `write` may be called by many processes, all else by one of them.

    Args:
        out: a folder, or a file that ends in .zip.
        blocks: seeds of the images of each block.
        run: what defines the images, as in the manifest.
    """

    def __init__(self, out: Path, blocks: Sequence[Sequence[int]], run: Mapping[str, Any]) -> None:
        self.out = out
        self.blocks = blocks
        self.run = run
        # Without the seeds, which the names of the images say.
        own = {key: value for key, value in run.items() if key != "seeds"}
        self._run_sha256 = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
        self._zipped = out.suffix == ".zip"
        self._folder = out.with_name(f"{out.name}.blocks") if self._zipped else out

    @contextmanager
    def claimed(self, batch: int) -> Iterator[None]:
        """Keeps other runs away, after a check and with another: all that follows belongs in here.

        Raises:
            InputError: another run is writing, or as `check`.
        """
        self.check(batch)
        path = lock_beside(self.out) if self._zipped else lock_in(self._folder / _RECORDS)
        with locked(path, str(self.out)):
            self.check(batch)  # another run may have come first
            yield

    def check(self, batch: int) -> None:
        """Makes sure that writing destroys nothing but an earlier go at this run, or a finished one of its first seeds.

        Args:
            batch: images in a block.

        Raises:
            InputError: there is another run (the message says what differs), blocks of another size or something else,
                or it cannot be written.
        """
        run = self.run
        for found, has_blocks in self._earlier():
            differs = [key for key in {**found["run"], **run} if found["run"].get(key) != run.get(key)]
            if differs and not (differs == ["seeds"] and self._extends(found)):
                old, new = (json.dumps(each.get(differs[0])) for each in (found["run"], run))
                raise InputError(
                    f"{self.out} holds another run, with {differs[0]} {old}, not {new}; choose another --out"
                )
            if has_blocks and found["batch"] != batch:
                raise InputError(
                    f"{self.out} holds images made with --batch {found['batch']}, not {batch}; "
                    f"give --batch {found['batch']} to go on, or choose another --out"
                )
        check_writable(self.out if self._zipped else self.out / MANIFEST)

    def clean(self) -> None:
        """Removes what a killed process left, before work goes on."""
        if self._zipped:
            remove_partials(self.out.parent, glob.escape(self.out.name), glob.escape(self._folder.name))
            remove_partials(self._folder, _OLD_BLOCK)
            if self._sealed and self._folder.exists():
                remove_folder(self._folder)
            self._adopt()
            self._unpack()
        remove_partials(self._folder, MANIFEST, LABELS)
        remove_partials(self._folder / _RECORDS, "*.json")
        for folder in {Path(name).parent for number in range(len(self.blocks)) for name in self._names(number)}:
            remove_partials(self._folder / folder, "*.png")

    def recorded(self) -> int:
        """Counts the images of the blocks that have a record, some of which may turn out damaged."""
        found = {f"{_RECORDS}/{path.name}" for path in (self._folder / _RECORDS).glob("*.json")}
        if self._zipped and self.out.exists():
            with _opened(self.out) as archive:  # `check` has read it
                found.update(archive.namelist())
        return sum(len(block) for number, block in enumerate(self.blocks) if _record_name(number) in found)

    def intact(self, number: int) -> bool:
        """Checks whether a block is recorded and its images are there, byte for byte."""
        return self._sealed or self._is_intact(number, self._read)

    def finished(self) -> bool:
        """Checks whether all is done, given that all blocks are intact."""
        return self._sealed if self._zipped else self._is_finished(self._read)

    def start(self, manifest: Mapping[str, Any]) -> None:
        """Says what the images will be, before the first of them.

        Args:
            manifest: JSON; "run" is what defines the images, "batch" the images in a block.
        """
        write_json(self._folder / MANIFEST, {**manifest, "complete": False})

    def write(self, number: int, images: Sequence[np.ndarray], labels: Sequence[int | None], threads: Executor) -> None:
        """Writes a block.

        Args:
            number: of the block.
            images: uint8 [C, H, W] each, C = 1 or 3.
            labels: class of each image, or None.
            threads: encode images at the same time.
        """
        names = self._names(number)
        digests = threads.map(lambda name, image: self._write(name, encode_png(image)), names, images)
        record = {
            name: {"sha256": digest, "label": label} for name, digest, label in zip(names, digests, labels, strict=True)
        }
        content = {"run_sha256": self._run_sha256, "images": record}
        self._write(_record_name(number), json.dumps({**content, "sha256": _digest(content)}, indent=2).encode())

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes what belongs to the whole, when all blocks are there.

        Raises:
            InputError: a block is another run's, or gone.
        """
        manifest = {**manifest, "complete": True}
        try:
            labels = self._labels(self._read)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._folder} was changed by something else meanwhile ({one_line(error)}); see that nothing else "
                "writes there, then give the same command again"
            ) from error
        if not self._zipped:
            self._write(LABELS, labels)
            write_json(self.out / MANIFEST, manifest)
            return
        numbers = range(len(self.blocks))
        with atomic(self.out) as temporary, ZipWriter(temporary) as add:
            for name in (name for number in numbers for name in self._names(number)):
                add(name, [self._read(name)])
            add(LABELS, [labels])
            add(MANIFEST, [json.dumps(manifest, indent=2).encode()])
            for name in map(_record_name, numbers):
                add(name, [self._read(name)])
        remove_folder(self._folder)

    @cached_property
    def _sealed(self) -> bool:
        """Checks whether the whole zip is there, undamaged."""
        numbers = range(len(self.blocks))
        names = {LABELS, MANIFEST}.union(*map(self._names, numbers))
        with suppress(Exception), _opened(self.out) as archive:  # a damaged file can fail in any way
            listed = set(archive.namelist())
            if listed == names:  # of version 0.1.0, which put no records into it
                return archive.testzip() is None
            return listed == names.union(map(_record_name, numbers)) and (
                all(self._is_intact(number, archive.read) for number in numbers) and self._is_finished(archive.read)
            )
        return False

    def _names(self, number: int) -> list[str]:
        return [image_name(seed) for seed in self.blocks[number]]

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def _write(self, name: str, content: bytes) -> str:
        """Writes a file; returns its SHA-256."""
        write_bytes(self._folder / name, content)
        return hashlib.sha256(content).hexdigest()

    def _is_intact(self, number: int, read: Read) -> bool:
        try:
            images = self._read_record(number, read)
            return list(images) == self._names(number) and all(
                hashlib.sha256(read(name)).hexdigest() == image["sha256"] for name, image in images.items()
            )
        except Exception:  # a damaged file can fail in any way
            return False

    def _is_finished(self, read: Read) -> bool:
        try:
            return json.loads(read(MANIFEST))["complete"] is True and read(LABELS) == self._labels(read)
        except FileNotFoundError:
            return False

    def _labels(self, read: Read) -> bytes:
        """Makes the dataset.json of all blocks, in their order."""
        records = (self._read_record(number, read) for number in range(len(self.blocks)))
        labels = [(name, image["label"]) for record in records for name, image in record.items()]
        return json.dumps({"labels": [pair for pair in labels if pair[1] is not None] or None}).encode()

    def _read_record(self, number: int, read: Read) -> dict[str, Any]:
        """Reads the images of a block; raises ValueError where they are another run's, or the record is damaged."""
        record = json.loads(read(_record_name(number)))
        digest = record.pop("sha256")
        # Records of version 0.1.0 do not name their run, and their digest is that of the images alone.
        if record.get("run_sha256", self._run_sha256) != self._run_sha256:
            raise ValueError("the images are another run's")
        if digest != _digest(record if "run_sha256" in record else record["images"]):
            raise ValueError("the record is damaged")
        return dict(record["images"])

    def _earlier(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yields the manifests that are there, and whether there are blocks of theirs."""
        if self._zipped and self.out.exists():
            with _refused(self.out), _opened(self.out) as archive:
                found = _parse_manifest(archive.read(MANIFEST))
            yield found, True
        with _refused(self._folder):
            unfinished = _folder_manifest(self._folder)
        if unfinished is not None:
            blocks = (
                *self._folder.glob(f"{_RECORDS}/*.json"),
                *(self._folder.glob(_OLD_BLOCK) if self._zipped else ()),
            )
            yield unfinished, bool(blocks)

    def _extends(self, found: Mapping[str, Any]) -> bool:
        """Checks whether the seeds of the blocks begin with all those of a finished run."""
        seeds = found["run"].get("seeds")
        first = parse_seeds(seeds) if isinstance(seeds, str) else ()
        return found["finished"] == len(first) and tuple(joined(self.blocks)[: len(first)]) == first

    def _unpack(self) -> None:
        """Takes up the blocks of a whole zip of fewer seeds, which stays until there is one of all."""
        with suppress(Exception), _opened(self.out) as archive:  # what is damaged is made again
            if json.loads(archive.read(MANIFEST))["images"] >= sum(map(len, self.blocks)):
                return
            for number in range(len(self.blocks)):
                if self._is_intact(number, archive.read) and not self._is_intact(number, self._read):
                    for name in (*self._names(number), _record_name(number)):
                        self._write(name, archive.read(name))

    def _adopt(self) -> None:
        """Takes up the blocks of a zip that version 0.1.0 left unfinished: each is a small zip."""
        for path in sorted(self._folder.glob(_OLD_BLOCK)):
            with suppress(Exception), _opened(path) as archive:  # a damaged block is made again
                number = int(path.stem)
                for name in self._names(number):
                    self._write(name, archive.read(name))
                self._write(_record_name(number), archive.read("record.json"))
            path.unlink()


def _record_name(number: int) -> str:
    return f"{_RECORDS}/{number:06d}.json"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _folder_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads a folder's manifest; None where there is nothing beside it, which a run that failed at once leaves."""
    if not folder.exists() or (folder.is_dir() and _is_bare(folder)):
        return None
    text = (folder / MANIFEST).read_bytes()
    alone = _is_bare(folder, MANIFEST)
    if alone and not text.strip(b"\0"):  # as a machine that went down leaves it
        return None
    found = _parse_manifest(text)
    return None if alone else found


def _is_bare(folder: Path, *names: str) -> bool:
    """Checks whether a folder holds no more than files of these names, what an ended process left, and a lock."""
    return all(
        is_partial(path) or path.name in names or (path.name == _RECORDS and path.is_dir() and _is_bare(path))
        for path in folder.iterdir()
    )


def _parse_manifest(text: bytes) -> dict[str, Any]:
    manifest = json.loads(text)
    batch, images = manifest["batch"], manifest.get("images")
    if not (is_whole(batch) and (images is None or is_whole(images))):
        raise ValueError("the images are no number")
    return {"run": dict(manifest["run"]), "batch": batch, "finished": images if manifest["complete"] is True else None}


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip of images, which does not unpack to more than it is."""
    with zipfile.ZipFile(path) as archive:
        check_ratio(sum(info.file_size for info in archive.infolist()), path.stat().st_size, str(path))
        yield archive


@contextmanager
def _refused(place: Path) -> Iterator[None]:
    """Refuses in one sentence what is there and is not ours."""
    try:
        yield
    except Exception:  # a damaged file can fail in any way
        raise InputError(
            f"{place} exists and is not a run of generate (no readable {MANIFEST}); choose another --out"
        ) from None
