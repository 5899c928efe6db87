"""Builds files as EDM and PFGM++ write them, from the golden networks, without EDM's code.

`Persistent` stands for an object of a class that EDM's `persistence.persistent_class` has decorated: it is pickled as
a call of `torch_utils.persistence._reconstruct_persistent_obj`, with the source of its module.
"""

import io
import json
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = ["edm_ddpmpp_cond_aug", "edm_adm_cond", "vp_ddpmpp", "ve_ncsnpp", "iddpm_adm_cond"]
NETWORKS_SOURCE = '"""Stands for EDM\'s training/networks.py."""\nclass EDMPrecond:\n    pass\n'


class Persistent:
    def __init__(self, class_name, state, source=NETWORKS_SOURCE):
        self.class_name, self.state, self.source = class_name, state, source

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


class EasyDict(dict):
    pass


@contextmanager
def edm_modules(numpy_1: bool = False) -> Iterator[None]:
    """The modules that pickling (and Python's own unpickling) needs; `numpy_1` names numpy scalars as numpy 1 did."""

    def _reconstruct_persistent_obj(meta):  # as in EDM: it runs the source
        module = ModuleType("source")
        exec(meta["module_src"], module.__dict__)
        return SimpleNamespace(**(meta["state"] or {}))

    def scalar(dtype, data):
        return np.frombuffer(data, dtype)[0]

    modules = {}
    for path, member in {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
        **({"numpy.core.multiarray": scalar} if numpy_1 else {}),
    }.items():
        module = modules[path] = ModuleType(path)
        member.__module__, member.__qualname__ = path, member.__name__
        setattr(module, member.__name__, member)
    modules |= {"torch_utils": ModuleType("torch_utils"), "dnnlib": ModuleType("dnnlib")}
    with patch.dict(sys.modules, modules), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Pickler(pickle.Pickler):
    def __init__(self, file, protocol, numpy_1):
        super().__init__(file, protocol)
        self.numpy_1 = numpy_1

    def reducer_override(self, obj):
        if self.numpy_1 and isinstance(obj, np.generic):
            return sys.modules["numpy.core.multiarray"].scalar, (obj.dtype, obj.tobytes())
        return NotImplemented


def golden(name):
    """config, state dict of arrays, and the arrays x, sigma, labels, out of a golden network."""
    with np.load(GOLDEN / f"network_{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    config = json.loads(str(arrays.pop("config")))
    state = {key.removeprefix("state/"): arrays.pop(key) for key in list(arrays) if key.startswith("state/")}
    return config, state, arrays


def _attributes(**own):
    """The attributes of a torch module."""
    hooks = [
        "_backward_hooks",
        "_forward_hooks",
        "_forward_pre_hooks",
        "_state_dict_hooks",
        "_load_state_dict_pre_hooks",
    ]
    return {
        "training": False,
        "_parameters": OrderedDict(),
        "_buffers": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        "_is_full_backward_hook": None,
        **{hook: OrderedDict() for hook in hooks},
        "_modules": OrderedDict(),
        **own,
    }


def _kind(name, members, config):
    """Class and own attributes of the module `name` with these tensors and modules."""
    song = config["init_kwargs"]["model_type"] == "SongUNet"
    if "norm0" in members:
        dropout = config["init_kwargs"].get("dropout", 0.1)
        return "UNetBlock", {"dropout": dropout, "skip_scale": np.sqrt(0.5) if song else 1}
    if "norm" in name:
        return "GroupNorm", {"num_groups": min(32, len(members["weight"]) // 4), "eps": 1e-6 if song else 1e-5}
    return ("Conv2d", {"up": False, "down": False}) if "conv" in name else ("Linear", {})


def network(name, state=None, numbers=None, **changes):
    """The golden network as EDM holds it in memory before pickling.

    `state` replaces its state dict, `numbers` adds attributes to the preconditioning, `changes` to its init_kwargs.
    """
    config, own_state, _ = golden(name)
    tree = {}
    for key, value in (own_state if state is None else state).items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    kwargs = {"use_fp16": False, **config["init_kwargs"], **changes}
    interface = {key: kwargs[key] for key in ("img_resolution", "img_channels", "label_dim", "use_fp16")}
    precond = {**interface, "sigma_min": config["sigma_min"], "sigma_max": config["sigma_max"], **(numbers or {})}

    def build(name, node):
        attributes = _attributes()
        for key, value in node.items():
            if isinstance(value, dict):
                attributes["_modules"][key] = build(key, value)
            elif key in ("resample_filter", "freqs", "u"):
                attributes["_buffers"][key] = torch.as_tensor(value)
            else:
                attributes["_parameters"][key] = torch.nn.Parameter(torch.as_tensor(value), requires_grad=False)
        if name in ("enc", "dec"):
            container = torch.nn.ModuleDict()
            container.__dict__["_modules"] = attributes["_modules"]
            return container
        if name == "":
            return Persistent(config["class_name"], {**attributes, **precond, "_init_args": (), "_init_kwargs": kwargs})
        if name == "model":
            return Persistent(config["init_kwargs"]["model_type"], {**attributes, "_init_args": (), "_init_kwargs": {}})
        class_name, own = _kind(name, node, config)
        if class_name == "Conv2d":
            attributes["_buffers"].setdefault("resample_filter", None)
        return Persistent(class_name, {**attributes, **own})

    return build("", tree)


def snapshot(ema):
    """What EDM's training pickles."""
    loss = Persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5, "opts": EasyDict(D=2048)})
    return {
        "ema": ema,
        "loss_fn": loss,
        "augment_pipe": None,
        "dataset_kwargs": {"path": "cifar10.zip", "max_size": 50000},
    }


def pickled(content, protocol=4, numpy_1=False):
    """A .pkl file of EDM."""
    file = io.BytesIO()
    with edm_modules(numpy_1):
        _Pickler(file, protocol, numpy_1).dump(content)
    return file.getvalue()


def training_state(content, **options):
    """A .pt file of PFGM++."""
    file = io.BytesIO()
    with edm_modules():
        torch.save(content, file, **options)
    return file.getvalue()


# Opcodes, for files that no pickler writes.


def text(value):
    """BINUNICODE."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def binary(data):
    """BINBYTES."""
    return b"B" + len(data).to_bytes(4, "little") + data


def name(module, attribute):
    """STACK_GLOBAL."""
    return text(module) + text(attribute) + b"\x93"


def call(function, *arguments):
    """REDUCE of what `function` pushes."""
    return function + b"(" + b"".join(arguments) + b"tR"


def a_pickle(body, protocol=4):
    """A pickle of what `body` pushes."""
    return b"\x80" + bytes([protocol]) + body + b"."
