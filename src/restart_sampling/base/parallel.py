"""Work that is done ahead by threads or processes, and arrives in order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[T, R]):
    """Processes that call a function for the threads of this one; all end with it, or at the end of a `with`.

    They are fresh ones, not copies of this one, which may hang where it has threads. Each has a pipe of its own. In a
    ProcessPoolExecutor all share one, and where a process is ended in the middle of what it writes, the others, and
    whoever reads, wait for ever.

    Args:
        count: of the processes.
        function: of an item; it can be pickled, as can the items, results and errors.
        begin: what each process calls first.
    """

    def __init__(self, count: int, function: Callable[[T], R], begin: Callable[[], None]) -> None:
        self._count, self._work = count, (function, begin)
        self._processes: list[SpawnProcess] = []
        self._idle: SimpleQueue[Connection] = SimpleQueue()

    def __enter__(self) -> "Workers[T, R]":
        spawn = get_context("spawn")
        resource_tracker.ensure_running()  # which lets the signals through again, where the first process starts it
        try:
            with _waiting_signals():  # the processes inherit that
                for _ in range(self._count):
                    own, other = spawn.Pipe()
                    process = spawn.Process(target=_work, args=(other, *self._work))
                    process.start()
                    self._processes.append(process)
                    other.close()
                    self._idle.put(own)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with _waiting_signals():
            for process in self._processes:
                process.kill()
            for process in self._processes:
                process.join()

    def __call__(self, item: T) -> R:
        """Calls the function in an idle process; as many threads may call this as there are processes.

        Raises:
            ChildProcessError: the process was ended.
            Exception: of the function.
        """
        pipe = self._idle.get()
        try:
            pipe.send(item)
            result, error = pipe.recv()
        except (EOFError, OSError) as lost:
            raise ChildProcessError("a worker process was ended") from lost
        finally:
            self._idle.put(pipe)
        if error is not None:
            raise error
        return result


@contextmanager
def _waiting_signals() -> Iterator[None]:
    """Signals that reach all of a terminal or of a service are for the main process, and for later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, function: Callable[[T], R], begin: Callable[[], None]) -> None:
    """Answers with the result, or the error, of each item, until nobody asks any more."""
    begin()
    with suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            answer: tuple[R | None, Exception | None]
            try:
                answer = function(item), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)


def in_order(executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yields `function` of each item, in the order of the items, whoever is done first.

    Args:
        executor: does the work; it is shut down where that is left early.
        function: of an item.
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
        if waiting:
            executor.shutdown(cancel_futures=True)
