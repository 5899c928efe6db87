"""Folders and zips of blocks: layout, lossless images, nothing half-written, nothing of another run destroyed."""

import json
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import atomic
from restart_sampling.generation.store import BlockStore
from restart_sampling.images.writers import encode_png, image_name

RUN = {"plan": "18", "seeds": "0-1"}
MANIFEST = {"format": "restart-sampling-images/1", "run": RUN, "batch": 2}
BLOCKS = ((0, 123456), (7,))


def image(seed, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (channels, 5, 4), dtype=np.uint8)


def write(out, labels=((3, 1), (4,)), order=(0, 1)):
    store = BlockStore(out, BLOCKS, RUN)
    store.check(2)
    store.clean()
    store.start(MANIFEST)
    with ThreadPoolExecutor(2) as threads:
        for number in order:
            store.write(number, [image(seed) for seed in BLOCKS[number]], labels[number], threads)
    if len(order) == len(BLOCKS):
        store.finish(MANIFEST)


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
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.parent.name != ".blocks"}
    names = ["000000/000000.png", "123000/123456.png", "000000/000007.png"]
    assert files == {*names, "dataset.json", "manifest.json"}
    assert json.loads((out / "dataset.json").read_text()) == {"labels": [[names[0], 3], [names[1], 1], [names[2], 4]]}
    assert json.loads((out / "manifest.json").read_text()) == {**MANIFEST, "complete": True}
    with Image.open(out / "123000/123456.png") as opened:
        assert np.array_equal(np.asarray(opened).transpose(2, 0, 1), image(123456))


def test_without_labels_the_dataset_has_none(tmp_path):
    write(tmp_path / "images", labels=((None, None), (None,)))
    assert json.loads((tmp_path / "images" / "dataset.json").read_text()) == {"labels": None}


def test_the_same_images_make_the_same_zip_in_whatever_order_they_come(tmp_path):
    write(tmp_path / "a.zip")
    write(tmp_path / "b.zip", order=(1, 0))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_unfinished_zip_is_only_its_blocks(tmp_path):
    out = tmp_path / "images.zip"
    write(out, order=(1,))
    assert {path.name for path in tmp_path.iterdir()} == {"images.zip.blocks"}
    assert {path.name for path in (tmp_path / "images.zip.blocks").iterdir()} == {
        "manifest.json",
        ".blocks",
        "000000",
    }
    assert [BlockStore(out, BLOCKS, RUN).intact(number) for number in (0, 1)] == [False, True]
    write(out)
    assert {path.name for path in tmp_path.iterdir()} == {"images.zip"}


def as_version_0_1_0(work):
    """An unfinished zip as that version kept it: a small zip a block."""
    for record in (work / ".blocks").iterdir():
        content = json.loads(record.read_text())
        with zipfile.ZipFile(work / f"{record.stem}.zip", "w") as archive:
            for name in content["images"]:
                archive.writestr(name, (work / name).read_bytes())
            archive.writestr("record.json", record.read_text())
    shutil.rmtree(work / ".blocks")
    for folder in work.glob("*000"):
        shutil.rmtree(folder)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_unfinished_zip_of_version_0_1_0_is_taken_up(damaged, tmp_path):
    out, work = tmp_path / "images.zip", tmp_path / "images.zip.blocks"
    write(out, order=(0,))
    as_version_0_1_0(work)
    assert {path.name for path in work.iterdir()} == {"manifest.json", "000000.zip"}
    with pytest.raises(InputError, match="made with --batch 2, not 3"):
        BlockStore(out, BLOCKS, RUN).check(3)
    if damaged:
        os.truncate(work / "000000.zip", 50)
    store = BlockStore(out, BLOCKS, RUN)
    store.check(2)
    store.clean()
    assert [store.intact(number) for number in (0, 1)] == [not damaged, False]
    assert not list(work.glob("*.zip"))
    write(out, order=(0, 1) if damaged else (1, 0))
    write(tmp_path / "undisturbed.zip")
    assert out.read_bytes() == (tmp_path / "undisturbed.zip").read_bytes()


def rewrite(path, change):
    """A zip with the entries that `change` makes of its own; all checksums are right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def without_records(entries):
    for name in [name for name in entries if name.startswith(".blocks/")]:
        del entries[name]


CHANGES = {
    "none": (lambda entries: None, True),
    "replaced": (lambda entries: entries.update({"000000/000007.png": encode_png(image(8))}), False),
    "removed": (lambda entries: entries.pop("000000/000007.png"), False),
    "added": (lambda entries: entries.update({"000000/000008.png": encode_png(image(8))}), False),
    "a label": (lambda entries: entries.update({"dataset.json": b'{"labels": null}'}), False),
    "a record removed": (lambda entries: entries.pop(".blocks/000001.json"), False),
    "version 0.1.0": (without_records, True),
    "version 0.1.0, removed": (lambda entries: (without_records(entries), entries.pop("000000/000007.png")), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_zip_is_checked_against_its_records(change, tmp_path):
    out = tmp_path / "images.zip"
    write(out)
    make, intact = CHANGES[change]
    rewrite(out, make)
    store = BlockStore(out, BLOCKS, RUN)
    store.check(2)
    assert [store.intact(number) for number in (0, 1)] == [intact] * 2
    assert store.finished() is intact


def test_an_unfinished_folder_says_that_it_is_not_complete(tmp_path):
    out = tmp_path / "images"
    write(out, order=(1,))
    assert json.loads((out / "manifest.json").read_text())["complete"] is False
    write(out)
    assert json.loads((out / "manifest.json").read_text())["complete"] is True


@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_what_a_killed_process_left_is_removed(name, tmp_path):
    out = tmp_path / name
    write(out, order=(0,))
    folder = out if name == "images" else tmp_path / "images.zip.blocks"
    inside = ["manifest.json", "dataset.json", ".blocks/000001.json", "000000/000003.png"]
    beside = [] if name == "images" else ["images.zip", "images.zip.blocks", "images.zip.blocks/000001.zip"]
    left = [*(temporary(folder / each) for each in inside), *(temporary(tmp_path / each) for each in beside)]
    others = [
        tmp_path / "thesis.tex",
        tmp_path / "images.zip2",
        tmp_path / "images",
        folder / "ref.npz",
        folder / "a.zip",
    ]
    others = [*map(temporary, others), folder / ".manifest.json.backup.partial"]
    for path in (*left, *others):
        path.write_text("half")
    BlockStore(out, BLOCKS, RUN).clean()
    assert [path for path in left if path.exists()] == []
    assert [path for path in others if not path.exists()] == []


def temporary(path):
    return path.with_name(f".{path.name}.0123456789abcdef.partial")


@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_a_run_that_was_killed_before_its_manifest_is_none(name, tmp_path):
    out = tmp_path / name
    folder = out if name == "images" else tmp_path / "images.zip.blocks"
    folder.mkdir()
    temporary(folder / "manifest.json").write_text("{")
    write(out)


@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_another_run_is_refused_with_what_differs(name, tmp_path):
    store = BlockStore(tmp_path / name, BLOCKS, RUN)
    store.check(2)
    write(tmp_path / name)
    store.check(2)
    with pytest.raises(InputError, match='another run, with plan "18", not "20"'):
        BlockStore(tmp_path / name, BLOCKS, {**RUN, "plan": "20"}).check(2)
    with pytest.raises(InputError, match="made with --batch 2, not 3; give --batch 2"):
        store.check(3)


def test_what_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "file.zip").write_text("precious")
    (tmp_path / "other.zip.blocks").mkdir()
    (tmp_path / "other.zip.blocks" / "thesis.tex").write_text("precious")
    for name, batch in (("infinite", "1e999"), ("deep", "[" * 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(f'{{"run": {{}}, "batch": {batch}}}')
    for name in ("full", "file", "file.zip", "other.zip", "infinite", "deep"):
        with pytest.raises(InputError, match="is not a run of generate"):
            BlockStore(tmp_path / name, BLOCKS, RUN).check(2)
    (tmp_path / "empty").mkdir()
    BlockStore(tmp_path / "empty", BLOCKS, RUN).check(2)


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    with atomic(tmp_path / "file") as temporary:
        temporary.write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failed_write_says_of_which_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="File too large") as error, atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise OSError(27, os.strerror(27))
    assert error.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
