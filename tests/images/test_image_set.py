"""Image sets for evaluation: batches, order, choice, and damage named."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from image_files import cifar_batch, cifar_set, encoded, picture, png, write_cifar, write_folder, write_tar, write_zip

from restart_sampling.base.errors import InputError
from restart_sampling.generation.store import BlockStore
from restart_sampling.images.image_set import read_images
from restart_sampling.images.sources import open_source

FILES = {f"{'ab'[place % 2]}/{place:03d}.png": png(place) for place in range(50)}


def expected(mode="RGB"):
    order = sorted(range(50), key=lambda place: f"{'ab'[place % 2]}/{place:03d}")
    return np.stack([np.asarray(picture(place, mode=mode)).transpose(2, 0, 1) for place in order])


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch", [1, 7, 50, 64])
def test_batches_are_in_the_order_of_the_names(batch, workers, tmp_path):
    images = read_images(write_folder(tmp_path, FILES), workers=workers)
    assert (len(images), images.shape, images.lossy) == (50, (3, 8, 8), False)
    assert images.labels.tolist() == [0] * 25 + [1] * 25
    assert images.names == sorted(FILES)
    batches = list(images.batches(batch))
    assert [len(part) for part in batches] == [batch] * (50 // batch) + [50 % batch] * (50 % batch > 0)
    assert all(part.dtype == np.uint8 and part.flags.writeable and part.flags.c_contiguous for part in batches)
    assert np.array_equal(np.concatenate(batches), expected())


def test_the_slow_ones_do_not_change_the_order(tmp_path):
    source = open_source(write_folder(tmp_path, FILES))

    def slow(place):
        time.sleep(0.005 if place % 10 == 0 else 0)
        return source.raw(place)

    images = read_images(replace(source, raw=slow), workers=4)
    assert np.array_equal(np.concatenate(list(images.batches(1))), expected())


def test_no_more_than_a_few_batches_are_read_ahead(tmp_path):
    source = open_source(write_folder(tmp_path, FILES))
    read = []
    counted = replace(source, raw=lambda place: (read.append(place), source.raw(place))[1])
    batches = read_images(counted, workers=2).batches(2)
    read.clear()
    next(batches)
    time.sleep(0.05)
    assert 2 < len(read) <= 2 * (1 + 3)
    batches.close()


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.xz"])
def test_archives_give_what_the_folder_gives(name, tmp_path):
    write = write_zip if name.endswith("zip") else write_tar
    images = read_images(write(tmp_path / name, FILES))
    assert images.names == sorted(FILES)
    assert np.array_equal(np.concatenate(list(images)), expected())


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_generate_writes_reads_back(name, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    seeds = (1200, 3, 40, 5, 1999)
    store = BlockStore(tmp_path / name, [seeds], {})
    with ThreadPoolExecutor() as threads:
        store.write(0, [images[seed % 5] for seed in seeds], [seed % 3 for seed in seeds], threads)
    store.finish({"run": {}, "batch": 5, "classes": ["cat", "dog", "frog"]})
    read = read_images(tmp_path / name)
    assert read.names == [f"{n - n % 1000:06d}/{n:06d}.png" for n in (3, 5, 40, 1200, 1999)]
    assert read.labels.tolist() == [0, 2, 1, 0, 1]
    assert read.classes == ("cat", "dog", "frog")
    assert np.array_equal(next(iter(read)), images[[3, 0, 0, 0, 4]])


def test_the_choice_of_some_is_that_of_edm(tmp_path):
    path = write_folder(tmp_path, FILES)
    order = np.arange(50)
    np.random.RandomState(0).shuffle(order)
    some = read_images(path, count=20)
    assert some.indices.tolist() == sorted(order[:20])
    assert np.array_equal(np.concatenate(list(some.batches(6))), expected()[np.sort(order[:20])])
    assert some.labels.tolist() == [int(place >= 25) for place in some.indices]
    assert len(read_images(path, count=50)) == 50
    with pytest.raises(InputError, match="holds 50 images, and 51 are asked for"):
        read_images(path, count=51)


def test_parts_make_up_the_whole(tmp_path):
    images = read_images(write_folder(tmp_path, FILES))
    parts = [images.take(range(rank, 50, 3)) for rank in range(3)]
    assert sorted(name for part in parts for name in part.names) == images.names
    assert np.array_equal(np.concatenate(list(parts[1])), expected()[1::3])
    assert np.array_equal(parts[1].labels, images.labels[1::3])
    assert list(images.take([]).batches(4)) == []
    assert images.take(range(10, 50)).take([0, 1]).names == images.names[10:12]


def test_grey_stays_one_channel(tmp_path):
    images = read_images(write_folder(tmp_path, {"a.png": png(0, mode="L")}))
    assert images.shape == (1, 8, 8)
    assert np.array_equal(next(iter(images))[0, 0], picture(0, mode="L"))


def test_jpeg_is_lossy(tmp_path):
    assert read_images(write_folder(tmp_path, {"a.JPEG": encoded(picture(0), "jpeg")})).lossy


def test_cifar_is_read_without_decoding(tmp_path):
    images, labels = cifar_set()
    batches = [cifar_batch(some, its.tolist()) for some, its in zip(images, labels, strict=True)]
    read = read_images(write_cifar(tmp_path / "cifar-10-python.tar.gz", batches))
    assert np.array_equal(np.concatenate(list(read.batches(4))), images.reshape(30, 3, 32, 32))


@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(0)[:-30], "is damaged"),
        (png(0)[:40], "is damaged"),
        (b"", "is damaged or no image"),
        (png(0, (8, 9)), "is 8x9 RGB, and the first image is 8x8 RGB"),
        (png(0, mode="L"), "is 8x8 grey, and the first image is 8x8 RGB"),
        (png(0, mode="RGBA"), "has transparency"),
    ],
    ids=["cut", "no pixels", "empty", "tall", "grey", "transparent"],
)
def test_a_bad_image_is_named(form, content, message, tmp_path):
    write = {"folder": write_folder, "a.zip": write_zip, "a.tar.gz": write_tar}[form]
    images = read_images(write(tmp_path / form, {**FILES, "b/023.png": content}))
    with pytest.raises(InputError, match=rf"b/023\.png {message}"):
        list(images.batches(8))


def test_a_bad_first_image_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"a/000\.png has transparency"):
        read_images(write_folder(tmp_path, {**FILES, "a/000.png": png(0, mode="RGBA")}))
