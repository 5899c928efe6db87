"""`CompiledNetwork`: calls of a network by torch.compile, whose work is kept on the disk."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restart_sampling.base.download import cache_folder
from restart_sampling.base.errors import one_line
from restart_sampling.base.files import write_json
from restart_sampling.base.machine import describe_device
from restart_sampling.models.denoiser import Denoiser

_log = logging.getLogger(__name__)
_uncompiled = ContextVar("uncompiled", default=False)
_LAYER_SECONDS = 0.3  # to compile a layer with weights: 136 of them took 25 to 100 s, by the host
_WARM = 0.4  # of those seconds, where the cache has all: a third to a half was measured


def compile_network(model: Denoiser, batch: int = 0, autotuned: bool = False) -> None:
    """Compiles the network of a model in place, at its next call; `batch` and `autotuned` as of `CompiledNetwork`."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.model = CompiledNetwork(model.model, batch, autotuned)


class CompiledNetwork(nn.Module):
    """A network compiled for one batch size; smaller batches are filled up, as each size would be compiled anew.

    The output is memory of the compiled graph and is written over by the next call. What was compiled is kept in the
    package's folder for caches, with the seconds that it took.

    Args:
        network: from `models.denoiser.NETWORKS`.
        batch: size of the batches for which compiling pays; those of less than half run without it. 0: compiling was
            asked for, and the first batch decides the size.
        autotuned: whether the fastest shape of each kernel is searched for.

    Attributes:
        network, batch: as above.
        asked_for: whether it was; if not, what is written of the images does not say that the network was compiled,
            and a run goes on where that does not pay.
    """

    def __init__(self, network: nn.Module, batch: int = 0, autotuned: bool = False) -> None:
        super().__init__()
        self.network = network
        self._autotuned = autotuned
        self.batch = batch
        self.asked_for = batch == 0
        self._compiled_for = 0
        keep_compiled()
        options: dict[str, Any] = {"triton.cudagraphs": True, "coordinate_descent_tuning": autotuned}
        self._compiled: Callable[..., Tensor] = torch.compile(network, dynamic=False, options=options)
        self.train(network.training)

    def forward(
        self, x: Tensor, noise_labels: Tensor, class_labels: Tensor, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Runs the network; arguments as its own."""
        count = len(x)
        inputs = (x, noise_labels, class_labels, augment_labels)
        if _uncompiled.get() or (not self.asked_for and 2 * count < self.batch):
            as_it_is: Tensor = self.network(*inputs)
            return as_it_is
        self.batch = max(self.batch, count)
        full = [each if each is None else _filled(each, self.batch) for each in inputs]
        start = time.perf_counter()
        try:
            out: Tensor = self._compiled(*full)[:count]
        except torch.OutOfMemoryError:
            self.batch = 0  # smaller batches must not be filled up to this one
            raise
        except Exception as error:  # a machine without a C compiler, and whatever else a compiler meets
            if self.asked_for or self._compiled_for:
                raise
            _log.warning(f"the network cannot be compiled here ({one_line(error)}); going on without")
            self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            self._compiled, self._compiled_for = self.network, self.batch
            out = self.network(*inputs)
        if self.batch != self._compiled_for and not self._autotuned:
            self._compiled_for = self.batch
            CompileTime(self.network, self.batch).add(time.perf_counter() - start)
        return out


@contextmanager
def uncompiled() -> Iterator[None]:
    """Runs compiled networks as they are in the body, which is for trying what a batch size takes."""
    before = _uncompiled.set(True)
    try:
        yield
    finally:
        _uncompiled.reset(before)


def keep_compiled() -> None:
    """Has torch keep what it compiles in the package's folder for caches, unless the user has named another."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled_folder())


class CompileTime:
    """How long it takes here to compile a network for a batch size: the seconds of before, or an estimate.

    Args:
        network: on its device, in its dtype.
        batch: that it is compiled for.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        weights = [(name, tuple(each.shape), str(each.dtype)) for name, each in network.named_parameters()]
        device = next(network.parameters()).device
        known = json.dumps([torch.__version__, describe_device(device), batch, weights])
        self._file = compiled_folder() / "seconds" / f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.json"
        self._layers = sum(len(shape) > 1 for _, shape, _ in weights)

    def expected(self) -> float:
        """Returns the seconds of the next first call: those of the last one with all in the cache, or an estimate."""
        times = self._times()
        if len(times) > 1:
            return times[1]
        return _WARM * times[0] if times else _LAYER_SECONDS * self._layers

    def add(self, seconds: float) -> None:
        """Remembers what a first call took. A folder that cannot be written costs the estimate, and no more."""
        with suppress(OSError):
            write_json(self._file, [*self._times()[:1], round(seconds, 1)])

    def _times(self) -> list[float]:
        """Reads the seconds of the very first call and of the last one; what is not there or damaged is left out."""
        try:
            return [float(each) for each in json.loads(self._file.read_text("utf-8"))]
        except (OSError, ValueError, TypeError):
            return []


def compiled_folder() -> Path:
    """Finds where torch keeps what it compiles: where the user says, or in the package's folder for caches."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_folder() / "compiled")


def _filled(tensor: Tensor, batch: int) -> Tensor:
    missing = batch - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor
