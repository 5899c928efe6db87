"""Small files that ask for much memory, disk or time: one sentence, in a process that may not have much."""

import bz2
import gzip
import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from image_files import png, write_folder

from restart_sampling.base.errors import InputError
from restart_sampling.images.sources import open_source

GIB = 2**30
OPEN = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({GIB}, {GIB}))
from restart_sampling.base.errors import InputError
from restart_sampling.images.image_set import read_images
try:
    for batch in read_images(sys.argv[1]).batches():
        pass
except InputError as error:
    print(error)
"""


def refusal(path):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    return done.stdout


def empty_png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = zlib.compress(bytes(2**20))
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def repeated(packer, head, part, times):
    return packer.compress(head) + b"".join(packer.compress(part) for _ in range(times)) + packer.flush()


def bomb(name, folder):
    path = folder / name
    zeros = bytes(2**24)
    if name.startswith("png"):
        write_folder(path, {"a.png": empty_png(*{"png81": (9000, 9000), "png169": (13000, 13000)}[name])})
    elif name == "tar.bz2":
        member = tarfile.TarInfo("a.bin")
        member.size = 8 * len(zeros)
        path.write_bytes(repeated(bz2.BZ2Compressor(), member.tobuf(), zeros, 8))
    elif name.endswith("idx3-ubyte"):
        path.write_bytes(struct.pack(">4I", 0x803, 2**16, 2**8, 2**7))
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 2**27, 1, 1) + bytes(2**27), 1))
    elif name == "a.npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("arr_0.npy", "w") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (8, 2048, 2048, 3)}
            )
            for _ in range(6):
                file.write(zeros)
    elif name == "json.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", png(0))
            archive.writestr("dataset.json", b'{"labels":[' + b'["a.png",1],' * 2**22 + b'["a.png",1]]}')
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("png81", "a.png has more than 67,108,864 pixels"),
        ("png169", "a.png has more than 67,108,864 pixels"),
        ("tar.bz2", "over 100 times its size"),
        ("train-images-idx3-ubyte", "2,147,483,648 bytes are announced, and 0 are there"),
        ("train-images-idx3-ubyte.gz", "over 100 times its size"),
        ("a.npz", "over 100 times its size"),
        ("json.zip", "dataset.json has 50,331,672 bytes for 1 image"),
    ],
)
def test_a_bomb_is_refused_within_a_gibibyte(name, message, tmp_path):
    assert message in refusal(bomb(name, tmp_path))


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is a broken link, a device or a pipe"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="it is a device or a pipe"):
        open_source(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"b\.png is a broken link, a device or a pipe"):
        open_source(tmp_path)


def test_doubled_links_come_to_an_end(tmp_path):
    for depth in range(30):
        (tmp_path / f"{depth}").mkdir()
        for side in "ab":
            (tmp_path / f"{depth}" / side).symlink_to(tmp_path / f"{depth + 1}")
    write_folder(tmp_path, {"30/x.png": png(0)})
    with pytest.raises(InputError, match="is reached along more than 100 links"):
        open_source(tmp_path / "0")


def test_a_large_file_is_told_before_it_is_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"a\.png has 1,099,511,627,776 bytes"):
        open_source(tmp_path).image(0)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_not_utf_8(tmp_path):
    write_folder(tmp_path, {"caf\udce9/a.png": png(0), "dog/b.png": png(1)})
    source = open_source(tmp_path)
    assert [name for name, _, _ in source] == ["caf\udce9/a.png", "dog/b.png"]
    assert source.where(0).isprintable()


def test_a_file_of_a_folder_takes_no_more_memory_than_it_has_bytes(tmp_path):
    source = open_source(write_folder(tmp_path, {"a.png": png(0)}))
    tracemalloc.start()
    source.raw(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_compression(method, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # of bytes, as if these files had more than 32 bits can count
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.comment = b"a comment"
        archive.writestr("b\\1.png", png(1))
        with archive.open("a/0.png", "w", force_zip64=True) as file:
            file.write(png(0))
    source = open_source(tmp_path / "a.zip")
    assert [(name, source.raw(place)) for place, name in enumerate(source.names)] == [
        ("a/0.png", png(0)),
        ("b/1.png", png(1)),
    ]
    assert source.classes == ("a", "b")


def test_a_zip_of_more_files_than_16_bits_can_count(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(65_600):
            archive.writestr(f"{number:06d}.png", b"x")
    source = open_source(tmp_path / "a.zip")
    assert (len(source), source.names[65_599], source.raw(65_599)) == (65_600, "065599.png", b"x")
