"""Folders and zips: layout, lossless images, nothing half-written, nothing of another run destroyed."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from restart_sampling.errors import InputError
from restart_sampling.images.writers import check_destination, encode_png, image_name, open_writer

RUN = {"plan": "18", "seeds": "0-1"}
MANIFEST = {"format": "restart-sampling-images/1", "run": RUN}


def image(seed, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (channels, 5, 4), dtype=np.uint8)


def write(out, labels=(3, 1), seeds=(0, 123456)):
    with open_writer(out, MANIFEST) as writer:
        for seed, label in zip(seeds, labels, strict=True):
            writer.write(seed, image(seed), label)


def test_names_are_a_thousand_a_folder():
    assert image_name(123) == "000000/000123.png"
    assert image_name(49_999) == "049000/049999.png"
    assert image_name(12_345_678) == "12345000/12345678.png"


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(channels, tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(encode_png(image(1, channels)))
    with Image.open(file) as opened:
        read = np.atleast_3d(np.asarray(opened)).transpose(2, 0, 1)
    assert np.array_equal(read, image(1, channels))


@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_folder_and_zip_hold_the_same(name, tmp_path):
    out = tmp_path / name
    write(out)
    if out.suffix == ".zip":
        with zipfile.ZipFile(out) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            archive.extractall(tmp_path / "unzipped")
        out = tmp_path / "unzipped"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"000000/000000.png", "123000/123456.png", "dataset.json", "manifest.json"}
    assert json.loads((out / "dataset.json").read_text()) == {
        "labels": [["000000/000000.png", 3], ["123000/123456.png", 1]]
    }
    assert json.loads((out / "manifest.json").read_text()) == {**MANIFEST, "complete": True}
    with Image.open(out / "123000/123456.png") as opened:
        assert np.array_equal(np.asarray(opened).transpose(2, 0, 1), image(123456))


def test_without_labels_the_dataset_has_none(tmp_path):
    write(tmp_path / "images", labels=(None, None))
    assert json.loads((tmp_path / "images" / "dataset.json").read_text()) == {"labels": None}


def test_the_same_images_make_the_same_zip(tmp_path):
    write(tmp_path / "a.zip")
    write(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def interrupted(out):
    with pytest.raises(KeyboardInterrupt), open_writer(out, MANIFEST) as writer:  # noqa: PT012
        writer.write(0, image(0), None)
        raise KeyboardInterrupt


def test_an_interrupted_zip_leaves_nothing(tmp_path):
    interrupted(tmp_path / "images.zip")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_folder_says_that_it_is_not_complete(tmp_path):
    out = tmp_path / "images"
    interrupted(out)
    assert json.loads((out / "manifest.json").read_text())["complete"] is False
    check_destination(out, RUN)
    write(out)
    assert json.loads((out / "manifest.json").read_text())["complete"] is True


@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_another_run_is_refused_with_what_differs(name, tmp_path):
    out = tmp_path / name
    check_destination(out, RUN)
    write(out)
    check_destination(out, RUN)
    with pytest.raises(InputError, match='another run, with plan "18", not "20"'):
        check_destination(out, {**RUN, "plan": "20"})


def test_what_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "file.zip").write_text("precious")
    for name in ("full", "file", "file.zip"):
        with pytest.raises(InputError, match="is not a run of generate"):
            check_destination(tmp_path / name, RUN)
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty", RUN)
