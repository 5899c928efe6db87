"""Samples in .npz, WebDatasets, Parquet, formats beyond PNG and JPEG; names of classes, and files left out."""

import json
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from image_files import encoded, picture, png, write_folder, write_tar, write_zip
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.images.class_notes import class_notes
from restart_sampling.images.dataset import make_dataset, plan_dataset
from restart_sampling.images.decode import decode
from restart_sampling.images.image_set import read_images
from restart_sampling.images.png import decode_alike, decode_plain
from restart_sampling.images.sources import open_source
from restart_sampling.images.transforms import Transform


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_samples_of_guided_diffusion(save, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    save(tmp_path / "a.npz", images, np.arange(7)[::-1], unused=np.zeros(9))
    read = read_images(tmp_path / "a.npz")
    assert np.array_equal(np.concatenate(list(read.batches(4))), images.transpose(0, 3, 1, 2))
    assert read.labels.tolist() == list(range(7))[::-1]
    save(tmp_path / "b.npz", images)
    assert open_source(tmp_path / "b.npz").labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(2)}, "holds mu, and no images"),
        ({"arr_0": np.zeros((2, 8, 8, 3))}, r"arr_0 is float64 \[2, 8, 8, 3\], and images are uint8"),
        ({"arr_0": np.zeros((2, 3, 8, 8), np.uint8)}, r"arr_0 is uint8 \[2, 3, 8, 8\]"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(3, int)}, r"arr_1 is int64 \[3\]"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.array([0, -1])}, "class 0, 1, ... of each of the 2"),
        (
            {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.array([0, 2**63], np.uint64)},
            r"arr_1 is uint64 \[2\]",
        ),
        ({"arr_0": np.array([{}])}, "damaged or truncated"),
    ],
)
def test_arrays_that_are_no_samples(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "a.npz")


def test_a_damaged_array_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", np.full((2, 8, 8, 3), 7, np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(b"\7" * 9, b"\7" * 8 + b"\6", 1))
    with pytest.raises(InputError, match="damaged or truncated"):
        open_source(tmp_path / "a.npz")


def samples(numbers):
    files = {f"{number:04d}.png": png(number) for number in numbers}
    return files | {f"{number:04d}.cls": str(number % 3).encode() for number in numbers}


def test_the_tars_of_a_webdataset_are_one_set(tmp_path):
    write_tar(tmp_path / "shard-1.tar", samples(range(5, 9)))
    write_tar(tmp_path / "shard-0.tar", samples(range(5)))
    source = open_source(tmp_path)
    assert source.labels.tolist() == [number % 3 for number in range(9)]
    assert source.names[5] == "shard-1.tar/0005.png"
    assert [source.raw(place) for place in (8, 0, 5, 6, 7)] == [png(place) for place in (8, 0, 5, 6, 7)]
    with pytest.raises(IndexError):
        source.raw(9)
    assert source.left_out == ""
    assert open_source(tmp_path / "shard-0.tar").labels.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(("text", "message"), [(b"x", "holds b'x'"), (b"-1", "holds b'-1'"), (None, "is missing")])
def test_a_class_of_a_webdataset_that_is_none(text, message, tmp_path):
    files = {**samples(range(3)), "0001.cls": text}
    write_tar(tmp_path / "a.tar", {name: content for name, content in files.items() if content is not None})
    with pytest.raises(InputError, match=rf"a\.tar: 0001\.cls {message}; every image needs a class"):
        open_source(tmp_path / "a.tar")


def test_parquet_of_a_hugging_face_data_set(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for shard in (1, 0):
        rows = [{"bytes": png(5 * shard + place), "path": None} for place in range(5)]
        table = pyarrow.table({"image": rows, "label": [0, 1, 0, 1, shard]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        parquet.write_table(table, tmp_path / f"train-{shard}.parquet", row_group_size=2)
    source = open_source(tmp_path)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 1]
    assert source.classes == ("cat", "dog")
    assert [source.raw(place) for place in (9, 0, 4, 5)] == [png(9), png(0), png(4), png(5)]
    one = tmp_path / "train-0.parquet"
    assert len(open_source(one)) == 5
    one.write_bytes(one.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"train-0\.parquet is a damaged Parquet file"):
        open_source(tmp_path)


def write_parquet(path, count=2, names=None, labels=None):
    """One shard, of pictures of the path's name, as Hugging Face's datasets writes it."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": png(sum(path.name.encode()) + place), "path": None} for place in range(count)]
    table = pyarrow.table({"img": rows, "label": [*range(count)] if labels is None else labels})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "form",
    [
        "data/{}-{:05d}-of-00002.parquet",
        "data/{}-{:05d}-of-00002-1359597a978bc4fa.parquet",
        "plain_text/{}-{:05d}.parquet",
        "{}/{:04d}.parquet",
        "{}.{}.parquet",
    ],
)
def test_train_and_test_are_not_mixed(form, tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for shard in (0, 1):
            write_parquet(tmp_path / form.format(part, shard), count)
    with pytest.raises(InputError, match=r"holds the parts test, train of a data set; give one of them, such as .*/te"):
        open_source(tmp_path)
    source = open_source(tmp_path / "train")
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.raw(3) == png(sum((tmp_path / form.format("train", 1)).name.encode()))
    assert len(open_source(tmp_path / "test")) == 4
    for name in ("training", "trai", "1"):
        with pytest.raises(InputError, match="cannot be opened"):
            open_source(tmp_path / name)


def test_configurations_are_not_mixed(tmp_path):
    for folder in ("small", "large"):
        write_parquet(tmp_path / folder / "train-00000-of-00001.parquet")
    message = r"holds train-00000-of-00001\.parquet in 2 folders \(large, small\); give one of them"
    for path in (tmp_path, tmp_path / "train"):
        with pytest.raises(InputError, match=message):
            open_source(path)
    assert len(open_source(tmp_path / "small")) == len(open_source(tmp_path / "small" / "train")) == 2


CARD = """---
license: mit
dataset_info:
{}---
# A data set
"""
CLASSES = """{0}config_name: {1}
  features:
  - name: img
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': {2}
          '1': dog
"""


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("README.md", CARD.format(CLASSES.format("  ", "any", "cat")), ("cat", "dog")),
        ("data/README.md", CARD.format(CLASSES.format("- ", "any", "cat")), ("cat", "dog")),
        ("README.md", CARD.format(CLASSES.format("- ", "x", "cat") + CLASSES.format("- ", "y", "cat")), ("cat", "dog")),
        ("README.md", CARD.format(CLASSES.format("- ", "x", "cat") + CLASSES.format("- ", "y", "car")), ()),
        ("README.md", CARD.format(CLASSES.format("- ", "x", "cat") + CLASSES.format("- ", "data", "a")), ("a", "dog")),
        ("dataset_infos.json", '{"a": {"features": {"label": {"names": ["cat", "dog"]}}}}', ("cat", "dog")),
        ("dataset_infos.json", '{"a": {"features": {"labels": {"names": ["cat", "dog"]}}}}', ()),
        ("dataset_infos.json", "[" * 100_000, ()),
        ("README.md", "---\na: [" + "[" * 5000 + "\n---\n", ()),
        ("README.md", "# A data set", ()),
        ("README.md", CARD.format("  features: [label]\n"), ()),
    ],
)
def test_names_of_classes_beside_parquet_files(name, text, classes, tmp_path):
    pytest.importorskip("yaml")
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / name).write_text(text)
    assert open_source(tmp_path).classes == classes
    assert open_source(tmp_path / "data" / "train").classes == classes


def test_files_that_do_not_fit_their_names(tmp_path):
    one = write_parquet(tmp_path / "a.parquet", 3, ["cat", "dog"])
    with pytest.raises(InputError, match=r"a\.parquet names 2 classes, and has a class 2"):
        open_source(one)
    write_parquet(one, 2, ["cat", "dog"])
    write_parquet(tmp_path / "b.parquet", 2, ["dog", "cat"])
    with pytest.raises(InputError, match="its Parquet files name different classes"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "labels", "classes"),
    [
        ("metadata.csv", "file_name,label\n1.png,3\na/0.png,10\n", [3, 10], ()),
        ("metadata.csv", "file_name,label\n1.png,2.0\na/0.png,10.0\n", [2, 10], ()),
        ("metadata.csv", "file_name,label\n1.png,2.0\na/0.png,x\n", [0, 1], ("2.0", "x")),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 3.0}\n{"file_name": "a/0.png", "label": 10}', [3, 10], ()),
        ("metadata.csv", "file_name, label\n1.png, 3\na/0.png, 10\n", [3, 10], ()),
        ("metadata.csv", "file_name;label\n1.png;3\n\na/0.png;10\n", [3, 10], ()),
        ("metadata.csv", "File_Name,Label\n1.png,3\na/0.png,10\n", [3, 10], ()),
        ("metadata.jsonl", '{"file_name": "1.png", "Label": 3}\n{"File_name": "a/0.png", "Label": 10}', [3, 10], ()),
        ("metadata.csv", "file_name,text\n1.png,x\n", [0, 1], ("", "a")),
        ("metadata.csv", "label,file_name\n007,1.png\nx,a/0.png\n", [0, 1], ("007", "x")),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 3}\n{"file_name": "a/0.png", "label": 0}\n\n', [3, 0], ()),
        ("metadata.jsonl", '{"file_name": "1.png", "text": "x"}', [0, 1], ("", "a")),
        (
            "metadata.jsonl",
            '{"file_name": "1.png", "text": "a\u2028b", "label": 3}\r\n{"file_name": "a/0.png", "label": 0}',
            [3, 0],
            (),
        ),
        ("metadata.csv", "file_name,text,label\r1.png,a\x85b,3\ra/0.png,c,0\r", [3, 0], ()),
        ("metadata.csv", "", [0, 1], ("", "a")),
    ],
)
def test_labels_of_an_imagefolder(name, text, labels, classes, tmp_path):
    write_folder(tmp_path, {"1.png": png(0), "a/0.png": png(1), name: text.encode()})
    sources = [open_source(tmp_path), open_source(write_zip(tmp_path / "z.zip", read_files(tmp_path)))]
    (tmp_path / "z.zip").unlink()
    (tmp_path / name).write_bytes(text.encode("utf-16"))
    for source in (*sources, open_source(tmp_path)):
        assert (source.labels.tolist(), source.classes, source.left_out) == (labels, classes, "")


def read_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "metadata.csv",
            b"file_name,label\n1.png,3\n",
            r"csv has no label, a number or a text, for a/0\.png",
        ),
        ("metadata.csv", b"file_name,label\n1.png,3\na/0.png\n", r"has no label, a number or a text, for a/0\.png"),
        ("metadata.csv", b"file_name,label\n1.png,3\na/0.png,-1\n", "has the label -1, and a class is 0, 1"),
        (
            "metadata.csv",
            b"file_name,label\n1.png,3\na/0.png,2147483648\n",
            "has the label 2147483648, and a class is 0",
        ),
        ("metadata.csv", b"file_name,label\n1.png,3.0\na/0.png,0.5\n", "has the label 0.5, and a class is 0, 1"),
        ("metadata.csv", b"file_name,label\n1.png,3.0\na/0.png,nan\n", "has the label nan, and a class is 0, 1"),
        ("metadata.csv", b"filename,label\n1.png,3\na/0.png,0\n", "has no file_name, which says whose each label is"),
        ("metadata.csv", b"file_name,label,label\n1.png,3,4\n", "has the column label twice"),
        ("metadata.csv", b"file_name,label,Label\n1.png,3,4\n", "has the column label twice"),
        ("metadata.jsonl", b'{"file_name": "1.png", "label": 3, "label": 4}', r"jsonl is .* has the key 'label' twice"),
        ("metadata.jsonl", b'{"file_name": "1.png", "label": [3]}', r"has no label, a number or a text, for 1\.png"),
        ("metadata.jsonl", b"[1]\n", r"metadata\.jsonl is damaged"),
        ("metadata.jsonl", b"{\n", r"metadata\.jsonl is damaged"),
        ("metadata.csv", b"\xff", r"metadata\.csv is no text in UTF-8"),
    ],
)
def test_metadata_that_cannot_be_used(name, text, message, tmp_path):
    write_folder(tmp_path, {"1.png": png(0), "a/0.png": png(1), name: text})
    with pytest.raises(InputError, match=message):
        open_source(tmp_path)


def test_formats_that_pillow_reads(tmp_path):
    grey = Image.new("RGB", (8, 8), (90, 90, 90))
    files = {f"a.{form}": encoded(grey, kind) for form, kind in (("tga", "tga"), ("jp2", "jpeg2000"), ("png", "png"))}
    files |= {"b.heic": b"x", "c.HEIC": b"x", "d": b"x", ".hidden": b"x", "manifest.json": b"{}", "subset.csv": b"x"}
    source = open_source(write_folder(tmp_path, files))
    assert [np.unique(image).tolist() for _, image, _ in source] == [[90]] * 3
    assert source.left_out == "3 files of other kinds (.heic 2, no suffix 1)"


def grey_png(bits, row, transparent):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", 4, 1, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", transparent))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "grey"),
    [
        (1, b"\x40", 1, [0, 255, 0, 0]),
        (2, b"\x1b", 1, [0, 85, 170, 255]),
        (4, b"\x07\x9f", 7, [0, 119, 153, 255]),
        (8, b"\x00\x07\x99\xff", 7, [0, 7, 153, 255]),
        (16, b"\x12\x35\x12\x34\x99\x00\xff\xff", 0x1234, [18, 18, 153, 255]),
    ],
)
def test_grey_of_any_depth_with_a_transparent_value(bits, row, transparent, grey):
    made = np.asarray(decode(grey_png(bits, row, transparent), "x"))
    assert made[0, :, 0].tolist() == grey
    assert made[0, :, 3].tolist() == [255, 0, 255, 255]


def test_a_pgm_of_16_bits():
    content = b"P5\n4 1\n65535\n" + np.array([0, 256, 513, 65535], ">u2").tobytes()
    assert np.asarray(decode(content, "x")).tolist() == [[0, 1, 2, 255]]


def idat(content):
    chunk = b"IDAT" + content
    return len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_short_way_gives_what_pillow_gives(mode):
    image = picture(0, (33, 7), mode)
    for options in ({}, {"compress_level": 0}, {"optimize": True}):
        assert np.array_equal(decode_plain(encoded(image, **options)), image)
        alike = [picture(seed, (33, 7), mode) for seed in range(4)]
        decoded = decode_alike([encoded(each, **options) for each in alike])
        assert np.array_equal(decoded, [np.asarray(each).reshape(7, 33, -1).transpose(2, 0, 1) for each in alike])
        assert decoded.flags.writeable
        assert decoded.flags.c_contiguous
    whole = encoded(image)
    start, content, end = whole[:33], whole[41:-16], whole[-12:]
    two_chunks = start + idat(content[:9]) + idat(content[9:]) + end
    assert np.array_equal(decode_plain(two_chunks), image)
    assert decode_alike([whole, two_chunks]) is None
    broken = [whole[:-1], whole + b"x", start + idat(content[:-9]) + end]
    # Damage anywhere is left to Pillow.
    broken += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    broken += [encoded(other) for other in (image.convert("RGBA"), image.convert("P"), image.convert("1"))]
    for other in broken:
        assert decode_plain(other) is None
        assert decode_alike([whole, other]) is None
        assert decode_alike([other, whole]) is None
    assert decode_alike([whole, encoded(picture(0, (7, 33), mode))]) is None
    # Wrong within, though every CRC-32 is right.
    rows = zlib.decompress(content)
    for wrong in (b"\7" + rows[1:], rows + b"x", rows[:-1], bytes(10**7)):
        assert decode_alike([whole, start + idat(zlib.compress(wrong)) + end]) is None
    for cut in (b"", content[:-1], content[:-1] + bytes([content[-1] ^ 1])):  # of the checksum at the end, or more
        assert decode_alike([whole, start + idat(cut) + end]) is None


# --- names of classes ---


def test_names_of_classes_are_kept(tmp_path):
    source = write_folder(tmp_path / "in", {"dog/1.png": png(1), "cat/0.png": png(0), "caf\xe9/2.png": png(2)})
    assert open_source(source).classes == ("caf\xe9", "cat", "dog")
    make_dataset(plan_dataset(open_source(source), tmp_path / "a.zip", Transform()))
    make_dataset(plan_dataset(open_source(tmp_path / "a.zip"), tmp_path / "b.zip", Transform()))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert read_images(tmp_path / "b.zip").classes == ("caf\xe9", "cat", "dog")


@pytest.mark.parametrize(
    ("classes", "notes"),
    [
        (("cat", "dog"), []),
        (("0", "1", "2"), []),
        (("00", "01", "02"), []),
        (("0", "1", "10", "2"), ["folder 10 is class 2"]),
        (("\u00b2", "\u2460"), []),  # digits for Python, and no numbers
        (("class1", "class10", "class2"), ["folder class10 is class 1"]),
        (("class-10", "class9"), []),
        (("1", "2", "3"), ["folder 1 is class 0"]),
        (("", "cat"), ["images beside the folders are class 0"]),
        (("train", "val"), ["the classes have train, val, which look like parts of a data set"]),
        (("train2017", "val2017"), ["the classes have train2017, val2017, which look like parts"]),
        (("Test-set", "train_set", "x"), ["the classes have Test-set, train_set, which look like parts"]),
        (("cat", "trainset"), ["the classes have trainset, which looks like a part"]),
        (("data", "settee", "trains", "tested"), []),
    ],
)
def test_what_looks_wrong_is_said(classes, notes):
    assert [note[: len(start)] for note, start in zip(class_notes(classes), notes, strict=True)] == notes


def test_a_zip_made_on_windows_keeps_its_classes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat\\0.png", png(0))
        archive.writestr("dog\\0.png", png(1))
    source = open_source(tmp_path / "a.zip")
    assert (source.labels.tolist(), source.classes) == ([0, 1], ("cat", "dog"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_file_twice_in_an_archive_is_named(write, tmp_path):
    for number, again in enumerate(("a/1.png", "./a/1.png", "a//./1.png")):
        path = tmp_path / f"{number}.archive"
        with (zipfile.ZipFile if write is write_zip else tarfile.open)(path, "w") as archive:
            for name in ("a/1.png", again):
                if write is write_zip:
                    archive.writestr(zipfile.ZipInfo(name), png(0))
                else:
                    archive.addfile(tarfile.TarInfo(name))
        with pytest.raises(InputError, match=r"archive holds a/1\.png twice; pack each file once"):
            open_source(path)


def test_a_backslash_and_a_slash_make_one_name_of_a_zip(tmp_path):
    with pytest.raises(InputError, match=r"holds a/1\.png twice"):
        open_source(write_zip(tmp_path / "a.zip", {"a/1.png": png(0), "a\\1.png": png(1)}))


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_the_folder_itself_is_no_class(write, tmp_path):
    source = open_source(write(tmp_path / "a", {"./a/1.png": png(0), "a/2.png": png(1)}))
    assert (list(source.names), source.labels) == (["a/1.png", "a/2.png"], None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset.json", '{"labels": [["1.png", 0], ["a/0.png", 1], ["1.png", 2]]}'),
        ("metadata.csv", "file_name,label\n1.png,3\na/0.png,1\n./1.png,4\n"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 3}\n' * 2),
    ],
)
def test_an_image_listed_twice_is_named(name, text, tmp_path):
    write_folder(tmp_path, {"1.png": png(0), "a/0.png": png(1), name: text.encode()})
    with pytest.raises(InputError, match=rf"{name} lists 1\.png twice; list each image once"):
        open_source(tmp_path)


def test_a_first_image_without_a_class_of_a_webdataset(tmp_path):
    files = samples(range(3))
    del files["0000.cls"]
    with pytest.raises(InputError, match=r"0000\.cls is missing; every image needs a class"):
        open_source(write_tar(tmp_path / "a.tar", files))
    only = {"a/1.png": png(0), "b/1.png": png(1), "paper.cls": b"of LaTeX"}
    assert open_source(write_tar(tmp_path / "b.tar", only)).classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (['{"label": 7, "text": "x"}', '{"label": 3}'], ([7, 3], ())),
        (['{"label": "dog"}', '{"label": "cat"}'], ([1, 0], ("cat", "dog"))),
        (['{"text": "x"}', "[]"], ([0, 1], ("a", "b"))),  # captions: the folders count
        (['{"label": 7}', '{"text": "x"}'], r"b/1\.json has no label, and others have"),
        (['{"text": "x"}', '{"label": 7}'], r"a/1\.json has no label, and others have"),
        (['{"label": 7}', '{"label": [1]}'], r"b/1\.json has the label \[1\], and a class is a number or a text"),
        (['{"label": 7}', '{"label": -1}'], r"\.json files has the label -1, and a class is"),
        (['{"label": 7}', '{"label": 1, "label": 2}'], r"b/1\.json is damaged .* has the key 'label' twice"),
        (['{"label": 7}', "{"], r"b/1\.json is damaged"),
    ],
)
def test_labels_in_the_json_files_of_a_webdataset(labels, found, tmp_path):
    files = {"a/1.jpg": png(0), "b/1.jpg": png(1)}
    files |= {f"{name}/1.json": label.encode() for name, label in zip("ab", labels, strict=True)}
    write_tar(tmp_path / "a.tar", files)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            open_source(tmp_path / "a.tar")
    else:
        source = open_source(tmp_path / "a.tar")
        assert (source.labels.tolist(), source.classes) == found


@pytest.mark.parametrize(
    ("given", "labels", "classes"),
    [
        (["dog", "cat"], [1, 0], ("cat", "dog")),
        ([10.0, 2.0], [10, 2], ()),
        (["10", "2"], [10, 2], ()),
        ([-1, -1], None, ()),
    ],
)
def test_labels_of_parquet_that_are_no_integers(given, labels, classes, tmp_path):
    source = open_source(write_parquet(tmp_path / "a.parquet", labels=given))
    assert (source.labels if labels is None else source.labels.tolist(), source.classes) == (labels, classes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.5, 1.0], "not all of its images have a class 0, 1"),
        ([1, None], "not all of its images have a class 0, 1"),
        (["cat", None], "not all of its images have a class"),
        ([[0], [1]], "a label is a number or text"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_labels_of_parquet_that_are_no_classes(given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_source(write_parquet(tmp_path / "a.parquet", labels=given))


def test_zeros_are_advised_where_they_help():
    advice = "write numbers with zeros before them"
    assert advice in class_notes(["0", "1", *map(str, range(10, 20)), *map(str, range(2, 10))])[0]
    assert advice in class_notes(["class1", "class10", "class2"])[0]
    for classes in (["1", "2", "3"], ["1", "10", "2"]):
        assert advice not in class_notes(classes)[0]


def test_classes_with_the_same_folders_look_like_parts():
    names = [f"{part}/{animal}/1.png" for part in ("new", "old") for animal in ("cat", "dog")]
    assert class_notes(["new", "old"], names) == [
        "the classes have new, old, which look like parts of a data set; give one of its parts"
    ]
    assert class_notes(["new", "old"], [names[0], names[1], names[2]]) == []
    assert class_notes(["n01", "n02"], ["n01/images/1.png", "n02/images/1.png"]) == []
