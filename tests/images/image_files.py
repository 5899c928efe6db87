"""Small image sets in the forms that sources have, and CIFAR-10's batches in the bytes of Python 2."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def picture(seed, size=(8, 8), mode="RGB"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8))


def encoded(image, form="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(seed, size=(8, 8), mode="RGB"):
    return encoded(picture(seed, size, mode))


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files):
    form = {".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Python2:
    """What Python 2's cPickle wrote with protocol 2: a BINPUT after all that can be referred to again."""

    def __init__(self):
        self.memo = 0

    def put(self, code):
        self.memo += 1
        number = self.memo
        return code + (b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number))

    def text(self, value):
        head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        return self.put(head + value)

    def integer(self, value):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def items(self, kind, parts):
        return self.put(b"]" if kind is list else b"}") + b"(" + b"".join(parts) + (b"e" if kind is list else b"u")

    def array(self, array):
        code = self.put(b"cnumpy.core.multiarray\n_reconstruct\n") + self.put(b"cnumpy\nndarray\n")
        code += self.put(b"K\0\x85") + self.text(b"b")
        code = self.put(self.put(code + b"\x87") + b"R")
        shape = self.put(b"".join(map(self.integer, array.shape)) + b"\x86")
        kind = self.put(b"cnumpy\ndtype\n") + self.text(b"u1") + self.put(b"K\0K\1\x87")
        kind = self.put(kind + b"R") + self.put(
            b"(K\3" + self.text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t"
        )
        return code + self.put(b"(K\1" + shape + kind + b"b\x89" + self.text(array.tobytes()) + b"t") + b"b"


def cifar_batch(images, labels, extra=b""):
    p = Python2()
    content = [p.text(b"batch_label"), p.text(b"training batch 1 of 5"), p.text(b"labels")]
    content += [p.items(list, map(p.integer, labels)), p.text(b"data"), p.array(images.reshape(len(images), -1))]
    content += [p.text(b"filenames"), p.items(list, [p.text(b"leptodactylus_s_%06d.png" % i) for i in labels])]
    return b"\x80\x02" + p.items(dict, [*content, extra]) + b"."


def cifar_set(count=6):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (5, count, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, (5, count))
    return images, labels


def write_cifar(path, batches):
    files = {f"cifar-10-batches-py/data_batch_{number + 1}": batch for number, batch in enumerate(batches)}
    return write_tar(path, {"cifar-10-batches-py/batches.meta": b"", **files, "cifar-10-batches-py/test_batch": b""})


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, images, labels):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(images)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return path
