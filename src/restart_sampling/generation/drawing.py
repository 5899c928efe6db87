"""`Drawing`: a model with a sampler; its cost, its identity and its images by seed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from restart_sampling.generation.batch import Batch
from restart_sampling.generation.pace import Pace

Advance = Callable[[float], None]
"""Is told of each evaluation of the network, as the part of the images that it makes; those of an image add up to 1.

It is told on the host when the evaluation is launched, so nothing waits for the device, which may be behind by what it
still has to do: a batch or two.
"""


class Drawing(Protocol):
    """A model with a sampler, which were found to fit one another when this was made."""

    @property
    def nfe(self) -> int:
        """Calls of the denoiser for an image."""

    @property
    def network_evaluations(self) -> int:
        """Evaluations of the network for an image: more than `nfe` under classifier-free guidance."""

    @property
    def batch(self) -> int:
        """Images of a batch."""

    @property
    def pace(self) -> Pace:
        """How many images the device draws at a time, for one batch or several."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[C, H, W] of an image; None: known when one was drawn."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; () where none are known."""

    @property
    def about(self) -> dict[str, Any]:
        """JSON, all that determines the images but their seeds."""

    def labels(self, seeds: Sequence[int]) -> Tensor | None:
        """Returns the class of each of these seeds, int64 [N], on the CPU; None: there are no classes."""

    def draw(self, seeds: Sequence[int], advance: Advance = ...) -> Iterator[Batch]:
        """Draws images of these seeds in batches, in their order; nothing is computed before it is asked for.

        Args:
            seeds: one for each image.
            advance: is told how it goes on.

        Raises:
            InputError: an image is not finite, or its cost is not what was said.
        """
