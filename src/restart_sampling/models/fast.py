"""Speed: a network of lower precision, with kernels of its own or compiled."""

import os
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import torch
import torch.nn.functional as F
from torch import nn

from restart_sampling.base.numbers import require_kind
from restart_sampling.models.compiled import compile_network, compiled_folder
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.sampling.noise import noise


def fast(
    model: Denoiser, dtype: torch.dtype = torch.float16, *, compiled: bool = False, autotuned: bool = False
) -> Denoiser:
    """Has the network compute in another dtype, and compiles it on request. The sampler's state stays float64.

    float16 rounds eight times less than bfloat16, which in turn cannot overflow; an overflow ends in an error, not in a
    wrong image. What either costs in distance is in benchmarks/RESULTS.md.

    Args:
        model: from `load_model`, on the device to use; it is changed in place.
        dtype: of the network's parameters and activations.
        compiled: torch.compile with CUDA graphs. The first call takes half a minute or more, later ones half the time;
            the batch size of the first call serves all later ones that are not larger.
        autotuned: where it is compiled, with the fastest shape of each kernel, which takes minutes, once.

    Returns:
        The model.

    Raises:
        InputError: it is none of `load_model`, or dtype is none of torch's.
    """
    require_kind("the model", model, Denoiser, "one of load_model")
    require_kind("the dtype", dtype, torch.dtype, "one of torch's, such as torch.float16")
    model.to(dtype)
    if dtype == torch.bfloat16 and model.device.type == "cpu":
        # oneDNN's convolutions then copy no activations, which took longer than the products.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        compile_network(model, autotuned=autotuned)
    elif model.device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        fuse_network(model)
    return model


def start_device(device: torch.device) -> None:
    """Has an NVIDIA device start in a thread, with its libraries and the noise, while the host reads a model."""
    _keep_kernels()

    def start() -> None:
        with suppress(Exception):  # the host meets it, too
            x = torch.ones(1, 64, 8, 8, dtype=torch.float16, device=device).to(memory_format=torch.channels_last)
            F.linear(F.conv2d(x, x.new_ones(64, 64, 3, 3)).flatten(1), x.new_ones(8, 64 * 36))
            noise(torch.zeros(1, dtype=torch.int64, device=device), draw=0, count=4)

    Thread(target=start, daemon=True).start()


def fuse_network(model: Denoiser) -> None:
    """Has the network of a model run with the kernels of `models.kernels`, in place, where Triton is there.

    What Triton compiles, in some seconds, is kept in the package's folder for caches.
    """
    kept = _keep_kernels()
    if find_spec("triton") is not None:  # torch brings it along on Linux
        from restart_sampling.models.fused import fuse
        from restart_sampling.models.kernels import compile_together

        model.fused = fuse(model.model)
        if model.fused and not any(kept.glob("*/_normalize.json")):
            compile_together(partial(_one_call, model), model.device)


def kernels_serve(device: torch.device, images: int) -> bool:
    """Tells whether the kernels of `models.kernels` are the fast way to train on so many images at a time.

    Their programs go through an image each, so that fewer images leave most of a device idle.
    """
    if device.type != "cuda" or find_spec("triton") is None or torch.version.hip is not None:
        return False
    chip = torch.cuda.get_device_properties(device)
    return bool(chip.major >= 7 and 2 * images >= chip.multi_processor_count)  # Triton has no code for older ones


def fuse_training(network: nn.Module, dtype: torch.dtype) -> None:
    """Has a network run with the kernels of `models.kernels` in training, in place.

    Args:
        network: as `fuse_for_training` takes it.
        dtype: of its activations.
    """
    from restart_sampling.models.fused_training import fuse_for_training

    compile_for_training(next(network.parameters()).device, dtype)
    fuse_for_training(network)


def compile_for_training(device: torch.device, dtype: torch.dtype) -> None:
    """Has an NVIDIA device start, and compiles the kernels of training, which takes seconds the first time.

    Args:
        device: which.
        dtype: of the network's activations.
    """
    from restart_sampling.models.gradient_kernels import compile_kernels

    _keep_kernels()
    compile_kernels(device, dtype)


def _keep_kernels() -> Path:
    """Has Triton keep what it compiles in the package's folder for caches, unless the user has named another."""
    return Path(os.environ.setdefault("TRITON_CACHE_DIR", str(compiled_folder() / "triton")))


@torch.no_grad()
def _one_call(model: Denoiser) -> None:
    """Evaluates one image."""
    x = torch.zeros(1, *model.shape, device=model.device)
    model(x, x.new_ones(1))
