"""Torch settings: full float32 (no TF32), default dtype and device, the dtype of states, a hash of weights."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(exact: bool = False) -> Iterator[None]:
    """Turns off TF32, which torch lets convolutions on recent NVIDIA devices use in place of float32.

    With TF32 (10 bits of mantissa) features and images depend on the batch size far more than float32 lets them.

    Args:
        exact: also have cuDNN take kernels that give the same bits at every run.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32, convolutions.deterministic
    convolutions.allow_tf32 = products.allow_tf32 = False
    convolutions.deterministic = exact or convolutions.deterministic
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32, convolutions.deterministic = before


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
    """The dtype of a sampler's state and levels: float64, or float32 on devices that may have no float64 (MPS, XPU)."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def weights_sha256(network: torch.nn.Module) -> str:
    """Computes the SHA-256 of the names and the bytes of all weights, in the order of the names."""
    weights = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        weights.update(key.encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return weights.hexdigest()
