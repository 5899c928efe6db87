"""Fuzzes the readers of files and texts: nothing but an InputError, no code run, no hang, at most 1 GiB.

    python tests/fuzz.py [READER]... --inputs 100000         mutations of sound inputs, by chance
    python tests/fuzz.py READER --atheris [-max_total_time=600]       guided by coverage, with libFuzzer's options

A reader that breaks its promise leaves the input in the current folder, as READER-SHA256, and its traceback.
"""

import argparse
import copy
import gc
import gzip
import hashlib
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from types import FunctionType, SimpleNamespace
from unittest.mock import patch

sys.path.extend(str(Path(__file__).parent / each) for each in ("", "images", "models"))

import numpy as np
import torch
from edm_files import network, pickled, snapshot, training_state
from foreign_files import adm, edm2, edm2_snapshot, saved, score_sde, state_dict, weights
from hostile_files import BROKEN, RUNNING
from image_files import cifar_batch, encoded, idx, picture, png, write_tar, write_zip
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.comparable import read_sweep
from restart_sampling.comparison.named_plans import read_rows
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.partial_sums import _read
from restart_sampling.evaluation.reference import load_reference
from restart_sampling.generation.seeds import parse_seeds
from restart_sampling.generation.store import BlockStore
from restart_sampling.images.cifar import read_cifar
from restart_sampling.images.coco import draw_captions
from restart_sampling.images.dataset_cards import stated_names
from restart_sampling.images.decode import is_image
from restart_sampling.images.image_set import read_images
from restart_sampling.images.prompts import read_numbered_prompts, read_prompts
from restart_sampling.images.sources import Source, _from_files
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.pictures.page import svg
from restart_sampling.pictures.points import points_of
from restart_sampling.pictures.report import make_report
from restart_sampling.pictures.style import style
from restart_sampling.pictures.tune_report import make_tune_report
from restart_sampling.sampling.plan import Plan
from restart_sampling.text_to_image.samplers import Sampler
from restart_sampling.training.run_folder import RunFolder
from restart_sampling.tuning.run import whole
from restart_sampling.tuning.teacher import KeptGrids
from sweeps import made_up, results_file, tiny_files
from tiny_model import tiny_model_file

SECONDS = 20
BYTES = 2**30
FOUND = Path(__file__).parent / "found"
"""Inputs that broke a reader once, as READER-SHA256."""


SHARE = {"figure": 10, **dict.fromkeys(("page-drawn", "tune-drawn", "tune-map-drawn"), 100)}
"""Readers that draw get an input for so many of the others: those of the same files, "page" and "tune-...", do not."""

WITH_THREADS = {"parquet"}
"""Readers whose library starts threads, which a copy of the process does not have."""


class BrokenPromiseError(BaseException):
    """A reader hangs or runs code; no `except Exception` on the way takes it for a damaged file."""


class Reader:
    """Something that reads untrusted bytes.

    Args:
        name: of the file with them; None: `read` takes text.
        read: takes the path, or the text.
        sound: inputs to begin with.
        beside: files that have to be there, too.
        wrap: makes the file of an input that lies within it, behind a checksum or packed.

    Attributes:
        found: inputs that broke it once.
    """

    def __init__(
        self,
        name: str | None,
        read: Callable,
        *sound: bytes,
        beside: dict[str, bytes] | None = None,
        wrap: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.name, self.read, self.sound, self.beside, self.wrap = name, read, sound, beside or {}, wrap
        self.found: list[bytes] = []

    def __call__(self, content: bytes, folder: Path) -> None:
        if self.name is None:
            self.read(self.wrap(content).decode("latin-1"))
            return
        for name, each in {self.name: self.wrap(content), **self.beside}.items():
            path = f"{folder}/{name}"
            if not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120  (pathlib takes half the time of a reader)
                os.makedirs(os.path.dirname(path))  # noqa: PTH103, PTH120
            with io.FileIO(path, "w") as file:
                file.write(each)
        self.read(folder / self.name)


def all_images(source: Path | Source) -> None:
    """As `batches`, without threads, whose start takes longer than the rest."""
    images = read_images(source, workers=1)
    for start in range(0, len(images), 4):
        images._read(images.indices[start : start + 4])


class Held:
    """Files of a folder or an archive, in memory: no file is written, and no index made, for each input."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.index = files, self
        self.images = sorted(filter(is_image, files))

    def image(self, number: int) -> tuple[str, bytes]:
        return self.images[number], b""

    def find(self, name: str) -> bytes | None:
        return b"" if name in self.files else None

    def others(self) -> Iterator[str]:
        return iter(sorted(self.files.keys() - {*self.images}))

    def read(self, name: str, place: bytes) -> bytes:
        return self.files[name]


def beside(name: str, files: dict[str, bytes], read: Callable[[Held], object]) -> Callable[[str], object]:
    """What reads a file of this name among others."""
    return lambda text: read(Held({**files, name: text.encode("latin-1")}))


def all_held(files: Held) -> None:
    all_images(_from_files(Path("data"), files))


def model_of(path: Path) -> None:
    read_checkpoint(path).build(None)


def folder_of(path: Path) -> None:
    read_checkpoint(path.parents[1])


_TAG = re.compile(r'<(!?[\w/]+)((?:[^"<>]|"[^"<>]*")*)>')
_ATTRIBUTE = re.compile(r'\s([\w:-]+)(?:="[^"]*")?')


def names_in(page: str) -> set[str]:
    """Elements of a page, and attributes with theirs; what is no whole tag stays as it is."""
    for each in ours():
        page = page.replace(each, "", 1)
    names = {f"{tag} {name}" for tag, inside in _TAG.findall(page) for name in _ATTRIBUTE.findall(inside)}
    return names | {tag for tag, _ in _TAG.findall(page)} | {*re.findall("<.{9}", _TAG.sub("", page))}


@cache
def ours() -> list[str]:
    """What every page has, and its template the place of."""
    kinds = {"style": "css", "script": "js"}
    return [f"<{tag}>{part_of_page(f'report.{kind}')}</{tag}>" for tag, kind in kinds.items()]


def part_of_page(name: str) -> str:
    return files("restart_sampling.pictures").joinpath(name).read_text("utf-8")


@cache
def names_of(template: str) -> set[str]:
    """Those that a page may have beside, of its template."""
    text = re.sub(r"<(style|script)>.*?</\1>", "", part_of_page(template))
    return names_in(re.sub(r"(?s)\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", text))


SVG = {"svg", "g", "defs", "path", "use", "clipPath", "rect", "a", "image", "text", "linearGradient", "stop"}
"""What figures have; of their attributes any but those that run something."""


def page_checked(template: str, page: str) -> None:
    """Raises where a page has what is neither in its template nor a figure."""
    for name in names_in(page) - names_of(template):
        tag, _, attribute = name.partition(" ")
        if tag.strip("/") not in SVG or attribute.startswith("on"):
            raise BrokenPromiseError(f"the page has {name}")


def page_of(path: Path) -> None:
    page_checked("report.html", make_report(path.parent, read_sweep(path)))


def rows_of(path: Path) -> None:
    """Without the figures, each of which takes matplotlib as long as a hundred files."""
    with patch("restart_sampling.pictures.report._figures", lambda *_: []):
        page_of(path)
    points_of(read_sweep(path))


def tune_page_of(path: Path) -> None:
    page_checked("tune.html", make_tune_report(path.parent)[1])


def tune_rows_of(path: Path) -> None:
    """Likewise."""
    plots = dict.fromkeys(("plot_map", "plot_trials", "plot_confirmed", "plot_importances"), lambda *_: None)
    with patch.multiple("restart_sampling.pictures.tune_report", svg=lambda *_: "", **plots):
        tune_page_of(path)


def figure_of(text: str) -> None:
    """A text from a file in a figure and in what is said of it."""
    with style():
        figure = Figure((1, 1))
        figure.text(0, 0, text)
        figure.legend(handles=[Line2D([], [], label=text)])
    page_checked("report.html", f"<p>{svg(figure, 'kind', text)}</p>")


def grids_of(path: Path) -> None:
    with whole(path.parent):
        KeptGrids(path, SimpleNamespace(steps=4))["heun"]


def store_of(path: Path, out: str = "") -> None:
    store = BlockStore(path.parent / out, [(0, 1)], {"plan": "2", "seeds": "0-1"})
    store.check(2)
    store.clean()
    for number in range(len(store.blocks)):
        store.intact(number)
    store.finished()


def state_of(path: Path) -> None:
    RunFolder(path.parent).load_state(torch.device("cpu"))


def run_of(path: Path) -> None:
    folder = RunFolder(path.parent)
    folder.check({"images": 1})
    folder.earlier_lengths({"images": 1})


def plan_of(path: Path) -> None:
    Plan.parse(str(path)).path()


def prompts_of(path: Path) -> None:
    with suppress(InputError):
        read_prompts(path)
    read_numbered_prompts(path)


def zip_of(*files: tuple[str, bytes], name: str, content: bytes) -> bytes:
    """A zip with these files, and one more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, inside in (*files, (name, content)):
            archive.writestr(each, inside)
    return buffer.getvalue()


def with_checksums(content: bytes) -> bytes:
    """The chunks of a PNG with their checksums made right."""
    made, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        end = at + 8 + min(int.from_bytes(content[at : at + 4], "big"), len(content) - at - 12)
        made += content[at:end] + zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(made)


def entries(content: bytes) -> list[tuple[str, bytes]]:
    """The files in a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def within(content: bytes, name: str) -> dict:
    """Keywords of a Reader for the file of a zip whose name ends so: it alone is changed."""
    changed = next(each for each, _ in entries(content) if each.endswith(name))
    *files, (last, its) = (file for file in entries(content) if file[0] != changed)
    return {"wrap": partial(with_entry, zip_of(*files, name=last, content=its), changed.encode())}


def with_entry(archive: bytes, name: bytes, content: bytes) -> bytes:
    """A zip with one more file, without reading what it has: that would take longer than what is tested."""
    *_, count, size, start, _ = struct.unpack("<4s4H2IH", archive[-22:])
    about = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name), 0)
    local = b"PK\3\4" + about + name + content
    entry = b"PK\1\2" + struct.pack("<H", 20) + about + struct.pack("<3H2I", 0, 0, 0, 0, start) + name
    directory = archive[start : start + size] + entry
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count + 1, count + 1, len(directory), start + len(local), 0)
    return archive[:start] + local + directory + end


def inner(content: bytes, name: str) -> bytes:
    return next(each for file, each in entries(content) if file.endswith(name))


def tensors(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def arrays(**named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return buffer.getvalue()


def some(tensors: dict) -> dict:
    """A few of them, by which the network is told: all are alike, and the more there are, the longer a pickle takes."""
    modules = "model.dec.8x8_aux_conv.", "model.enc.8x8_block0.norm0."
    modules += "time_embed.0.", "input_blocks.0.0.", "output_blocks.0.0.in_layers.0."
    return {name: tensor for name, tensor in tensors.items() if name.startswith((*modules, "all_modules.0."))}


def saved_adm(tensors: dict) -> bytes:
    return saved(state_dict(tensors))


def saved_sde(tensors: dict) -> bytes:
    return saved({"ema": {"shadow_params": [*tensors.values()]}, "model": state_dict(tensors)})


def models(folder: Path) -> dict[str, Reader]:
    """Readers of networks: those of EDM and PFGM++, and of other projects."""
    small = read_checkpoint(tiny_model_file(folder / "small.safetensors", channel_mult=[1], attn_resolutions=[]))
    numbers = {k: v.numpy() for k, v in small.state.items()}
    tree, few = (snapshot(network("vp_ddpmpp", each, **small.init_kwargs)) for each in (numbers, some(numbers)))
    hostile = [data for data, _ in BROKEN.values()] + [each("touch ran") for each in RUNNING.values()]
    hostile = [data for data in hostile if 0 < len(data) < 20_000]
    states = weights(adm(8, 8, (1,), 1, ())), weights(score_sde(8, 8, (1,), 1, ()))
    foreign, inside = ([saved_adm(each(states[0])), saved_sde(each(states[1]))] for each in (dict, some))
    edm2_file = edm2_snapshot(weights(edm2(8, 3, 0, 8, (1,), 1, ())), img_resolution=8, img_channels=3, label_dim=0)
    state, least = (training_state({"ema": each["ema"], "net": each["ema"]}) for each in (tree, few))
    config = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3}
    scheduler = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000}
    beside = {
        "d/unet/config.json": json.dumps(config).encode(),
        "d/scheduler/scheduler_config.json": json.dumps(scheduler).encode(),
        "d/unet/diffusion_pytorch_model.safetensors": (folder / "small.safetensors").read_bytes(),
    }

    def part(name: str) -> Reader:
        rest = {key: value for key, value in beside.items() if key != name}
        return Reader(name, folder_of, beside[name], beside=rest)

    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": small.metadata})
    tiny = (folder / "small.safetensors").read_bytes()
    return {
        "pickle": Reader("n.pkl", read_checkpoint, pickled(tree), edm2_file, *hostile),
        "opcodes": Reader("n.pkl", read_checkpoint, *hostile),
        "training-state": Reader("n.pt", read_checkpoint, state, *foreign),
        "training-pickle": Reader("n.pt", read_checkpoint, inner(least, "data.pkl"), **within(least, "data.pkl")),
        "adm-pickle": Reader("n.pt", read_checkpoint, inner(inside[0], "data.pkl"), **within(inside[0], "data.pkl")),
        "sde-pickle": Reader("n.pt", read_checkpoint, inner(inside[1], "data.pkl"), **within(inside[1], "data.pkl")),
        "safetensors": Reader("n.safetensors", read_checkpoint, tiny),
        "header": Reader(
            "n.safetensors",
            model_of,
            tiny[8 : 8 + int.from_bytes(tiny[:8], "little")],
            header.encode(),
            wrap=lambda each: len(each).to_bytes(8, "little") + each + tiny[8 + int.from_bytes(tiny[:8], "little") :],
        ),
        "unet": part("d/unet/config.json"),
        "scheduler": part("d/scheduler/scheduler_config.json"),
    }


def sets(folder: Path) -> dict[str, Reader]:
    """Readers of images, their labels and captions."""
    files = {f"{label}/{number}.png": png(number) for number in range(2) for label in "ab"}
    labels = {"dataset.json": json.dumps({"labels": [[name, number] for number, name in enumerate(files)]}).encode()}
    table = b"file_name,label\n" + b"".join(f"{name},{name[0]}\n".encode() for name in files)
    rows = b"".join(json.dumps({"file_name": name, "label": name[0]}).encode() + b"\n" for name in files)
    batch = cifar_batch(np.zeros((2, 3, 32, 32), np.uint8), [1, 2])
    batches = {f"cifar-10-batches-py/data_batch_{number}": batch for number in range(1, 6)}
    pngs = [png(0), encoded(picture(0, mode="L")), encoded(picture(0, mode="RGBA")), encoded(picture(1).quantize(4))]
    forms = [encoded(picture(1), form) for form in ("jpeg", "webp", "bmp", "gif", "ppm", "tiff")]
    shards = write_tar(folder / "w.tar", {"0.png": png(0), "0.cls": b"1", "1.png": png(1), "1.cls": b"0"}).read_bytes()
    images = idx(np.zeros((3, 28, 28), np.uint8))
    one_announced = struct.pack(">I3I", 2051, 1, 28, 28)
    zipped, tarred = write_zip(folder / "s.zip", files | labels), write_tar(folder / "s.tar", files)
    samples = arrays(arr_0=np.zeros((2, 8, 8, 3), np.uint8), arr_1=np.arange(2))
    coco = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)],
        "annotations": [{"image_id": number, "id": number, "caption": "a cat"} for number in range(3)],
    }
    made = {
        "idx": Reader("train-images-idx3-ubyte", all_images, images, one_announced),
        "idx-gz": Reader(
            "train-images-idx3-ubyte.gz",
            all_images,
            images,
            one_announced,
            wrap=partial(gzip.compress, mtime=0, compresslevel=1),
        ),
        "gz": Reader("train-images-idx3-ubyte.gz", all_images, gzip.compress(images)),
        "cifar": Reader(None, beside(next(iter(batches)), batches, lambda files: read_cifar(files, "c.tar")), batch),
        "zip": Reader("s.zip", all_images, zipped.read_bytes()),
        "tar": Reader("s.tar", all_images, tarred.read_bytes(), shards),
        "tar-gz": Reader("s.tar.gz", all_images, gzip.compress(tarred.read_bytes())),
        "samples": Reader("s.npz", all_images, samples),
        "samples-array": Reader("s.npz", all_images, inner(samples, "arr_0.npy"), **within(samples, "arr_0.npy")),
        "image": Reader(None, beside("0.png", {}, all_held), *pngs, *forms),
        "png": Reader(None, beside("0.png", {}, all_held), *pngs, wrap=with_checksums),
        "tga": Reader(
            None, beside("0.tga", {}, all_held), encoded(picture(1), "tga"), encoded(picture(1), "tga", rle=True)
        ),
        "labels": Reader(None, beside("dataset.json", files, all_held), labels["dataset.json"]),
        "metadata-csv": Reader(None, beside("metadata.csv", files, all_held), table),
        "metadata-jsonl": Reader(None, beside("metadata.jsonl", files, all_held), rows),
        "prompts": Reader("s.csv", prompts_of, b',caption\n0,a cat\n1,"a, dog"\n', b"file_name,caption\n0.png,a\n"),
        "prompts-txt": Reader("s.txt", prompts_of, b"a cat\na dog\n"),
        "coco": Reader("c.json", lambda path: draw_captions(path, 2), json.dumps(coco).encode()),
    }
    with suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        rows = [{"bytes": png(number), "path": None} for number in range(2)]
        about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        columns = pyarrow.table({"image": rows, "label": [0, 1]})
        columns = columns.replace_schema_metadata({"huggingface": json.dumps(about)})
        pyarrow.parquet.write_table(columns, folder / "p.parquet")
        bare = columns.replace_schema_metadata({})
        pyarrow.parquet.write_table(bare, folder / "q.parquet")
        card = b"---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        card += b"          '0': cat\n          '1': dog\n---\n"
        made["parquet"] = Reader("p.parquet", all_images, (folder / "p.parquet").read_bytes())
        made["card"] = Reader("data/README.md", lambda path: stated_names(path.with_name("p.parquet"), "label"), card)
    return made


def results(folder: Path) -> dict[str, Reader]:
    """Readers of what the commands write, and of what users write for them."""
    tiny_files(folder)
    reference = arrays(mu=np.zeros(6), sigma=np.eye(6))
    total = {"places": torch.arange(4), "total": torch.zeros(4, 6, dtype=torch.float64)}
    sums, with_sizes = tensors(total), tensors({**total, "sizes": torch.tensor([[8, 8]])})
    state = tensors({"format": "restart-sampling-training/1", "trainer": {"images": 3, "weights": torch.zeros(4)}})
    lines = results_file(*made_up()[:3], name=str(folder / "results.jsonl")).read_bytes()
    manifest = json.dumps({"run": {"plan": "2", "seeds": "0-1"}, "batch": 2, "complete": False}).encode()
    record = {"images": {"000000/000000.png": {"sha256": "0", "label": 0}}, "sha256": "0", "run_sha256": "0"}
    written = json.dumps(record).encode()
    whole = [("000000/000000.png", png(0)), ("000000/000001.png", png(1)), ("dataset.json", b'{"labels": null}')]
    whole += [(".blocks/000000.json", written)]
    images = zip_of(*whole, name="manifest.json", content=manifest)
    plans = (b"18 [3,2,0.06,0.30] solver=dpmpp_2m", b"256 churn=32 s_noise=1.003 rho=7", b"9 grid=time gamma=0.4")
    texts = (b"restart:30 [10,2,0.1,2.0]", b"dpmpp:25 use_karras_sigmas=true", b"ddim:50")
    file = {"format": "restart-sampling-plan/1", "plan": "18 [3,2,0.06,0.3]", "model_sha256": "ab" * 32}
    guided = json.dumps({**file, "guidance": 1.5}).encode()
    sampler = {"format": "restart-sampling-sampler/1", "plan": texts[0].decode(), "model_sha256": "ab" * 32}
    sampler["guidance"] = 7.5
    toml = b'[[row]]\nplan = "18"\n[[row]]\nname = "b"\nplan = "18 [3,2,0.06,0.3]"\n'
    train = json.dumps({"format": "restart-sampling-training/1", "run": {"images": 1}, "extended_from": [1]}).encode()
    detector = (folder / "tiny.pt").read_bytes()
    return {
        "npz": Reader("r.npz", load_reference, (folder / "ref.npz").read_bytes(), reference),
        "npz-array": Reader("r.npz", load_reference, inner(reference, "mu.npy"), **within(reference, "mu.npy")),
        "sums": Reader("k.0.pt", _read, sums, with_sizes),
        "sums-pickle": Reader("k.0.pt", _read, inner(with_sizes, "data.pkl"), **within(with_sizes, "data.pkl")),
        "state": Reader("run/state.pt", state_of, state),
        "state-pickle": Reader("run/state.pt", state_of, inner(state, "data.pkl"), **within(state, "data.pkl")),
        "train-run": Reader("run/run.json", run_of, train),
        "plan": Reader(None, lambda text: Plan.parse(text).path(), *plans),
        "plan-file": Reader("plan.json", plan_of, json.dumps(file).encode(), guided),
        "sampler-file": Reader("sampler.json", lambda path: Sampler.parse(str(path)), json.dumps(sampler).encode()),
        "plans": Reader("p.csv", lambda path: read_rows(str(path)), b'name,plan\na,18\nb,"18 [3,2,0.06,0.3]"\n'),
        "plans-toml": Reader("p.toml", lambda path: read_rows(str(path)), toml),
        "plans-txt": Reader("p.txt", lambda path: read_rows(str(path)), b"18\n# a word\n18 [3,2,0.06,0.3]\n"),
        "seeds": Reader(None, parse_seeds, b"0-49", b"1,5,10-19"),
        "sampler": Reader(None, Sampler.parse, *texts),
        "detector": Reader("d.pt", lambda path: load_detector(str(path)), detector),
        "page": Reader("results.jsonl", rows_of, lines),
        "page-drawn": Reader("results.jsonl", page_of, lines),
        "figure": Reader(None, figure_of, b"18 [3,2,0.06,0.3]", b"ODE $t_\\mathrm{min}$ <b>"),
        "manifest": Reader("out/manifest.json", store_of, manifest, beside={"out/.blocks/000000.json": written}),
        "record": Reader("out/.blocks/000000.json", store_of, written, beside={"out/manifest.json": manifest}),
        "images-zip": Reader("out.zip", partial(store_of, out="out.zip"), images),
        **tuned(),
    }


def tuned() -> dict[str, Reader]:
    """Readers of the folder of a run of tune."""
    cost = {"importances": {"solver": 0.7, "grid": 0.3}, "evaluations": 1000, "seconds": 1.5, "trials": 2}
    usual, found = "10", "8 [3,2,0.3,1.1]"
    scores = {
        plan: {"tiny.pt": {"values": [value] * 3, "without": [[value, value + 0.1]] * 3}}
        for plan, value in ((usual, 0.5), (found, 0.4))
    }
    evidence = {"verdict": "`so`", "usual": usual, "better": True, "scores": scores, "cost": cost}
    evidence["gain"] = {"tiny.pt": {"relative": -0.2}}
    about = {"nfe": 19, "model": "tiny", "device": "1 x cpu"}
    plan = {"format": "restart-sampling-plan/1", "plan": found, **about, "evidence": evidence}
    grid = {"format": "restart-sampling-plan/1", "plan": usual, **about, "evidence": {"verdict": "`so`"}}
    texts = {
        "scores": dict(zip(("ddim:5", "restart:5 [3,2,0.1,2.0]"), scores.values(), strict=True)),
        "usual": "ddim:5",
    }
    pipeline = {
        **plan,
        "format": "restart-sampling-sampler/1",
        "plan": "ddim:5",
        "evidence": {**evidence, "usual": "ddim:5", "scores": texts},
    }
    measured = [
        {
            **{"plan": each, "seeds": [0, 250], "blocks": 1, "groups": 0, "confirm": False, "stage": stage, "nfe": 19},
            **{"scores": {"tiny.pt": {"values": [0.5], "without": []}}, "error": "", "seconds": 1.5},
        }
        for each, stage in (("10", "usual"), (found, "search"), ("9 churn=1", "search"))
    ]
    cells = [{"t_min": 0.1 * n, "t_max": 1.0 * n, "gain": 0.1, "error": 0.01} for n in (1, 2, 3)]
    drift = [{"level": 0.1 * n, "value": 0.1, "floor": 0.01} for n in (3, 2, 1)]
    passes = [{"t_min": 0.1 * n, "t_max": 1.0 * n, "value": 0.05} for n in (2, 1)]
    run = {"format": "restart-sampling-tune/1", "model": "tiny", "device": "1 x cpu", "versions": {}}
    sound = {
        "run.json": [run],
        "plan-19.json": [plan, grid, pipeline],
        "map.json": [{"base": "18", "cells": cells}, {"base": "18", "cells": cells, "drift": drift, "passes": passes}],
    }
    content = {f"tune/{name}": [json.dumps(each).encode() for each in several] for name, several in sound.items()}
    content["tune/measured.jsonl"] = [b"".join(json.dumps(each).encode() + b"\n" for each in measured)]

    def part(name: str, read: Callable) -> Reader:
        return Reader(name, read, *content[name], beside={key: each[0] for key, each in content.items() if key != name})

    made = {f"tune-{re.split('[/.-]', name)[1]}": part(name, tune_rows_of) for name in content}
    levels = {"steps": 4, "grids": {"heun": {"2": [80.0, 1.0, 0.0], "3": [80.0, 9.0, 1.0, 0.0]}}}
    logs = [{"op_code": 0, "study_name": "NFE 20", "directions": [1]}, {"op_code": 6, "trial_id": 0, "state": 0}]
    logs.append({"op_code": 4, "study_id": 0, "state": 4, "params": {}})
    journal = b"".join(json.dumps({"worker_id": "a-1", **each}).encode() + b"\n" for each in logs)
    return {
        **made,
        "tune-drawn": part("tune/plan-19.json", tune_page_of),
        "tune-map-drawn": part("tune/map.json", tune_page_of),
        "tune-levels": Reader("tune/levels.json", grids_of, json.dumps(levels).encode()),
        **journals(journal),
    }


def journals(sound: bytes) -> dict[str, Reader]:
    """The reader of Optuna's trials, where it is there."""
    try:
        from restart_sampling.tuning.journal import remove_begun
    except ImportError:
        return {}

    def read(path: Path) -> None:
        with whole(path.parent):
            remove_begun(path)

    return {"tune-journal": Reader("tune/trials.journal", read, sound)}


def readers(folder: Path) -> dict[str, Reader]:
    made = {**models(folder), **sets(folder), **results(folder)}
    for path in sorted(FOUND.iterdir()):
        made[path.name.rpartition("-")[0]].found.append(path.read_bytes())
    return made


_TOKENS = b'\0 \xff \n \r\n " { [ null -1 1e999 NaN 99999999999999999999 \x7f\xff\xff\xff ../ \xef\xbb\xbf'
SPICES = [*_TOKENS.split(b" "), b"<script>", b'" onload="x', b"--><img src=x onerror=x>", b"$\\frac{$"]
ODD = (None, True, -1, 0, 1.5, 10**30, 10**400, 1e308, float("inf"), float("nan"), "", "x", "1e999", "\ud800")
ODD += ("$\\frac{$", "<script>x</script>", '" onload="x', "x" * 3000, [], [[]], {}, {"a": None})
DEEP = 3000
RAW = (
    "-Infinity",
    "1e400",
    "-0",
    "9" * 5000,
    "0." + "1" * 5000,
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
)
"""What stands in JSON, but is not what Python writes."""


def mutated(chance: random.Random, sound: tuple[bytes, ...]) -> bytes:
    """One of the inputs with a few bytes changed, left out, doubled, or put from elsewhere; or with other JSON."""
    first = chance.choice(sound)
    if first.lstrip()[:1] in (b"{", b"[") and chance.randrange(2):
        with suppress(ValueError, RecursionError):
            return other_json(chance, first)
    content = bytearray(first)
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


_MARK = "a mark"


def other_json(chance: random.Random, content: bytes) -> bytes:
    """The JSON of a line with a few values of it replaced, left out or put elsewhere."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = chance.randrange(len(lines))
    value = json.loads(lines[number])
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(4):
            case 0:
                del holder[key]
            case 1:
                there, other = chance.choice(places)
                with suppress(LookupError):
                    holder[key] = json.loads(json.dumps(there[other]))
            case 2 if chance.randrange(2):
                holder[_MARK if isinstance(holder, dict) and chance.randrange(2) else key] = _MARK
            case _:
                holder[key] = copy.deepcopy(chance.choice(ODD))  # which a later change may change
    text = json.dumps(value, ensure_ascii=chance.randrange(2) == 0)
    keys = [key for holder, key in places if isinstance(holder, dict)] or [""]
    text = text.replace(f"{json.dumps(_MARK)}: ", f"{json.dumps(chance.choice(keys))}: ")
    lines[number] = text.replace(json.dumps(_MARK), chance.choice(RAW)).encode(errors="surrogatepass")
    made = chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(lines)
    return chance.choice((b"", b"", b"", b"", b"", b"\xef\xbb\xbf")) + made


def _places(value: object) -> Iterator[tuple]:
    """Every place in a JSON value, as what holds it and its key or index."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield value, key
        yield from _places(each)


class Limits:
    """Ends a reader that hangs or takes memory."""

    def __enter__(self) -> None:
        with io.FileIO("/proc/self/statm") as file:
            used = int(file.read(32).split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
        signal.signal(signal.SIGALRM, self._hangs)
        signal.alarm(SECONDS)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    def _hangs(self, *_: object) -> None:
        raise BrokenPromiseError(f"it took more than {SECONDS} s")


def forbid_code() -> None:
    """Makes the start of a program, and of code from a library, an exception that nothing catches."""
    forbidden = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "ctypes.dlopen"}

    def hook(event: str, arguments: tuple) -> None:
        if event in forbidden:
            raise BrokenPromiseError(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)


def check(reader: Reader, content: bytes, folder: Path) -> None:
    """Raises what the reader must not."""
    with Limits():
        try:
            reader(content, folder)
        except InputError as error:
            cause: BaseException | None = error
            while cause is not None:  # a refusal that says 'damaged' of a file that took all the memory
                if isinstance(cause, MemoryError):
                    raise cause from error
                cause = cause.__cause__ or cause.__context__


@dataclass
class Outcome:
    """What became of a reader.

    Attributes:
        inputs: so many were read.
        seconds: they took.
        faults: the inputs that broke the promise, the first of each kind, with the traceback.
    """

    inputs: int
    seconds: float
    faults: list[tuple[bytes, str]]


def fuzz(
    name: str, reader: Reader, folder: Path, *, inputs: int, seed: int = 0, until: float = float("inf")
) -> Outcome:
    """Feeds a reader its sound inputs, what broke it, and mutations; so many, or up to this moment of `monotonic`."""
    warnings.simplefilter("ignore")
    chance, kinds, start = random.Random(f"{seed} {name}"), {}, time.monotonic()
    number, known = 0, [*reader.sound, *reader.found]
    while number < inputs and time.monotonic() < until:
        content = known[number] if number < len(known) else mutated(chance, reader.sound)
        number += 1
        try:
            check(reader, content, folder)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kinds.setdefault((type(error), where.filename, where.lineno), (content, traceback.format_exc()))
    return Outcome(number, time.monotonic() - start, list(kinds.values()))


def keep(name: str, content: bytes, folder: Path) -> Path:
    """Writes an input that broke a reader; returns where it is."""
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    return path


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
        forbid_code()
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda content: check(reader, content, Path(place) / "in"))
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    asked, options = parser.parse_known_args()
    if options and not asked.atheris:
        parser.error(f"unknown: {' '.join(options)}")
    if asked.atheris:
        guided(asked.readers[0], options)
        return
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        every = readers(Path(place))
        forbid_code()
        for name in asked.readers or every:
            outcome = fuzz(name, every[name], Path(place) / name, inputs=asked.inputs, seed=asked.seed)
            for content, reason in outcome.faults:
                print(keep(name, content, Path()), reason, sep="\n")
            print(
                f"{name}: {outcome.inputs} inputs in {outcome.seconds:.0f} s, {len(outcome.faults)} faults", flush=True
            )
            faults += len(outcome.faults)
    sys.exit(min(faults, 1))


if __name__ == "__main__":
    main()
