"""`Ranks`: one process or many, by torchrun on GPUs (nccl) or CPUs (gloo), or plain python."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from itertools import zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from restart_sampling.base.errors import InputError, one_line, shorten
from restart_sampling.base.meeting import HangingRankError, Meeting
from restart_sampling.base.numbers import counted

T = TypeVar("T")

_START = timedelta(minutes=10)  # to find one another
_LEAST_PATIENCE = 2.0  # minutes for a collective operation, which begins when all are there: their machine may be busy
RANK_TIMEOUT = 30.0
"""Minutes that a process may do nothing while others wait for it."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: of this process; 0 prints and writes.
        size: how many there are; 1 without torchrun.
        device: of this process.
        forgiving: whether the run goes on after work that failed, see `failing_together`.
        meeting: of many processes.
    """

    rank: int
    size: int
    device: torch.device
    forgiving: bool = False
    meeting: Meeting | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def deal(self, items: Sequence[T]) -> Sequence[T]:
        """Returns this process's share of the items, which go round the ranks."""
        return items[self.rank :: self.size]

    def share(self, count: int, block: int) -> list[int]:
        """Returns which of `count` items are this process's: they are cut into blocks, which go round the ranks."""
        starts = self.deal(range(0, count, block))
        return [index for start in starts for index in range(start, min(start + block, count))]

    def all_reduce(self, tensor: Tensor) -> None:
        """Adds up a tensor over all processes, in place; raises as `gather`."""
        if self.meeting:
            with _together(self.meeting):
                dist.all_reduce(tensor)

    def gather(self, value: T) -> list[T]:
        """Returns the values of all processes, in the order of the ranks; of tensors on the CPU, the shapes may differ.

        Raises:
            InputError: a process hangs, or was killed.
            SystemExit: a process has ended, which says why.
        """
        gathered = [value] * self.size
        if self.meeting:
            with _together(self.meeting):
                dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Waits until all processes are here."""
        self.gather(None)

    def agree(self, *abouts: Mapping[str, object]) -> None:
        """Makes sure that all processes work on the same: a model's file may differ on another machine.

        Args:
            *abouts: what they should have, such as each row of a comparison.

        Raises:
            InputError: on the first process, what another has.
            SystemExit: on the others.
        """
        first, *others = self.gather(abouts)
        for rank, other in enumerate(others, 1):
            for own, its in zip_longest(first, other, fillvalue=dict[str, object]()):
                for key in {**own, **its}:
                    if own.get(key) == its.get(key):
                        continue
                    if not self.first:
                        raise SystemExit(2)
                    raise InputError(
                        f"rank {rank} of this run has {key} {shorten(str(its.get(key)))}, and rank 0 has "
                        f"{shorten(str(own.get(key)))}; give all processes the same files"
                    )

    def alive(self) -> None:
        """Says to the others, who may wait for this process, that it is at work."""
        if self.meeting:
            self.meeting.alive()

    def at_work(self) -> AbstractContextManager[None]:
        """Says so all the time, through a long body without steps after which `alive` could be called."""
        return self.meeting.at_work() if self.meeting else nullcontext()

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Runs a body that each process does for itself: on forgiving ranks it fails on all where it fails on one.

        Each of those waits at the end for the others, so that all can go on with something else. On others the process
        that fails ends, and torchrun ends the rest.

        Raises:
            InputError: on all forgiving ranks, what went wrong on the first that failed.
        """
        if not self.forgiving:
            yield
            return
        failure = ""
        try:
            yield
        except HangingRankError:
            raise
        except Exception as error:
            failure = one_line(error)
        for each in self.gather(failure):
            if each:
                raise InputError(each)

    @contextmanager
    def one_goes_first(self) -> Iterator[None]:
        """Has rank 0 run the body before the others: it downloads, they find the file.

        Where rank 0 fails, the others end without a word: one message is enough.
        """
        if not self.first:
            if not self.gather(False)[0]:
                raise SystemExit(2)
            yield
            return
        passed = False
        try:
            with self.at_work():
                yield
            passed = True
        finally:
            self.gather(passed)


@contextmanager
def _together(meeting: Meeting) -> Iterator[None]:
    """Runs a collective operation when all are there, so that nobody waits in it for one that is late."""
    try:
        meeting.wait()
        yield
    except RuntimeError as error:
        raise HangingRankError(
            "another process of this run has ended without a word, or hangs; give the same command again"
        ) from error


@contextmanager
def distributed(device: torch.device, rank_timeout: float = RANK_TIMEOUT) -> Iterator[Ranks]:
    """Starts the process group that torchrun's environment describes, or one process.

    Args:
        device: cuda gives each process of a machine its own.
        rank_timeout: minutes that a process may do nothing while others wait for it.

    Raises:
        InputError: the environment describes a part of a process group, or there are more processes than GPUs.
    """
    size = _variable("WORLD_SIZE", 1)
    if size <= 1:
        yield Ranks(0, 1, device)
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    own, _ = _variable("RANK", 0), _variable("MASTER_PORT", 0)
    if missing or own >= size:
        reason = f"without {' and '.join(missing)}" if missing else f"and RANK {own}"
        raise InputError(f"WORLD_SIZE is {size} in the environment, {reason}; start with torchrun, or unset WORLD_SIZE")
    if device.type == "cuda":
        place, count = _variable("LOCAL_RANK", 0), torch.cuda.device_count()
        if place >= count:
            raise InputError(
                f"LOCAL_RANK is {place}, and torch sees {counted(count, 'GPU')} here; start a process for each GPU"
            )
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    # Other parts of torch import this later, and its functions keep the group of that moment as a default: then
    # destroy_process_group does not end the group's threads, and they crash the process, now and then, as it exits.
    import_module("torch.distributed.nn.functional")
    store, rank, size = next(rendezvous("env://", timeout=_START))
    meeting_store = dist.PrefixStore("meeting", store)  # type: ignore[attr-defined]
    meeting = Meeting(meeting_store, rank, size, 60 * rank_timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    patience = timedelta(minutes=max(rank_timeout, _LEAST_PATIENCE))
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    try:
        yield Ranks(rank, size, device, meeting=meeting)
    except BaseException as error:
        # All are interrupted together, and all wait for one that hangs: one line is enough.
        if not meeting.end() and isinstance(error, KeyboardInterrupt | HangingRankError):
            raise SystemExit(2) from None
        raise
    finally:
        dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    """Returns a number of the environment; an empty one is as one that is not there."""
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise InputError(
            f"{name} is {text!r} in the environment, and has to be a number; start with torchrun, or unset it"
        )
    return int(text or default)
