"""The files of version 0.1.0 in `files`: the commands that made them, and how results are compared with them.

Commands take the folder that the files are in. They were made with relative paths and are taken up with absolute ones,
so that a key with a path in it is noticed. All of them name the CPU: elsewhere the arithmetic is another, and so is the
run.
"""

import hashlib
import io
import json
import platform
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import restart_sampling as rs

FILES = Path(__file__).with_name("files")

MODELS = ("edm", "vp", "ve", "iddpm", "pfgmpp")
SEEDS, BATCH = 10, 4
RESTARTS = "6 [3,2,0.3,3]"


def generate(place: Path, out: Path, *more: str) -> list[str]:
    return words(
        *("generate", "--model", place / "models/edm.safetensors", "--plan", RESTARTS, "--seeds", f"0-{SEEDS - 1}"),
        *("--batch", BATCH, "--guidance", 1.5, "--device", "cpu", "--out", out, "--json", *more),
    )


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


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
