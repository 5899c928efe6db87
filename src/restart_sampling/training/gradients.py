"""All gradients in one tensor: summed over processes and checked for inf and nan at once."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from restart_sampling.base.ranks import Ranks


class FlatGradients:
    """Makes `parameter.grad` of each parameter a part of one tensor, laid out in memory as the parameter.

    Args:
        parameters: float32, of one device.

    Attributes:
        flat: float32, all gradients after one another.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        parameters = list(parameters)
        self.flat = torch.zeros(sum(each.numel() for each in parameters), device=parameters[0].device)
        start = 0
        for each in parameters:
            each.grad = self.flat.as_strided(each.shape, each.stride(), start)
            start += each.numel()

    def zero(self) -> None:
        """Forgets the gradients of the last step."""
        self.flat.zero_()

    def gather(self, ranks: Ranks) -> Tensor:
        """Adds up the gradients of all processes and puts 0 for those that are not finite, as one bad batch would
        otherwise end the run.

        Returns:
            How many were not finite: int64 [], on the device.
        """
        ranks.all_reduce(self.flat)
        bad = self.flat.isfinite().logical_not_().sum()
        self.flat.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return bad
