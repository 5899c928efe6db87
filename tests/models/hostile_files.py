"""Files that do harm when Python's own unpickler, or torch's, reads them; and files that are broken.

`RUNNING`: functions of a command, which the file runs. `BROKEN`: the bytes, and what the refusal says.
"""

import io
import os
import pickle
import struct
import zipfile

from edm_files import Persistent, a_pickle, binary, call, name, network, pickled, snapshot, text, training_state

EXTENSION = 240  # a code of copyreg for private use
HUGE = 2**40


class Call:
    """Is pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def integer(value):
    return b"J" + struct.pack("<i", value)


def integers(*values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def system(command):
    return call(name("os", "system"), text(command))


def python(command):
    return text(f"__import__('os').system({command!r})")


def storage_id(count, kind="FloatStorage", key="7"):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + integer(count) + b"NtQ"


def legacy(
    count=4, data=bytes(16), length=4, magic=0x1950A86A20F9469CFC6C, version=1001, little=True, key="7", described=None
):
    """The bytes of a storage, as torch.save wrote them before it wrote zips."""
    parts = [pickle.dumps(part, 2) for part in (magic, version, {"little_endian": little})]
    parts += [a_pickle(storage_id(count) if described is None else described, 2), pickle.dumps([key], 2)]
    return b"".join(parts) + struct.pack("<q", length) + data


def storage(stream=None):
    return call(name("torch.storage", "_load_from_bytes"), binary(legacy() if stream is None else stream))


def tensor(offset=0, size=(4,), stride=(1,), of=None):
    of = storage() if of is None else of
    view = integer(offset) + integers(*size) + integers(*stride)
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, view, b"\x89N")


def zipped(body, entries=(), pickle_name="archive/data.pkl", **options):
    """A zip as torch.save writes it, around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr(pickle_name, a_pickle(body, 2))
        archive.writestr("archive/version", "3\n")
        for path, data in entries:
            archive.writestr(path, data)
    return file.getvalue()


def zipped_tensor(data=bytes(16), weight=None, **options):
    """A training state with a network of one tensor."""
    weight = tensor(of=storage_id(4)) if weight is None else weight
    state = b"}" + text("_init_kwargs") + b"}s" + text("_buffers") + b"}" + text("u") + weight + b"ss"
    meta = b"}" + text("type") + text("class") + b"s" + text("module_src") + text("") + b"s"
    meta += text("class_name") + text("EDMPrecond") + b"s" + text("state") + state + b"s"
    record = call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)
    return zipped(b"}" + text("ema") + record + b"s", [("archive/data/7", data)], **options)


def numpy_scalar(kind, data, order="<"):
    kind = call(name("numpy", "dtype"), text(kind), b"\x89\x88") + b"(K\x03" + text(order) + b"NNNtb"
    return call(name("numpy.core.multiarray", "scalar"), kind, binary(data))


RUNNING = {
    "os.system": lambda c: a_pickle(system(c)),
    "posix.system": lambda c: a_pickle(call(name("posix", "system"), text(c))),
    "protocol 0": lambda c: f"cos\nsystem\n(S{c!r}\ntR.".encode(),
    "protocol 2": lambda c: a_pickle(b"cos\nsystem\n" + text(c) + b"\x85R", 2),
    "python 2": lambda c: a_pickle(b"c__builtin__\neval\n" + python(c) + b"\x85R", 2),
    "eval": lambda c: a_pickle(call(name("builtins", "eval"), python(c))),
    "exec": lambda c: a_pickle(call(name("builtins", "exec"), python(c))),
    "subprocess": lambda c: a_pickle(call(name("subprocess", "getoutput"), text(c))),
    "timeit": lambda c: a_pickle(call(name("timeit", "timeit"), text("pass"), python(c))),
    "partial": lambda c: a_pickle(call(call(name("functools", "partial"), name("os", "system"), text(c)))),
    "map": lambda c: a_pickle(
        call(name("builtins", "list"), call(name("builtins", "map"), name("os", "system"), b"]" + text(c) + b"a"))
    ),
    "getattr": lambda c: a_pickle(
        call(
            call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system")), text(c)
        )
    ),
    "copyreg": lambda c: a_pickle(call(name("copyreg", "__newobj__"), name("builtins", "object")) + system(c)),
    "pickle.loads": lambda c: a_pickle(call(name("pickle", "loads"), binary(a_pickle(system(c))))),
    "dotted name in an allowed module": lambda c: a_pickle(call(name("torch.storage", "torch.os.system"), text(c))),
    "dotted name of an allowed function": lambda c: a_pickle(
        call(name("torch", "storage._load_from_bytes"), binary(a_pickle(system(c))))
    ),
    "INST": lambda c: f"(S{c!r}\nios\nsystem\n.".encode(),
    "OBJ": lambda c: a_pickle(b"(" + name("os", "system") + text(c) + b"o"),
    "EXT1": lambda c: a_pickle(call(b"\x82" + bytes([EXTENSION]), text(c))),
    "EXT2": lambda c: a_pickle(call(b"\x83" + struct.pack("<H", EXTENSION), text(c))),
    "EXT4": lambda c: a_pickle(call(b"\x84" + struct.pack("<i", EXTENSION), text(c))),
    "memo set twice": lambda c: a_pickle(
        text("collections") + b"q\x00" + text("os") + b"q\x00" + text("system") + b"\x93" + text(c) + b"\x85R"
    ),
    "within a list": lambda c: pickled([1, {"a": Call(os.system, c)}]),
    "within the network": lambda c: pickled(snapshot(network("vp_ddpmpp", dropout=Call(os.system, c)))),
    "beside the network": lambda c: pickled({**snapshot(network("vp_ddpmpp")), "loss_fn": Call(os.system, c)}),
    "within a record": lambda c: pickled(Persistent("X", {"a": Call(os.system, c)})),
    "legacy stream": lambda c: a_pickle(storage(a_pickle(system(c)))),
    "end of a legacy stream": lambda c: a_pickle(storage(legacy(described=system(c)))),
    "legacy stream in a zip": lambda c: zipped(storage(a_pickle(system(c)))),
    "zip in a storage": lambda c: a_pickle(storage(training_state(Call(os.system, c)))),
    "training state": lambda c: training_state({"ema": Call(os.system, c)}),
    "optimizer": lambda c: training_state({"ema": network("vp_ddpmpp"), "optimizer_state": Call(os.system, c)}),
}

ORDERED_DICT = name("collections", "OrderedDict")
MODULE_DICT = name("torch.nn.modules.container", "ModuleDict")
RECORD = name("torch_utils.persistence", "_reconstruct_persistent_obj")
SLOTS = b"N}" + text("__defaults__") + b"(" + text("x") + b"ts\x86b"  # BUILD with (None, {"__defaults__": ("x",)})
LONG_TEXT = text("a" * 10**5) + text("latin1") + b"\x86"
HARMLESS = pickled(snapshot(network("vp_ddpmpp")))

BROKEN = {
    "empty": (b"", "neither a safetensors file, nor"),
    "safetensors without its end": (b"\x10\0\0\0\0\0\0\0{", "a safetensors file that was cut off"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "neither a safetensors file, nor"),
    "only the magic": (b"\x80", "the pickle is damaged"),
    "protocol 6": (a_pickle(b"N", 6), "protocol is 6"),
    "two pickles": (HARMLESS + a_pickle(b"N"), "something follows"),
    "opcodes after the end": (HARMLESS + b"cos\nsystem\n", "something follows"),
    "nothing on the stack": (a_pickle(b""), "stack is empty"),
    "two on the stack": (a_pickle(b"NN"), "left on its stack"),
    "open mark": (a_pickle(b"(N"), "left on its stack"),
    "no mark": (a_pickle(b"t"), "a mark is missing"),
    "unset memo": (a_pickle(b"h\x05"), "damaged: Memo value not found at index 5"),
    "unset huge memo": (a_pickle(b"j\xff\xff\xff\x7f"), "damaged: Memo value not found at index 2147483647"),
    "huge memo index": (a_pickle(b"Nr\xff\xff\xff\xff"), "holds no network"),
    "unknown opcode": (a_pickle(b"\xff"), "damaged: .*unknown"),
    "build on a function": (a_pickle(RECORD + SLOTS), "sets the state of a Global"),
    "build on a class": (a_pickle(ORDERED_DICT + SLOTS), "sets the state of a Global"),
    "build on a dictionary": (a_pickle(call(ORDERED_DICT) + SLOTS), "sets the state of a dict"),
    "build on a tensor": (a_pickle(tensor() + SLOTS), "sets the state of a StoredTensor"),
    "build twice": (a_pickle(MODULE_DICT + b")\x81}b}b"), "sets the state of a Blank"),
    "call of a class": (a_pickle(call(MODULE_DICT)), "calls torch.nn.modules.container.ModuleDict"),
    "call of a name": (a_pickle(call(name("torch", "FloatStorage"))), "calls torch.FloatStorage"),
    "call of text": (a_pickle(call(text("os.system"))), "calls a str"),
    "call without a tuple": (a_pickle(ORDERED_DICT + b"]R"), "calls collections.OrderedDict"),
    "new object of a function": (a_pickle(RECORD + b")\x81"), "calls torch_utils.persistence"),
    "NEWOBJ_EX": (a_pickle(ORDERED_DICT + b")}\x92"), "opcode NEWOBJ_EX"),
    "PERSID": (a_pickle(b"Pstorage\n"), "opcode PERSID"),
    "BINPERSID": (a_pickle(storage_id(4)), "opcode BINPERSID"),
    "NEXT_BUFFER": (a_pickle(b"\x97", 5), "opcode NEXT_BUFFER"),
    "READONLY_BUFFER": (a_pickle(b"N\x98", 5), "opcode READONLY_BUFFER"),
    "global's name no text": (a_pickle(b"NN\x93"), "damaged: STACK_GLOBAL requires str"),
    "global with control characters": (a_pickle(name("os\n\x1b[2J", "system")), r"asks for os\\n\\x1b"),
    "global with surrogates": (a_pickle(b"X\x03\0\0\0\xed\xa0\x80" + text("a") + b"\x93"), r"asks for \\ud800.a"),
    "global with a long name": (a_pickle(name("o" * 10**6, "system")), "asks for ooo.*[.]system, which"),
    "torch.load": (
        a_pickle(call(name("torch.serialization", "load"), text("x.pt"))),
        "asks for torch.serialization.load",
    ),
    "numpy.load": (a_pickle(call(name("numpy", "load"), text("x.npy"))), "asks for numpy.load"),
    "BYTEARRAY8 of 1 TiB": (a_pickle(b"\x96" + struct.pack("<Q", HUGE), 5), "expected 1099511627776 bytes"),
    "BINBYTES8 of 1 TiB": (a_pickle(b"\x8e" + struct.pack("<Q", HUGE)), "expected 1099511627776 bytes"),
    "BINUNICODE8 of 1 TiB": (a_pickle(b"\x8d" + struct.pack("<Q", HUGE)), "expected 1099511627776 bytes"),
    "BINBYTES8 of 16 EiB": (a_pickle(b"\x8e" + b"\xff" * 8), "the pickle is damaged"),
    "LONG4 of 2 GiB": (a_pickle(b"\x8b" + struct.pack("<i", 2**31 - 1)), "not enough data"),
    "FRAME of 1 TiB": (a_pickle(b"\x95" + struct.pack("<Q", HUGE) + b"N"), "a frame of 1,099,511,627,776 bytes"),
    "long digits": (b"\x80\x02L" + b"9" * 10**6 + b"L\n.", "the pickle is damaged"),
    "tuples to a great depth": (a_pickle(b")" + b"\x85" * 10**5), "holds no network"),
    "tuple as a key": (a_pickle(b"})" + b"\x85" * 10**5 + b"Ns"), "a key that is a tuple"),
    "odd items": (a_pickle(b"}(Nu"), "sets 1 keys and values of a dict"),
    "items of a list": (a_pickle(b"]K\x01K\x02s"), "sets 2 keys and values of a list"),
    "append to a dictionary": (a_pickle(b"}Na"), "damaged: 'dict' object has no attribute 'append'"),
    "encode": (
        a_pickle(call(name("_codecs", "encode"), text("a"), text("rot13"))),
        "calls _codecs.encode as no network does",
    ),
    "encode beyond latin1": (
        a_pickle(call(name("_codecs", "encode"), text("\u20ac"), text("latin1"))),
        "damaged: 'latin-1' codec can't encode",
    ),
    "encode again and again": (
        a_pickle(b"]" + name("_codecs", "encode") + b"q\x00a" + LONG_TEXT + b"q\x01a" + b"h\x00h\x01Ra" * 1000),
        "more than the bytes",
    ),
    "set of a number": (a_pickle(call(name("builtins", "set"), b"K\x01")), "calls builtins.set as no network does"),
    "dictionary of arguments": (a_pickle(call(ORDERED_DICT, b"]")), "calls collections.OrderedDict as no network does"),
    "device": (a_pickle(call(name("torch", "device"), b"]")), "calls torch.device as no network does"),
    "record without state": (
        a_pickle(call(RECORD, b"}")),
        "calls torch_utils.persistence._reconstruct_persistent_obj as no network does",
    ),
    "parameter of text": (
        a_pickle(call(name("torch._utils", "_rebuild_parameter"), text("a"), b"\x89N")),
        "calls torch._utils._rebuild_parameter as no network does",
    ),
    "numpy object": (
        a_pickle(numpy_scalar("O8", bytes(8), "|")),
        "calls numpy.core.multiarray.scalar as no network does",
    ),
    "numpy scalar too long": (a_pickle(numpy_scalar("f8", bytes(9))), "damaged: unpack requires a buffer of 8 bytes"),
    "numpy scalar of unknown order": (
        a_pickle(numpy_scalar("f8", bytes(8), "P")),
        "calls numpy.core.multiarray.scalar as no network does",
    ),
    "storage of text": (
        a_pickle(call(name("torch.storage", "_load_from_bytes"), text("a"))),
        "calls torch.storage._load_from_bytes as no network does",
    ),
    "storage cut off": (a_pickle(storage(legacy(data=bytes(15)))), "4 elements has 15 bytes"),
    "storage too long": (a_pickle(storage(legacy(data=bytes(17)))), "4 elements has 17 bytes"),
    "storage of another length": (a_pickle(storage(legacy(length=5))), "4 elements has 16 bytes"),
    "storage of negative length": (a_pickle(storage(legacy(count=-4, length=-4))), "not that of a storage"),
    "storage of unknown kind": (
        a_pickle(storage(legacy(described=storage_id(4, "QInt8Storage")))),
        "torch.QInt8Storage",
    ),
    "storage of another key": (a_pickle(storage(legacy(key="8"))), "not in the form of torch.save"),
    "storage of another magic": (a_pickle(storage(legacy(magic=1))), "not in the form of torch.save"),
    "storage of another version": (a_pickle(storage(legacy(version=1002))), "not in the form of torch.save"),
    "big-endian storage": (a_pickle(storage(legacy(little=False))), "not in the form of torch.save"),
    "storage that is no storage": (a_pickle(storage(legacy(described=b"N"))), "not in the form of torch.save"),
    "storage within a storage": (
        a_pickle(storage(legacy(described=storage()))),
        "asks for torch.storage._load_from_bytes",
    ),
    "tensor of text": (a_pickle(tensor(of=text("a"))), "calls torch._utils._rebuild_tensor_v2 as no network does"),
    "tensor beyond its storage": (a_pickle(tensor(size=(5,))), "not lie within"),
    "offset beyond the storage": (a_pickle(tensor(offset=1)), "not lie within"),
    "negative offset": (a_pickle(tensor(offset=-1)), "not lie within"),
    "negative stride": (a_pickle(tensor(offset=3, stride=(-1,))), "not lie within"),
    "stride beyond the storage": (a_pickle(tensor(size=(2,), stride=(4,))), "not lie within"),
    "stride 0": (a_pickle(tensor(size=(2**30,), stride=(0,))), "not lie within"),
    "negative size": (a_pickle(tensor(size=(-4,))), "not lie within"),
    "overlap": (a_pickle(tensor(size=(3, 2), stride=(1, 1))), "has a number of it twice"),
    "sizes without strides": (a_pickle(tensor(size=(2, 2))), "not lie within"),
    "too many dimensions": (a_pickle(tensor(size=(1,) * 9, stride=(1,) * 9)), "not lie within"),
    "no zip": (b"PK\x03\x04" + bytes(100), "zip is damaged"),
    "zip without a pickle": (zipped(b"N", pickle_name="archive/code.py"), "one entry data.pkl .* has 0"),
    "zip with two pickles": (zipped(b"N", [("other/data.pkl", b"")]), "one entry data.pkl .* has 2"),
    "zip of big-endian numbers": (zipped(b"N", [("archive/byteorder", b"big")]), "big-endian"),
    "storage for a tensor": (zipped_tensor(weight=storage_id(4)), "its tensor u is a Storage"),
    "zip bomb": (zipped_tensor(compression=zipfile.ZIP_DEFLATED), "compressed"),
    "zip without the storage": (zipped(storage_id(4)), "no entry of that size"),
    "zip with a smaller storage": (zipped_tensor(bytes(12)), "no entry of that size"),
    "zip with a damaged storage": (zipped_tensor(b"\1" * 16).replace(b"\1" * 16, b"\2" * 16), "zip is damaged"),
    "zip with a path for a key": (zipped(storage_id(4, key="../../etc/passwd")), "no entry of that size"),
    "zip with an encrypted entry": (
        zipped(b"N").replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "zip is",
    ),
}
