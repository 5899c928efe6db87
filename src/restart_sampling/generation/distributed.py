"""One process or many: torchrun's ranks, on GPUs (nccl) or CPUs (gloo), and plain python alike."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: of this process; 0 prints and writes.
        size: how many there are; 1 without torchrun.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, count: int, block: int) -> list[int]:
        """Which of `count` items are this process's: they are cut into blocks, which go round the ranks."""
        starts = range(self.rank * block, count, self.size * block)
        return [index for start in starts for index in range(start, min(start + block, count))]

    def all_reduce(self, tensor: Tensor) -> None:
        """Adds up a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The CPU tensors of all processes, in the order of the ranks; their first dimensions may differ."""
        if self.size == 1:
            return [tensor]
        gathered: list[Tensor] = [tensor] * self.size
        dist.all_gather_object(gathered, tensor)
        return gathered

    @contextmanager
    def one_goes_first(self) -> Iterator[None]:
        """Rank 0 runs the body before the others: it downloads, they find the file."""
        if self.size > 1 and not self.first:
            dist.barrier()
        yield
        if self.size > 1 and self.first:
            dist.barrier()


@contextmanager
def distributed(device: torch.device) -> Iterator[Ranks]:
    """The process group that torchrun's environment describes, or one process.

    Args:
        device: cuda gives each process of a machine its own.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
