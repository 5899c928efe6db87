"""`noise` as one Triton kernel on NVIDIA GPUs, instead of about seventy launches."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: ANN001, ANN202

import torch
import triton
import triton.language as tl
from torch import Tensor

_COUNTERS = 256
_TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit(do_not_specialize=["draw", "stream", "count"])
def _normal_kernel(seeds, out, draw, stream, count, COUNTERS: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * COUNTERS + tl.arange(0, COUNTERS)
    zero = block * 0
    w0, w1, w2, w3 = tl.philox(tl.load(seeds + row), block, zero + draw, zero + stream, zero, 10)
    first = out + row * count + 4 * block
    left = count - 4 * block
    cosine, sine = _box_muller(w0, w1)
    tl.store(first, cosine, mask=left > 0)
    tl.store(first + 1, sine, mask=left > 1)
    cosine, sine = _box_muller(w2, w3)
    tl.store(first + 2, cosine, mask=left > 2)
    tl.store(first + 3, sine, mask=left > 3)


@triton.jit
def _box_muller(w0, w1):
    radius = tl.sqrt(-2 * tl.log(_uniform(w0)))
    angle = _TWO_PI * _uniform(w1)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def _uniform(word):
    return (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32


def fused_noise(seeds: Tensor, draw: int, count: int, stream: int) -> Tensor:
    """Returns what `noise` does, up to the rounding of the last digit of float64."""
    out = torch.empty(len(seeds), count, dtype=torch.float64, device=seeds.device)
    grid = (len(seeds), triton.cdiv(triton.cdiv(count, 4), _COUNTERS))
    with torch.cuda.device(seeds.device):
        _normal_kernel[grid](seeds, out, draw, stream, count, COUNTERS=_COUNTERS)
    return out
