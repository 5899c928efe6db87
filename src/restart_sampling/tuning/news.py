"""`News`: what is said of the search of an NFE on the way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

from restart_sampling.base.logbook import Logbook
from restart_sampling.tuning.bench import Bench, Measured
from restart_sampling.tuning.clock import Clock
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.objective import Key

SECONDS_BETWEEN_WORDS = 30.0


@dataclass
class News:
    """What is said of the search of an NFE on the way.

    Attributes:
        nfe: of the search.
        bench: has the results.
        clock: of the search.
        seeds: the best plan is the best of those that were measured on these.
        tell: is told of the progress, in sentences.
        log: gets the value of each plan that is measured, and the best so far.
        limits: a plan beyond them is not the best.
        asked: the usual plans that are measured now.
        best: the value of the best plan so far, and its text; "": there is none.
        next_word: when there is something to say again.
    """

    nfe: int
    bench: Bench
    clock: Clock
    seeds: range
    tell: Callable[[str], None]
    log: Logbook
    limits: Limits = field(default_factory=Limits)
    asked: Sequence[str] = ()
    best: tuple[float, str] = (inf, "")
    next_word: float = 0.0

    def say(self, stage: str, more: str) -> None:
        """Tells something of a stage."""
        self.tell(f"NFE {self.nfe}, {stage}{': ' * bool(more)}{more}")

    def begin_usual(self, plans: Sequence[str]) -> None:
        """Tells how many usual plans there are, which are measured now."""
        self.say("usual plans", f"{len(plans)} of them")
        self.asked, self.next_word = plans, time.monotonic() + SECONDS_BETWEEN_WORDS

    def take(self, key: Key, result: Measured) -> None:
        """Takes note of a new best plan."""
        better = key.seeds == self.seeds and result.value < self.best[0]
        if better and self.limits.hold(self.seeds, result):
            self.best, self.next_word = (result.value, key.plan), 0.0

    def told(self, key: Key, result: Measured) -> None:
        """Says at once where there is a new best plan, and now and then how it is."""
        self.take(key, result)
        values = {f"{result.stage}/nfe-{self.nfe}": result.value, f"best/nfe-{self.nfe}": self.best[0]}
        self.log.values(len(self.bench.found), {name: value for name, value in values.items() if isfinite(value)})
        if time.monotonic() < self.next_word or result.stage not in ("usual", "search", "polish"):
            return
        self.next_word = time.monotonic() + SECONDS_BETWEEN_WORDS
        far = f"best so far {self.best[0]:.4g} `{self.best[1]}`"
        if not self.best[1]:
            done = {each.plan for each in self.bench.found if each.seeds == key.seeds}.intersection(self.asked)
            far = f"{len(done)} of {len(self.asked)} measured on {len(key.seeds):,} images"
        left = f"; {max(self.clock.left, 0) / 60:.1f} minutes left" if self.clock.minutes < inf else ""
        self.say("usual plans" if result.stage == "usual" else result.stage, far + left)
