"""What the readers of foreign checkpoints share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

RAW = "raw, as the training left them: the file has no average of them (ema)"
State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Found:
    """A network of ours that was found in a foreign file.

    Attributes:
        format: the project whose file it is.
        class_name, init_kwargs, state, metadata: as of `Checkpoint`.
    """

    format: str
    class_name: str
    init_kwargs: dict[str, Any]
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
