"""Torch settings: full float32 (no TF32), default dtype and device, the dtype of states, a hash of weights."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32(exact: bool = False) -> Iterator[None]:
    """Turns off TF32, which torch lets convolutions on recent NVIDIA devices use in place of float32.

    With TF32 (10 bits of mantissa) features and images depend on the batch size far more than float32 lets them.

    Args:
        exact: also have cuDNN take kernels that give the same bits at every run.
    """
    cudnn = torch.backends.cudnn
    deterministic, cudnn.deterministic = cudnn.deterministic, exact or cudnn.deterministic
    switches, off = _tf32_switches()
    before = [getattr(*switch) for switch in switches]
    for switch in switches:
        setattr(*switch, off)
    try:
        yield
    finally:
        cudnn.deterministic = deterministic
        for switch, value in zip(switches, before, strict=True):
            setattr(*switch, value)


def _tf32_switches() -> tuple[list[tuple[Any, str]], bool | str]:
    """Finds what turns TF32 on and off, and the value for off.

    torch has old switches and new ones, and refuses to read the old where the user has set the new; elsewhere it is the
    new that could disagree with what torch itself reads.
    """
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul
    old = [(cudnn, "allow_tf32"), (products, "allow_tf32")]
    try:
        for switch in old:
            getattr(*switch)
    except RuntimeError:
        return [(part, "fp32_precision") for part in (cudnn.conv, cudnn.rnn, products)], "ieee"
    return old, False


@contextmanager
def torchs_own_defaults() -> Iterator[None]:
    """Makes tensors float32 on the CPU where nothing else is said, whatever the user has made torch's defaults."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def state_dtype(device: torch.device) -> torch.dtype:
    """Returns the dtype of a sampler's state and levels: float64, but float32 on MPS and XPU, which may have none."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tells whether a device is a CPU that multiplies bfloat16 by instructions of its own (AVX512-BF16 or AMX)."""
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # of torch 2.13
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def weights_sha256(network: torch.nn.Module, dtype: torch.dtype | None = None) -> str:
    """Computes the SHA-256 of the names and the bytes of all weights, in the order of the names.

    Args:
        network: with the weights.
        dtype: that floating-point weights are rounded to before; None: as they are.
    """
    weights = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        own = tensor.detach().to(dtype) if dtype and tensor.is_floating_point() else tensor.detach()
        weights.update(key.encode())
        weights.update(own.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return weights.hexdigest()
