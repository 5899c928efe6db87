"""Work that is done ahead by threads or processes, and arrives in order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Undisturbed(SpawnProcess):
    """A process that Ctrl-C, which reaches all of a terminal, does not end: it inherits that the signal waits."""

    def start(self) -> None:
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().start()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers(SpawnContext):
    """Fresh processes for a pool, not copies of this one, which may hang where it has threads; Ctrl-C is ours alone."""

    Process = _Undisturbed


def in_order(executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yields `function` of each item, in the order of the items, whoever is done first.

    Args:
        executor: does the work; it is shut down where that is left early.
        function: for processes, one that can be pickled.
        items: taken one by one, no sooner than there is room.
        ahead: how many may be in work or done beyond the one that is asked for, which bounds the memory.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if waiting:  # a future that is cancelled by itself makes a pool hang whose processes were ended
            executor.shutdown(cancel_futures=True)
