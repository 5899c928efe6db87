"""Sources: the same images from every kind of file, EDM's rules of labels, damage named, nothing run or extracted."""

import json
import os
import pickle
import pickletools
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import (
    cifar_batch,
    cifar_set,
    encoded,
    idx,
    picture,
    png,
    write_cifar,
    write_folder,
    write_mnist,
    write_tar,
    write_zip,
)

from restart_sampling.base.errors import InputError
from restart_sampling.images.labels import folder_labels, root
from restart_sampling.images.sources import open_source

NAMES = ["cat/0.png", "cat/sub/1.png", "cat-like/2.PNG", "dog/3.jpg", "dog/10.png"]
FILES = {name: png(place) for place, name in enumerate(NAMES)}
FILES["dog/3.jpg"] = encoded(picture(3), "jpeg")
OTHERS = {"readme.txt": b"no image", "cat/.hidden.png": b"", "__MACOSX/cat/._0.png": b"", "dog/": b""}

WRITERS = {
    "images": write_folder,
    "images.zip": write_zip,
    "images.tar": write_tar,
    "images.tar.gz": write_tar,
    "images.tar.xz": write_tar,
    "images.tar.bz2": write_tar,
}


def others(name):
    return {key: value for key, value in OTHERS.items() if not key.endswith("/") or name == "images.zip"}


@pytest.mark.parametrize("prefix", ["", "train/", "a/b/"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_source_gives_the_same(name, prefix, tmp_path):
    # Not in sorted order, as archives are not.
    files = {prefix + key: FILES[key] for key in reversed(NAMES)}
    source = open_source(WRITERS[name](tmp_path / name, {**others(name), **files}))
    assert list(source.names) == sorted(prefix + key for key in NAMES)
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [1, 0, 0, 2, 2]  # "cat-like/2.PNG" < "cat/0.png" < ...
    assert source.lossy
    assert len(source) == 5
    for index, (key, image, label) in enumerate(source):
        assert source.raw(index) == files[key]
        assert label == source.labels[index]
        if key.endswith("png"):
            assert np.array_equal(image, picture(NAMES.index(key.removeprefix(prefix))))


@pytest.mark.parametrize(
    ("names", "folder", "labels"),
    [
        (["1.png", "2.png"], "", None),
        (["a/1.png", "a/2.png"], "a/", None),
        (["1.png", "a/2.png"], "", [0, 1]),
        (["a/1.png", "b/1.png", "b/2.png"], "", [0, 1, 1]),
        (["train/a/1.png", "train/b/1.png"], "train/", [0, 1]),
        (["train/a1/1.png", "train/a2/1.png"], "train/", [0, 1]),
        (["a/b/c/1.png"], "a/b/c/", None),
        (["../a/1.png", "../b/1.png"], "../", [0, 1]),
    ],
)
def test_labels_of_folders(names, folder, labels):
    assert root(names) == folder
    found, classes = folder_labels(names)
    assert (found if found is None else found.tolist()) == labels
    assert len(classes) == (0 if labels is None else max(labels) + 1)


@given(st.lists(st.text("ab/", min_size=1, max_size=6).map(lambda text: text + ".png"), min_size=1, unique=True))
def test_labels_are_dense_and_follow_the_order_of_the_folders(names):
    names = sorted(names)
    shared = root(names)
    assert all(name.startswith(shared) for name in names)
    labels, classes = folder_labels(names)
    folders = [name[len(shared) :].rpartition("/")[0].split("/")[0] for name in names]
    if labels is None:
        assert (len(set(folders)), classes) == (1, ())
    else:
        assert sorted(set(labels.tolist())) == list(range(len(set(folders))))
        assert [classes[label] for label in labels] == folders


@pytest.mark.parametrize("name", ["images", "images.zip", "images.tar.gz"])
@pytest.mark.parametrize(
    ("prefix", "stated", "labels"),
    [
        ("", [["a/0.png", 7], ["b/1.png", 3], ["c/2.png", 7]], [7, 3]),
        ("set/", [["a/0.png", 7], ["b/1.png", 3]], [7, 3]),
        ("", [], None),
        ("", None, None),
    ],
)
def test_labels_of_dataset_json(name, prefix, stated, labels, tmp_path):
    files = {"a/0.png": png(0), "b/1.png": png(1), "dataset.json": json.dumps({"labels": stated}).encode()}
    source = open_source(WRITERS[name](tmp_path / name, {prefix + key: value for key, value in files.items()}))
    assert (source.labels if source.labels is None else source.labels.tolist()) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not of the form"),
        ("[]", "not of the form"),
        ('{"labels": [["a.png"]]}', "not of the form"),
        ('{"labels": 3}', "not of the form"),
        ("[" * 100_000, "not of the form"),
        ('{"labels": [["a.png", 1.5]]}', "labels a.png with 1.5, and a class is 0, 1"),
        ('{"labels": [["a.png", -1]]}', "with -1"),
        ('{"labels": [["a.png", true]]}', "with True"),
        ('{"labels": [["b.png", 0]]}', "has no class for a.png, but one for b.png, which is no image there"),
        ('{"labels": [["./a.png", 0]]}', r"no class for a.png, but one for \./a.png"),
        (r'{"labels": [["x\\a.png", 0], ["y", 1]]}', r"no class for a.png, but one for x\\a.png"),
        ('{"labels": [["a.png", 0]], "classes": "cat"}', "has to be a list of names"),
        ('{"labels": [["a.png", 1]], "classes": ["cat"]}', "names 1 class, and has a class 1"),
        ('{"labels": [["a.png", 1]], "classes": ["cat", "cat"]}', "names two classes 'cat'; give each a name"),
        ('{"labels": [["a.png", 1]], "labels": []}', "not of the form .* has the key 'labels' twice"),
    ],
)
def test_a_wrong_dataset_json_is_named(text, message, tmp_path):
    write_folder(tmp_path, {"a.png": png(0), "dataset.json": text.encode()})
    with pytest.raises(InputError, match=f"dataset.json.*{message}"):
        open_source(tmp_path)


def test_an_interrupted_run_of_generate_is_refused(tmp_path):
    write_folder(tmp_path, {"000000/000000.png": png(0), "manifest.json": b'{"complete": false}'})
    with pytest.raises(InputError, match="did not end; run the same command again"):
        open_source(tmp_path)


def test_seed_folders_of_generate_are_no_classes(tmp_path):
    files = {"000000/000000.png": png(0), "001000/001000.png": png(1), "manifest.json": b'{"complete": true}'}
    assert open_source(write_folder(tmp_path / "a", files)).labels is None
    assert open_source(write_zip(tmp_path / "b.zip", {**files, "dataset.json": b'{"labels": null}'})).labels is None


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path, {"real/a.png": png(0), "set/b.png": png(1)})
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    assert list(open_source(tmp_path / "set").names) == ["b.png", "linked/a.png"]


# --- damage ---


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "images"])
def test_an_archive_cut_anywhere_is_named(name, tmp_path):
    path = WRITERS[name](tmp_path / name, FILES)
    data = path.read_bytes()
    # A tar ends with two blocks of zeros and padding: without half of the padding it is still whole.
    whole = data.rstrip(b"\0") if path.suffix == ".tar" else data
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError) as refused:
            for _ in open_source(path):
                pass
        assert name in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_tar_cut_between_two_files_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:last])
    with pytest.raises(InputError, match=r"a\.tar is a damaged or truncated tar"):
        open_source(path)


def test_a_damaged_entry_of_a_zip_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png(0), "b.png": png(1)})
    path.write_bytes(path.read_bytes().replace(png(1), b"x" * len(png(1))))
    source = open_source(path)
    source.image(0)
    with pytest.raises(InputError, match=r"a\.zip: b\.png cannot be read \(Bad CRC-32"):
        source.image(1)


@pytest.mark.parametrize("keep", [0, 20, 60, 150])
def test_a_cut_image_is_named(keep, tmp_path):
    source = open_source(write_folder(tmp_path, {"a.png": png(0)[:keep]}))
    with pytest.raises(InputError, match=r"a\.png is damaged"):
        source.image(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "No such file"),
        ("a.txt", b"text" * 200, "no folder, zip, tar or idx file"),
        ("a.zip", b"text" * 200, "a damaged zip"),
        ("a.tar.gz", b"\x1f\x8b", "damaged or truncated tar"),
    ],
)
def test_what_is_no_source_is_refused(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
def test_no_images(name, tmp_path):
    path = WRITERS[name](tmp_path / name, {"readme.txt": b""})
    with pytest.raises(InputError, match="holds no images"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_names_that_lead_outside_are_only_names(name, tmp_path):
    files = {"/etc/evil.png": png(0), "../../evil.png": png(1), "a/../../evil\n\x1b[2J.png": b"no image"}
    source = open_source(WRITERS["images" + name[1:]](tmp_path / name, files))
    assert len(source) == 3
    assert [path.name for path in tmp_path.rglob("*")] == [name]
    with pytest.raises(InputError, match=r"evil\\n\\x1b\[2J\.png is damaged"):
        list(source)


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match=r"a\.png is a link"):
        open_source(path)


def test_names_are_all_that_is_held(tmp_path):
    path = tmp_path / "many.zip"
    content = png(0, (32, 32))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number // 1000:05d}/{number:08d}.png", content)
    tracemalloc.start()
    source = open_source(path)
    for index in range(0, 20_000, 20):
        source.raw(index)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000 * 1200  # bytes; the images are 60 MB
    assert peak < 20_000 * 1800


# --- CIFAR-10 and MNIST ---


def test_cifar_is_read_from_the_bytes_of_python_2(tmp_path):
    images, labels = cifar_set()
    batches = [cifar_batch(some, its.tolist()) for some, its in zip(images, labels, strict=True)]
    names = {opcode.name for opcode, _, _ in pickletools.genops(batches[0])}
    assert {"SHORT_BINSTRING", "BINSTRING", "BINPUT", "REDUCE", "BUILD", "SETITEMS"} <= names
    source = open_source(write_cifar(tmp_path / "cifar-10-python.tar.gz", batches))
    assert np.array_equal(np.stack([source.raw(index) for index in range(30)]), images.reshape(30, 3, 32, 32))
    assert source.labels.tolist() == labels.ravel().tolist()
    assert np.array_equal(np.asarray(source.image(7)), images[1, 1].transpose(1, 2, 0))
    assert not source.lossy


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_cifar_that_python_3_pickled_again(protocol, module, encoding, tmp_path):
    images, labels = cifar_set()
    batches = []
    for some, its in zip(images, labels, strict=True):
        content = pickle.loads(cifar_batch(some, its.tolist()), encoding=encoding)
        again = pickle.dumps(content, protocol)
        for found in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
            again = again.replace(b"\x8c" + bytes([len(found)]) + found, b"\x8c" + bytes([len(module)]) + module)
            again = again.replace(b"c" + found + b"\n", b"c" + module + b"\n")
        assert module in again
        batches.append(unframed(again))
    source = open_source(write_cifar(tmp_path / "cifar-10-python.tar.gz", batches))
    assert np.array_equal(np.stack([source.raw(index) for index in range(30)]), images.reshape(30, 3, 32, 32))
    assert source.labels.tolist() == labels.ravel().tolist()


def unframed(data):
    """A pickle without its frames, whose lengths a replaced name makes wrong."""
    places = [place for opcode, _, place in pickletools.genops(data) if opcode.name == "FRAME"]
    for place in reversed(places):
        data = data[:place] + data[place + 9 :]
    return data


def test_python_reads_the_same_from_these_bytes():
    images, labels = cifar_set()
    content = pickle.loads(cifar_batch(images[0], labels[0].tolist()), encoding="bytes")
    assert np.array_equal(content[b"data"], images[0].reshape(6, -1))
    assert content[b"labels"] == labels[0].tolist()


class Call:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_cifar_runs_nothing(tmp_path):
    sentinel = tmp_path / "sentinel"
    command = f"touch {sentinel}"
    images, labels = cifar_set()
    good = [cifar_batch(some, its.tolist()) for some, its in zip(images, labels, strict=True)]
    key = b"U\x01x"
    call = b"cos\nsystem\nX" + struct.pack("<I", len(command)) + command.encode() + b"\x85R"
    for hostile in (
        pickle.dumps(Call(command), 2),
        pickle.dumps({"data": Call(command), "labels": []}, 4),
        cifar_batch(images[0], labels[0].tolist(), key + call),
        f"cos\nsystem\n(S{command!r}\ntR.".encode(),
    ):
        path = write_cifar(tmp_path / "cifar-10-python.tar.gz", [*good[:2], hostile, *good[3:]])
        with pytest.raises(InputError, match="data_batch_3 cannot be read") as refused:
            open_source(path)
        assert "inspect" not in str(refused.value)
    assert not sentinel.exists()


def test_damaged_cifars_are_named(tmp_path):
    images, labels = cifar_set()
    good = [cifar_batch(some, its.tolist()) for some, its in zip(images, labels, strict=True)]
    path = tmp_path / "cifar-10-python.tar.gz"
    with pytest.raises(InputError, match="has 4 of CIFAR-10's batches"):
        open_source(write_cifar(path, good[:4]))
    for bad in (
        good[4][:-1],
        good[4][: len(good[4]) // 2],
        cifar_batch(images[4][:, :2], labels[4].tolist()),
        cifar_batch(images[4], [10] * 6),
        cifar_batch(images[4], [1] * 5),
        cifar_batch(images[4], labels[4].tolist()).replace(b"U\x02u1", b"U\x02u2"),
        b"",
    ):
        with pytest.raises(InputError, match="data_batch_5 cannot be read: "):
            open_source(write_cifar(path, [*good[:4], bad]))


def test_mnist_gets_a_border(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 28, 28), np.uint8), rng.integers(0, 10, 7, np.uint8)
    path = write_mnist(tmp_path, images, labels)
    source = open_source(path)
    assert source.labels.tolist() == labels.tolist()
    raw = np.stack([source.raw(index) for index in range(7)])
    assert raw.shape == (7, 1, 32, 32)
    assert np.array_equal(raw[:, 0, 2:30, 2:30], images)
    assert raw.sum() == images.sum()
    assert source.image(0).mode == "L"
    plain = tmp_path / "t10k-images-idx3-ubyte"
    plain.write_bytes(idx(images))
    assert open_source(plain).labels is None
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or truncated"):
        open_source(path)
    plain.write_bytes(idx(images)[:-1])
    with pytest.raises(InputError, match="damaged or truncated"):
        open_source(plain)
    plain.write_bytes(idx(np.zeros(100, np.uint8)))
    with pytest.raises(InputError, match="no idx file of bytes in 3 dimensions"):
        open_source(plain)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:6]))
    plain.write_bytes(idx(images))
    with pytest.raises(InputError, match="has 6 labels, and t10k-images-idx3-ubyte has 7 images"):
        open_source(plain)
