"""Fuzzes the readers of files and texts: nothing but an InputError, no code run, no hang, at most 1 GiB.

    python tests/fuzz.py [READER]... --inputs 100000         mutations of sound inputs, by chance
    python tests/fuzz.py READER --atheris [-max_total_time=600]       guided by coverage, with libFuzzer's options

A reader that breaks its promise leaves the input in the current folder, as READER-SHA256, and its traceback.
"""

import argparse
import gc
import hashlib
import io
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType

sys.path.append(str(Path(__file__).parent / "images"))

import numpy as np
import torch
from image_files import cifar_batch, encoded, idx, picture, png, write_tar, write_zip
from safetensors.torch import save

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.comparable import read_sweep
from restart_sampling.comparison.named_plans import read_rows
from restart_sampling.evaluation.partial_sums import _read
from restart_sampling.evaluation.reference import load_reference
from restart_sampling.generation.seeds import parse_seeds
from restart_sampling.generation.store import BlockStore
from restart_sampling.images.image_set import read_images
from restart_sampling.images.prompts import read_prompts
from restart_sampling.models.checkpoint import read_checkpoint
from restart_sampling.sampling.plan import Plan
from sweeps import made_up, results_file, tiny_files

SECONDS = 20
BYTES = 2**30


class Reader:
    """Something that reads untrusted bytes.

    Args:
        name: of the file with them; None: `read` takes text.
        read: takes the path, or the text.
        sound: inputs to begin with.
        beside: files that have to be there, too.
    """

    def __init__(self, name: str | None, read: Callable, *sound: bytes, beside: dict[str, bytes] | None = None) -> None:
        self.name, self.read, self.sound, self.beside = name, read, sound, beside or {}

    def __call__(self, content: bytes, folder: Path) -> None:
        if self.name is None:
            self.read(content.decode("latin-1"))
            return
        for name, each in {self.name: content, **self.beside}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(each)
        self.read(folder / self.name)


def all_images(path: Path) -> None:
    for _ in read_images(path, workers=1).batches(4):
        pass


def report_of(path: Path) -> None:
    from restart_sampling.pictures.points import points_of
    from restart_sampling.pictures.report import make_report

    make_report(path.parent, read_sweep(path))
    points_of(read_sweep(path))


def store_of(path: Path) -> None:
    store = BlockStore(path.parent, [(0, 1)], {"plan": "2"})
    store.check(2)
    store.clean()
    store.intact(0)
    store.finished()


def readers(folder: Path) -> dict[str, Reader]:
    tiny_files(folder)
    buffers = {name: io.BytesIO() for name in ("sums", "npz", "plain")}
    torch.save({"places": torch.arange(4), "total": torch.zeros(4, 6, dtype=torch.float64)}, buffers["sums"])
    np.savez(buffers["plain"], mu=np.zeros(6), sigma=np.eye(6))
    sums, _, plain = (buffer.getvalue() for buffer in buffers.values())
    files = {f"{label}/{number}.png": png(number) for number in range(2) for label in "ab"}
    labels = {"dataset.json": json.dumps({"labels": [["a/0.png", 0]]}).encode()}
    results = results_file(*made_up()[:3], name=str(folder / "results.jsonl")).read_bytes()
    manifest = json.dumps({"run": {"plan": "2", "seeds": "0-1"}, "batch": 2, "complete": False}).encode()
    record = {"images": {"000000/000000.png": {"sha256": "0", "label": 0}}, "sha256": "0", "run_sha256": "0"}
    batch = cifar_batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 2])
    zipped, tarred = write_zip(folder / "s.zip", files | labels), write_tar(folder / "s.tar", files)
    cifar = write_tar(
        folder / "c.tar",
        {f"cifar-10-batches-py/{n}": batch for n in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")},
    )
    pngs = [png(0), encoded(picture(0, mode="L")), encoded(picture(0, mode="RGBA")), encoded(picture(1), "jpeg")]
    pickles = sorted((Path(__file__).parent / "golden").glob("*.pkl"))
    header = save({"w": torch.zeros(2)}, {"format": "restart-sampling/1", "class_name": "EDMPrecond"})
    written = json.dumps(record).encode()
    tiny = (folder / "tiny.safetensors").read_bytes()
    small_pickle = b"\x80\x04}q\0(X\3\0\0\0emaq\1Nu."
    one_announced = struct.pack(">I3I", 2051, 1, 28, 28)
    plans = (b"18 [3,2,0.06,0.30] solver=dpmpp_2m", b"256 churn=32 s_noise=1.003 rho=7", b"9 grid=time gamma=0.4")
    images = idx(np.zeros((3, 28, 28), np.uint8))
    about = labels["dataset.json"]

    def in_folder(path: Path) -> None:
        all_images(path.parent)

    return {
        "pickle": Reader("n.pkl", read_checkpoint, *(path.read_bytes() for path in pickles), small_pickle),
        "safetensors": Reader("n.safetensors", read_checkpoint, tiny, header),
        "npz": Reader("r.npz", load_reference, (folder / "ref.npz").read_bytes(), plain),
        "sums": Reader("k.0.pt", _read, sums),
        "idx": Reader("train-images-idx3-ubyte", all_images, images, one_announced),
        "cifar": Reader("c.tar", all_images, cifar.read_bytes()),
        "zip": Reader("s.zip", all_images, zipped.read_bytes()),
        "tar": Reader("s.tar", all_images, tarred.read_bytes()),
        "image": Reader("data/0.png", in_folder, *pngs),
        "labels": Reader("data/dataset.json", in_folder, about, beside={"data/a/0.png": png(0)}),
        "plan": Reader(None, lambda text: Plan.parse(text).path(), *plans),
        "plans": Reader("p.csv", lambda path: read_rows(str(path)), b"name,plan\na,18\nb,18 [3,2,0.06,0.3]\n"),
        "seeds": Reader(None, parse_seeds, b"0-49", b"1,5,10-19"),
        "results": Reader("results.jsonl", report_of, results),
        "manifest": Reader("out/manifest.json", store_of, manifest, beside={"out/.blocks/000000.json": written}),
        "record": Reader("out/.blocks/000000.json", store_of, written, beside={"out/manifest.json": manifest}),
        "prompts": Reader("s.csv", read_prompts, b',caption\n0,a cat\n1,"a, dog"\n'),
    }


_TOKENS = b'\0 \xff \n " { [ null -1 1e999 NaN 99999999999999999999 \x7f\xff\xff\xff ../'
SPICES = _TOKENS.split(b" ")


def mutated(chance: random.Random, sound: tuple[bytes, ...]) -> bytes:
    """One of the inputs with a few bytes changed, left out, doubled, or put from elsewhere."""
    content = bytearray(chance.choice(sound))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(content) + 1)
        size = chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0 if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                content[at : at + size] = chance.randbytes(size)
            case 2:
                del content[at : at + size]
            case 3:
                content[at:at] = content[at : at + size]
            case 4:
                spice = chance.choice(SPICES)
                content[at : at + chance.choice((0, len(spice)))] = spice
            case _:
                other = chance.choice(sound)
                start = chance.randrange(len(other) + 1)
                content[at : at + size] = other[start : start + size]
    return bytes(content)


class Limits:
    """Ends a reader that hangs, takes memory, or runs code that an audit hook can see."""

    def __enter__(self) -> None:
        self._on = True
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
        signal.signal(signal.SIGALRM, self._hangs)
        signal.alarm(SECONDS)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    def _hangs(self, *_: object) -> None:
        raise TimeoutError(f"it took more than {SECONDS} s")


def forbid_code() -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pty.spawn", "ctypes.dlopen"):
            raise RuntimeError(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)


def check(reader: Reader, content: bytes, folder: Path) -> None:
    """Raises what the reader must not."""
    with Limits(), suppress(InputError):
        reader(content, folder)


def fuzz(names: list[str], inputs: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Feeds each reader mutations; returns how many, and how many broke the promise."""
    outcome = {}
    with tempfile.TemporaryDirectory() as place:
        for name, reader in readers(Path(place)).items():
            if names and name not in names:
                continue
            chance, kinds, start = random.Random(f"{seed} {name}"), set(), time.monotonic()
            for number in range(inputs):
                content = mutated(chance, reader.sound) if number >= len(reader.sound) else reader.sound[number]
                try:
                    check(reader, content, Path(place) / name)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    if (kind := (type(error).__name__, where.filename, where.lineno)) not in kinds:
                        kinds.add(kind)
                        Path(f"{name}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)
                        traceback.print_exc()
            outcome[name] = inputs, len(kinds)
            print(f"{name}: {inputs} inputs in {time.monotonic() - start:.0f} s, {len(kinds)} faults", flush=True)
    return outcome


def guided(name: str, options: list[str]) -> None:
    """Fuzzes with atheris, which ends at the first fault."""
    import atheris

    with tempfile.TemporaryDirectory() as place:
        reader = readers(Path(place))[name]
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        for number, content in enumerate(reader.sound):
            (corpus / str(number)).write_bytes(content)
            check(reader, content, Path(place) / "in")  # so that all that it imports is there
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and (each.__module__ or "").startswith("restart_sampling"):
                atheris.instrument_func(each)
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda content: check(reader, content, Path(place) / "in"))
        atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    asked, options = parser.parse_known_args()
    if options and not asked.atheris:
        parser.error(f"unknown: {' '.join(options)}")
    forbid_code()
    if asked.atheris:
        guided(asked.readers[0], options)
    elif any(faults for _, faults in fuzz(asked.readers, asked.inputs, asked.seed).values()):
        sys.exit(1)
