"""The files of version 0.1.0 in `files`: the commands that made them, and how results are compared with them.

Commands take the folder that the files are in. They were made with relative paths and are taken up with absolute ones,
so that a key with a path in it is noticed. All of them name the CPU: elsewhere the arithmetic is another, and so is the
run.
"""

import hashlib
import io
import json
import platform
import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import restart_sampling as rs

FILES = Path(__file__).with_name("files")

PACKED = ".packed.zip"
"""Folders of which much is padding and headers are packed, so that they stay small."""

MODELS = ("edm", "vp", "ve", "iddpm", "pfgmpp")
SEEDS, BATCH = 10, 4
RESTARTS = "6 [3,2,0.3,3]"


def generate(place: Path, out: Path, *more: str) -> list[str]:
    return words(
        *("generate", "--model", place / "models/edm.safetensors", "--plan", RESTARTS, "--seeds", f"0-{SEEDS - 1}"),
        *("--batch", BATCH, "--guidance", 1.5, "--device", "cpu", "--out", out, "--json", *more),
    )


PLANS = "4", RESTARTS
"""Of `evaluate`: the first has its line, the second was killed on the way."""
EVALUATIONS = {"features": ("--metrics", "fd,kid,pr"), "blocks": ("--blocks", "3")}


def evaluate(place: Path, plan: str, results: Path, *more: str, reference: str = "reference.npz") -> list[str]:
    return words(
        *("evaluate", "--model", place / "models/edm.safetensors", "--plan", plan, "--seeds", "0-29"),
        *(
            "--batch",
            BATCH,
            "--reference",
            place / "figures" / reference,
            "--detector",
            place / "figures/tiny.pt",
            "--trust-detector",
        ),
        *("--device", "cpu", "--results", results, "--json", *more),
    )


def sweep(place: Path, out: Path) -> list[str]:
    """Of two files of plans; the first two of five rows are finished, and the third was killed on the way."""
    return words(
        *("sweep", "--model", place / "models/edm.safetensors", "--plans", place / "sweep/plans.txt"),
        *("--plans", place / "sweep/plans.toml", "--plans", place / "sweep/plans.csv"),
        *("--reference", place / "figures/reference.npz", "--detector", place / "figures/tiny.pt", "--trust-detector"),
        *("--images", 12, "--batch", BATCH, "--device", "cpu", "--out", out, "--json"),
    )


def train(place: Path, out: Path, *more: str) -> list[str]:
    return words(
        *("train", place / "figures/data.zip", "--out", out, "--parametrization", "edm", "--cond", "--images", 96),
        *("--batch", 8, "--lr", 0.01, "--channels", 4, "--channel-mult", 1, "--blocks", 1, "--attention", "none"),
        *("--device", "cpu", "--json", *more),
    )


def text_generate(place: Path, out: Path) -> list[str]:
    return words(
        *("text", "generate", "--model", place / "text/sd", "--prompts", place / "text/prompts.csv", "--images", 6),
        *("--scheduler", "restart [3,2,0.5,2.0]", "--steps", 5, "--guidance", 2, "--batch", 2),
        *("--device", "cpu", "--out", out, "--json"),
    )


def text_compare(place: Path, out: Path) -> list[str]:
    """The first of three rows is finished, and the second was killed after the first of five blocks."""
    return words(
        *("text", "compare", "--model", place / "text/sd", "--prompts", place / "text/prompts.csv"),
        *("--reference", place / "figures/reference.npz", "--detector", place / "figures/tiny.pt", "--trust-detector"),
        *("--metrics", "fd,clip", "--clip", place / "text/clip", "--guidance", 2, "--batch", BATCH),
        *("--sampler", "ddim:2", "--sampler", "ddpm:2", "--sampler", "restart:3 [2,1,0.5,2.0]"),
        *("--device", "cpu", "--out", out, "--json"),
    )


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def take(name: str, place: Path) -> None:
    """Copies a file or a folder, which may be packed, to a place where commands may go on with it."""
    source, packed, target = FILES / name, FILES / f"{name}{PACKED}", place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(target)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def expected(name: str) -> dict:
    return json.loads((FILES / f"{name}.json").read_text())


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images(out: Path) -> dict[str, bytes]:
    """PNG files of a folder or a zip, by their names."""
    if out.suffix != ".zip":
        return {name: content for name, content in tree(out).items() if name.endswith(".png")}
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".png")}


def check_images(found: Path, recorded: Path, undisturbed: Path) -> None:
    """Images that are as they were when version 0.1.0 made them.

    A convolution in float32 rounds as the kernels of the CPU do, so other machines may differ from the recorded images,
    by one grey level. A machine that makes the recorded bytes without an interruption has to make them with one, too.
    """
    made, old, here = images(found), images(recorded), images(undisturbed)
    assert made.keys() == old.keys() == here.keys()
    for name in old:
        difference = np.abs(pixels(made[name]) - pixels(old[name]))
        assert difference.max() <= 1, name
    if here == old:
        assert made == old


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.int16)


def without(content: dict, *names: str) -> dict:
    return {key: value for key, value in content.items() if key not in names}


def versions(*more: str) -> dict[str, str]:
    """What results say of the packages that made them, of those that are installed here."""
    return {
        "restart-sampling": rs.__version__,
        **{name: version(name) for name in ("torch", "numpy", "pillow", *more)},
        "python": platform.python_version(),
    }


def sums_key(about: dict) -> str:
    """The name of the saved sums of an unfinished figure, which version 0.1.0 made so."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def rename_sums(folder: Path, about: dict) -> None:
    """Gives saved sums the name that they would have if the packages of this machine had made them.

    The versions of the packages are a part of the name, so that sums of other versions are left alone. All other parts
    are as they were.
    """
    old, new = sums_key(about), sums_key({**about, "versions": versions()})
    files = list(folder.glob(f"{old}.*.pt"))
    assert files
    for file in files:
        file.rename(file.with_name(file.name.replace(old, new)))


def check_row(found: dict, recorded: dict) -> None:
    """A line of a results file that says what the recorded one says, but for paths, times and this machine.

    Where the pixels are the recorded ones, only the detector and the sums round differently on another machine; a few
    pixels may differ there, by one grey level, and then the figures move a little more.
    """
    own = ("schema", "seconds", "time", "device", "versions", "drawn", "model", "detector_name", "pixels_sha256")
    errors = [f"{key}_error" for key in ("precision", "recall", "frechet_distance_infinity")]  # now estimated otherwise
    errors += ["frechet_distance_error"] * (found.get("blocks", 1) > 1)
    assert all(found[key] > 0 or found[key] == recorded[key] for key in errors if key in recorded)  # or there before
    recorded_about = without(recorded, *own, *errors)
    assert found.keys() >= recorded_about.keys()  # a later version may say more
    found_about = {key: found[key] for key in recorded_about}
    same = found["pixels_sha256"] == recorded["pixels_sha256"]
    _check_close("row", _unplaced(found_about), _unplaced(recorded_about), 1e-5 if same else 2e-3)


def _unplaced(row: dict) -> dict:
    """Without the paths of the files."""
    clip = {"clip": without(row["clip"], "model")} if "clip" in row else {}
    return {**without(row, "prompts"), "reference": without(row["reference"], "path"), **clip}


def _check_close(name: str, found: object, recorded: object, tolerance: float) -> None:
    if isinstance(recorded, dict):
        assert isinstance(found, dict), name
        assert found.keys() == recorded.keys(), name
        for key in recorded:
            _check_close(f"{name}.{key}", found[key], recorded[key], tolerance)
    elif isinstance(recorded, list):
        assert isinstance(found, list), name
        assert len(found) == len(recorded), name
        for place, (one, other) in enumerate(zip(found, recorded, strict=True)):
            _check_close(f"{name}[{place}]", one, other, tolerance)
    elif isinstance(recorded, float):
        assert isinstance(found, float | int), name
        assert abs(found - recorded) <= tolerance * max(abs(recorded), 0.1), f"{name}: {found}, and was {recorded}"
    else:
        assert found == recorded, name


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures(path: Path) -> list[dict]:
    """The lines of a results file."""
    found = lines(path)
    assert {line["schema"] for line in found} == {"restart-sampling-results/1"}
    return found
