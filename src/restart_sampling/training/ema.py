"""The exponential moving average of the weights, which is the model that a run makes."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class EMA(Generic[Network]):
    """The average of a model's weights over the steps.

    Args:
        model: that is trained; the average begins as its copy.

    Attributes:
        model: the average, in eval mode, without gradients.
    """

    def __init__(self, model: Network) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self._weights: list[Tensor] = list(self.model.parameters())
        self._trained = [weight.detach() for weight in model.parameters()]

    def update(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * weights."""
        torch._foreach_lerp_(self._weights, self._trained, 1 - decay)
