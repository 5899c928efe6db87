"""float32 that is float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Turns off TF32, which torch lets convolutions on recent NVIDIA devices use in place of float32.

    With TF32 (10 bits of mantissa) features and images depend on the batch size far more than float32 lets them.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
