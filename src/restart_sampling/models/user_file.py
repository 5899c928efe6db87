"""A net that a function in a user's own Python file makes. The file's code is run."""

import hashlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

import restart_sampling
from restart_sampling.base.errors import InputError, one_line
from restart_sampling.base.files import sha256
from restart_sampling.base.numerics import weights_sha256
from restart_sampling.sampling.net import Net

_FORM = "return a net (of rs.from_eps and the like), or (net, shape) with the shape (C, H, W) of an image"


def load_net_file(source: str, device: torch.device) -> Net:
    """Runs a Python file, and a function in it that makes a net.

    The function is called without arguments, with `device` as torch's default, and returns a net, or (net, shape) with
    the shape (C, H, W) of its images where the net has neither a `shape` nor `channels` and `resolution`. Modules
    beside the file can be imported. The identity of the net is the SHA-256 of the file, of the modules of its folder
    that are imported by then, of the function's name, and of its own identity, or of the weights of a torch module.

    Args:
        source: `file.py:make`, the path of the file and the name of the function.
        device: where the net has to be.

    Raises:
        InputError: there is no such file or function, its code fails, or what it makes is no net or on another device.
            The same when the net is called.
    """
    name, _, function = source.partition(".py:")
    path = Path(name if name == source else f"{name}.py")
    if not function:
        raise InputError(f"--model {source}: write {source}:make, with the name of its function; it has to {_FORM}")
    if not path.is_file():
        raise InputError(f"--model {source}: there is no file {path}")
    with _errors_of(source, path):
        make = getattr(_run(path), function, None)
        if not callable(make):
            raise InputError(f"--model {source}: {path} has no function {function}; its function has to {_FORM}")
        with device:
            made = make()
    net, shape = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    missing = [
        part for part in ("process", "sigma_min", "sigma_max", "D", "device", "round_level") if not hasattr(net, part)
    ]
    if missing or not callable(net):
        raise InputError(
            f"--model {source}: {function}() gives a {type(net).__name__} without {' and '.join(missing) or 'a call'}; "
            f"it has to {_FORM}"
        )
    if net.device.type != device.type:
        raise InputError(
            f"--model {source}: its net is on {net.device.type}, and the command computes on {device.type}; give "
            f"--device {net.device.type}, or make the network where torch.get_default_device() says"
        )
    return cast(Net, _FileNet(net, shape, source, path, _code_sha256(path, function)))


class _FileNet:
    """A net that is like another, but for its identity and its errors."""

    def __init__(self, net: Net, shape: tuple[int, ...] | None, source: str, path: Path, code_sha256: str) -> None:
        self._net, self._source, self._path, self._code_sha256 = net, source, path, code_sha256
        if shape is not None:
            self.shape = shape

    @property
    def own_identity(self) -> str | None:
        """That of the net itself, by which it is known where Python code makes it without this file."""
        return getattr(self._net, "identity", None)

    @property
    def identity(self) -> str | None:
        """SHA-256 of the code and of the weights; None: the weights are not known."""
        own = self.own_identity
        if own is None and isinstance(self._net, torch.nn.Module):
            own = weights_sha256(self._net)
        return own and hashlib.sha256(f"{self._code_sha256} {own}".encode()).hexdigest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def __call__(self, x: Tensor, level: Tensor, /, *args: Any, **kwargs: Any) -> Tensor:
        with _errors_of(self._source, self._path):
            return self._net(x, level, *args, **kwargs)


def _run(path: Path) -> ModuleType:
    """Runs the file as a module, with what lies beside it."""
    spec = spec_from_file_location(f"net_file_{path.stem}", path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _code_sha256(path: Path, function: str) -> str:
    """Computes the SHA-256 of a function's name, its file, and the modules that were imported from the file's folder.

    Installed packages and this one do not count, even where they lie in the folder: which are imported depends on the
    command.
    """
    file, folder = path.resolve(), path.parent.resolve()
    not_own = [Path(sysconfig.get_path("stdlib")).resolve(), Path(restart_sampling.__file__).resolve().parent]

    def is_own(module: Path) -> bool:
        installed = {"site-packages", "dist-packages"} & {*module.parts[len(folder.parts) :]}
        return module.is_relative_to(folder) and not installed and not any(map(module.is_relative_to, not_own))

    places = [
        getattr(module, "__dict__", {}).get("__file__") for name, module in [*sys.modules.items()] if name != "__main__"
    ]
    imported = {Path(place).resolve() for place in places if isinstance(place, str)}
    files = {file, *(module for module in imported if is_own(module) and module.is_file())}
    own = sorted((each.relative_to(folder).as_posix(), sha256(each)) for each in files)
    return hashlib.sha256(repr((function, own)).encode()).hexdigest()


@contextmanager
def _errors_of(source: str, path: Path) -> Iterator[None]:
    """Says of an error in the file where it is, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path.absolute())
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = "" if line is None else f", line {line}"
        raise InputError(f"--model {source}: {path}{where}: {one_line(error)}") from error
