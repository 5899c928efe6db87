"""`Meeting`: processes of a run wait for one another, and find out which of them hangs or has ended."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from torch.distributed import Store  # type: ignore[attr-defined]

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted

_SIGN = 1.0  # seconds between two signs of life, and between two looks at those of the others
_POLL = 0.02  # seconds, at most, between two questions whether all are here
_ENDED = "ended"


class HangingRankError(InputError):
    """A process hangs, and nothing can go on without it."""


class Meeting:
    """Where all processes come together before each collective operation, which then takes no time.

    A process may be late for hours, as long as it is at work: a collective operation cannot tell that from one that
    hangs, and has to be given hours for both.

    Args:
        store: that all processes share.
        rank: of this process.
        size: how many there are.
        patience: seconds that a process may do nothing while others wait for it.
    """

    def __init__(self, store: Store, rank: int, size: int, patience: float) -> None:
        self._store, self._rank, self._size, self._patience = store, rank, size, patience
        self._met = self._signs = 0
        self._next_sign = 0.0
        self._say()

    def alive(self) -> None:
        """Says that this process is at work, at most once a second."""
        if time.monotonic() >= self._next_sign:
            self._next_sign = time.monotonic() + _SIGN
            self._signs += 1
            self._say()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Says so all the time, around work that has no steps after which it could be said."""
        done = Event()

        def say() -> None:
            while not done.wait(_SIGN):
                self.alive()

        with ThreadPoolExecutor(1) as thread:
            try:  # a signal may come while the thread starts
                thread.submit(say)
                yield
            finally:
                done.set()

    def wait(self) -> None:
        """Waits until all processes are here.

        Raises:
            HangingRankError: one has done nothing for too long.
            SystemExit: one has ended, which says why.
        """
        self._met += 1
        self._say()
        here, met = (f"{name} {self._met}" for name in ("here", "met"))
        if self._store.add(here, 1) == self._size:
            self._store.set(met, "")
            for name in ("here", "met"):  # of the last time, which all have left behind
                self._store.delete_key(f"{name} {self._met - 1}")
            return
        # Asks again and again, because a wait in torch hears no signal.
        pause, next_look = _POLL / 100, time.monotonic() + _SIGN
        signs = _Signs(self._patience)
        while not self._store.check([met]):
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _SIGN
                self._look(signs)

    def end(self) -> bool:
        """Says that this process ends before its time; returns whether it is the first one to do so."""
        try:
            self._store.set(self._key(self._rank), _ENDED)
            return bool(self._store.add("ended", 1) == 1)
        except RuntimeError:  # torchrun, which holds the store, has ended already
            return self._rank == 0

    def _look(self, signs: "_Signs") -> None:
        for rank, sign in enumerate(self._store.multi_get([self._key(rank) for rank in range(self._size)])):
            if sign == _ENDED.encode():
                raise SystemExit(2)
            if int(sign.split()[0]) < self._met and signs.are_old(rank, sign):
                raise HangingRankError(
                    f"rank {rank} of this run has done nothing for {counted(self._patience / 60, 'minute', 'g')} "
                    "while others wait for it; give the same command again, with a longer --rank-timeout if it was "
                    "only slow"
                )

    def _say(self) -> None:
        self._store.set(self._key(self._rank), f"{self._met} {self._signs}")

    def _key(self, rank: int) -> str:
        return f"rank {rank}"


class _Signs:
    """The last signs of life of the other processes, and when they were new."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: dict[int, tuple[bytes, float]] = {}

    def are_old(self, rank: int, sign: bytes) -> bool:
        now = time.monotonic()
        if self._seen.get(rank, (b"", 0.0))[0] != sign:
            self._seen[rank] = sign, now
        return now - self._seen[rank][1] >= self._patience
