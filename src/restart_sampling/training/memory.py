"""`in_memory`: what does not fit in memory is one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from restart_sampling.base.errors import InputError

_ON_CPU = "DefaultCPUAllocator"  # in the message of torch's error there, which has no class of its own
_TOO_LARGE = "overflow"  # in those about sizes beyond 64 bits


@contextmanager
def in_memory(what: str, advice: str) -> Iterator[None]:
    """Says of a body that finds too little memory what it is that does not fit.

    Args:
        what: begins the message, in the singular.
        advice: ends it.

    Raises:
        InputError: there is too little.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = str(error)
        kinds = MemoryError | torch.OutOfMemoryError
        if not (isinstance(error, kinds) or _ON_CPU in message or _TOO_LARGE in message.lower()):
            raise
        raise InputError(f"{what} does not fit in memory; {advice}") from error
