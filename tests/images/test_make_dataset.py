"""Datasets: EDM's layout, the same bytes whatever the workers, all or nothing."""

import gc
import json
import multiprocessing
import os
import signal
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait

import numpy as np
import pytest
from image_files import encoded, picture, png, write_folder, write_tar, write_zip
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.base.parallel import Workers, in_order
from restart_sampling.images import dataset
from restart_sampling.images.dataset import make_dataset, plan_dataset
from restart_sampling.images.image_set import read_images
from restart_sampling.images.sources import open_source
from restart_sampling.images.transforms import Transform

FILES = {f"{'ab'[place % 2]}/{place:04d}.png": png(place) for place in range(20)}


def make(source, out, transform=None, count=None, workers=1, **options):
    return make_dataset(plan_dataset(open_source(source), out, transform or Transform(), count), workers, **options)


def test_the_layout_is_edms(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    made = make(source, tmp_path / "out.zip")
    assert (made.images, made.skipped, made.shape, made.classes) == (20, 0, (3, 8, 8), 2)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = [f"00000/img{place:08d}.png" for place in range(20)]
        assert archive.namelist() == [*names, "dataset.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        labels = json.loads(archive.read("dataset.json"))
        assert labels.pop("classes") == ["a", "b"]
        assert labels == {"labels": [[name, int(place >= 10)] for place, name in enumerate(names)]}
    assert dataset.file_name(12_345_678) == "12345/img12345678.png"
    assert np.array_equal(*(np.concatenate(list(read_images(path))) for path in (source, tmp_path / "out.zip")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.zip"]


def test_a_folder_holds_what_the_zip_holds(tmp_path):
    source = write_tar(tmp_path / "in.tar.gz", FILES)
    make(source, tmp_path / "out.zip")
    (tmp_path / "new" / "out").mkdir(parents=True)
    make(source, tmp_path / "new" / "out")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        for name in archive.namelist():
            assert (tmp_path / "new" / "out" / name).read_bytes() == archive.read(name)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new" / "out").stat().st_mode & 0o777 == 0o777 & ~umask
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_the_same_bytes_from_any_number_of_processes_and_any_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 0)
    monkeypatch.setattr(dataset, "_CHUNK_FILES", 3)
    files = {f"{'abc'[place % 3]}/{place}.png": png(place, (9 + place, 20)) for place in range(30)}
    files |= {f"c/{place}.jpg": encoded(picture(place, (30, 10)), "jpeg") for place in range(5)}
    crop = Transform("center-crop", (8, 8))
    folder = write_folder(tmp_path / "in", files)
    steps = []
    make(folder, tmp_path / "1.zip", crop)
    make(folder, tmp_path / "2.zip", crop, workers=2, advance=steps.append)
    make(write_zip(tmp_path / "in.zip", files), tmp_path / "3.zip", crop)
    make(write_tar(tmp_path / "in.tar.xz", files), tmp_path / "4.zip", crop)
    assert len({(tmp_path / f"{number}.zip").read_bytes() for number in (1, 2, 3, 4)}) == 1
    assert sum(steps) == 35


def test_converting_again_changes_nothing(tmp_path):
    make(write_folder(tmp_path / "in", FILES), tmp_path / "a.zip")
    make(tmp_path / "a.zip", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_small_images_are_left_out_and_keep_their_numbers(tmp_path):
    files = {"a/0.png": png(0, (4, 4)), "a/1.png": png(1, (8, 8)), "b/2.png": png(2, (8, 7)), "b/3.png": png(3, (8, 8))}
    wide = Transform("center-crop-wide", (8, 8))
    made = make(write_folder(tmp_path / "in", files), tmp_path / "out.zip", wide)
    assert (made.images, made.skipped, made.classes) == (2, 2, 2)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert json.loads(archive.read("dataset.json"))["labels"] == [
            ["00000/img00000001.png", 0],
            ["00000/img00000003.png", 1],
        ]
        with archive.open("00000/img00000003.png") as file:
            assert np.array_equal(Image.open(file), picture(3))
    with pytest.raises(InputError, match="no image is as large as the --resolution"):
        make(tmp_path / "in", tmp_path / "none.zip", wide, count=1)
    assert not (tmp_path / "none.zip").exists()


def test_the_first_images_by_name(tmp_path):
    made = make(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip", count=3)
    assert (made.images, made.classes) == (3, 1)
    assert make(tmp_path / "in", tmp_path / "all.zip", count=100).images == 20


def test_without_labels_there_are_none(tmp_path):
    make(write_folder(tmp_path / "in", {"a.png": png(0)}), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("dataset.json") == b'{"labels": null}'


def test_grey_stays_grey_and_transparency_becomes_rgb(tmp_path):
    assert make(write_folder(tmp_path / "l", {"a.png": png(0, mode="L")}), tmp_path / "l.zip").shape == (1, 8, 8)
    assert make(write_folder(tmp_path / "a", {"a.png": png(0, mode="RGBA")}), tmp_path / "a.zip").shape == (3, 8, 8)


@pytest.mark.parametrize(("out", "workers"), [("out.zip", 1), ("out.zip", 2), ("out", 1)])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(0)[:60], r"b/0011\.png is damaged"),
        (png(0, (16, 8)), r"b/0011\.png becomes 16x8 RGB, and the first image 8x8 RGB"),
        (png(0, mode="L"), r"b/0011\.png becomes 8x8 grey"),
    ],
    ids=["cut", "wide", "grey"],
)
def test_a_bad_image_leaves_nothing(content, message, out, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 0)
    monkeypatch.setattr(dataset, "_CHUNK_FILES", 2)
    source = write_folder(tmp_path / "in", {**FILES, "b/0011.png": content})
    with pytest.raises(InputError, match=message):
        make(source, tmp_path / out, workers=workers)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("out", ["out.zip", "out"])
def test_an_interruption_leaves_nothing(out, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 0)
    monkeypatch.setattr(dataset, "_CHUNK_FILES", 2)
    source = write_folder(tmp_path / "in", FILES)

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / out, workers=workers, advance=interrupt)
    assert list(tmp_path.iterdir()) == [source]


def test_an_interruption_before_a_file_of_a_zip_is_begun_is_no_other_error(tmp_path, monkeypatch):
    """`zipfile` counts the file as begun before it gives it away, and refuses to close the zip."""

    def interrupt(archive, *_, **__):
        archive._writing = True
        raise KeyboardInterrupt

    source = write_folder(tmp_path / "in", FILES)
    monkeypatch.setattr(zipfile.ZipFile, "_open_to_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "out.zip")
    assert list(tmp_path.iterdir()) == [source]


def end_the_process(*_, **__):
    os._exit(1)


def test_a_worker_that_is_ended_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_FEW", 0)
    monkeypatch.setattr(dataset, "_convert", end_the_process)
    with pytest.raises(InputError, match=r"a worker process was ended, .*try --workers 1"):
        make(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip", workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_a_killed_run_left_goes_and_nothing_else(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    mine, others = (f".{name}.{'0' * 16}.partial" for name in ("out", "out.zip"))
    write_folder(tmp_path / mine, {"00000/img00000000.png": b"left"})
    (tmp_path / others).write_bytes(b"of a run that goes on")
    make(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [others, "in", "out"]
    make(source, tmp_path / "out.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.zip"]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    def peak(count):
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{number % 3}/{number:08d}.png", png_1)
        tracemalloc.start()
        make(tmp_path / "in.zip", tmp_path / f"{count}.zip")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    png_1 = png(0, (1, 1))
    peak(300)
    assert peak(2500) - peak(500) < 2000 * 30  # bytes; 8 are its label


def test_the_zip_is_that_of_zipfile(tmp_path):
    make(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as made, zipfile.ZipFile(tmp_path / "again.zip", "w") as again:
        for name in made.namelist():
            again.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), made.read(name))
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_what_is_there_is_not_overwritten(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    (tmp_path / "a.zip").write_text("precious")
    write_folder(tmp_path / "b", {"thesis.tex": b"precious"})
    (tmp_path / "c.zip").mkdir()
    for name in ("a.zip", "b", "c.zip"):
        with pytest.raises(InputError, match=f"{name} exists; remove it"):
            plan_dataset(open_source(source), tmp_path / name, Transform())


@pytest.mark.parametrize(
    ("size", "message"), [((8, 16), "8x16, and they have to be squares"), ((12, 12), "12x12, and the side has to be")]
)
def test_edms_rules_are_checked_before_the_work(size, message, tmp_path):
    source = open_source(write_folder(tmp_path, {"a.png": png(0, size)}))
    with pytest.raises(InputError, match=rf"a\.png gives images of {message}"):
        plan_dataset(source, tmp_path / "out.zip", Transform())


def test_a_process_that_was_ended_in_the_middle_of_its_answer_makes_nobody_wait():
    """In the pipe there is room for a part of an answer alone, and nobody takes it at first."""
    with ThreadPoolExecutor(2) as threads, Workers(2, bytes, gc.collect) as make:
        assert make(3) == bytes(3)
        pipes = [make._idle.get() for _ in range(2)]
        pipes[0].send(2**24)
        wait([pipes[0]])
        children = multiprocessing.active_children()
        assert len(children) == 2
        for signalled in (signal.SIGINT, signal.SIGTERM):  # which reach all that a terminal or a service has started
            for process in children:
                os.kill(process.pid, signalled)
        assert len(pipes[0].recv()[0]) == 2**24
        pipes[0].send(2**24)
        wait([pipes[0]])
        for process in children:
            process.kill()
            process.join()
        for pipe in pipes:
            make._idle.put(pipe)
        with pytest.raises(ChildProcessError):
            list(in_order(threads, make, [1] * 9, ahead=4))
    assert not multiprocessing.active_children()
