"""Processes that are threads of one."""

from dataclasses import dataclass, field
from threading import Barrier

from restart_sampling.base.ranks import Ranks


@dataclass(frozen=True)
class InThread(Ranks):
    """A process of several that is a thread."""

    barrier: Barrier | None = None
    box: dict[int, object] = field(default_factory=dict)

    def gather(self, value):
        self.box[self.rank] = value
        self.barrier.wait(60)
        gathered = [self.box[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return gathered
