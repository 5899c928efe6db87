"""The command dataset, as users meet it."""

import io
import json
import os
import signal
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from copies import start, wait_for
from restart_sampling.images.image_set import read_images

SHARED = Path(os.environ.get("RESTART_SAMPLING_SHARED", "../shared"))


@pytest.fixture
def run(run):
    return partial(run, "dataset")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for place in range(6):
        path = tmp_path / "in" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def test_a_folder_becomes_a_zip(run, folder, tmp_path):
    out = tmp_path / "new" / "out.zip"
    code, stdout, stderr = run(folder, out, "--resolution", "16x16", "--transform", "center-crop", "--json")
    assert code == 0
    result = json.loads(stdout)
    assert result.pop("seconds") > 0
    assert result == {"images": 6, "skipped": 0, "classes": 2, "shape": [3, 16, 16], "out": str(out)}
    assert "6 images, 2 classes" in stderr
    assert "16x16, RGB" in stderr
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == 7
        with Image.open(io.BytesIO(archive.read("00000/img00000005.png"))) as image:
            assert (image.size, image.mode) == ((16, 16), "RGB")


def test_a_folder_becomes_a_folder_of_the_first_images(run, folder, tmp_path):
    code, _, err = run(folder, tmp_path / "out", "--resolution", "8,8", "--max-images", 2, "--workers", 1)
    assert code == 0
    assert "2 of 8x8, RGB, of 1 class, for they are the first by name" in err
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "dataset.json",
        "img00000000.png",
        "img00000001.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "squares; set a square --resolution"),
        (["--resolution", "16"], "--resolution 16: give width and height, such as 64x64"),
        (["--resolution", "0x0"], "--resolution 0x0: give width"),
        (["--resolution", "15x15"], "--resolution 15x15 gives images of 15x15, and the side has to be a power of two"),
        (["--transform", "center-crop"], "--transform center-crop needs a --resolution"),
        (["--transform", "crop"], "'crop' is not one of 'center-crop', 'center-crop-wide'"),
        (["--max-images", "0"], "0 is not in the range x>=1"),
        (["--workers", "0"], "0 is not in the range x>=1"),
    ],
)
def test_bad_options_end_in_one_sentence(arguments, message, run, folder, tmp_path):
    code, stdout, stderr = run(folder, tmp_path / "out.zip", *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("restart-sampling: ")
    assert message in stderr
    assert len(stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_bad_places_end_in_one_sentence(run, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.zip").write_text("")
    for source, out, message in (
        (tmp_path / "missing", tmp_path / "out.zip", "missing cannot be opened"),
        (tmp_path / "empty", tmp_path / "out.zip", "empty holds no images"),
        (folder, tmp_path / "there.zip", "there.zip exists"),
    ):
        code, _, stderr = run(source, out, "--resolution", "8x8")
        assert code == 2
        assert message in stderr
        assert len(stderr.splitlines()) == 1


def partial_files(folder):
    """Of a partial zip or folder of images: itself, or the images."""
    return [*folder.glob(".out*.partial/**/*.png"), *(path for path in folder.glob(".out*.partial") if path.is_file())]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("out", ["out.zip", "out"])
def test_ctrl_c_leaves_nothing(out, tmp_path, monkeypatch):
    image = io.BytesIO()
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(image, "png")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}.png", image.getvalue())
    monkeypatch.chdir(tmp_path)
    process = start("-m", "restart_sampling", "dataset", "in.zip", out, "--workers", "2", "--resolution", "128x128")
    # The workers have made images, and are far from the last.
    wait_for(lambda: any(path.stat().st_size > 1000 for path in partial_files(tmp_path)), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "restart-sampling: interrupted"
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]


@pytest.mark.slow
def test_the_shared_test_set_becomes_a_zip(run, tmp_path):
    archive = SHARED / "data" / "cifar10-test.tar.xz"
    if not archive.exists():
        pytest.skip(f"{archive} is not here; RESTART_SAMPLING_SHARED names the folder that has data/")
    code, stdout, _ = run(archive, tmp_path / "test.zip", "--json")
    assert code == 0
    assert {**json.loads(stdout), "seconds": 0, "out": ""} == {
        "images": 10_000,
        "skipped": 0,
        "classes": 10,
        "shape": [3, 32, 32],
        "seconds": 0,
        "out": "",
    }
    images = read_images(tmp_path / "test.zip")
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert (images.lossy, read_images(archive).lossy) == (False, True)
    assert all(map(np.array_equal, images, read_images(archive)))
