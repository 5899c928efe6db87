"""The public tensors of a scheduler, one entry a row: read and moved at will, but not edited behind its back."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.model_calls import Evaluation


class RowTensors:
    """The rows of a scheduler with their `timesteps` and `sigmas`.

    diffusers makes both tensors, and they may be replaced as long as there are no rows. Then they say what the rows
    are, so an assignment of other values is an error, and so is a run on tensors that were written to.
    """

    _calls: Sequence[Evaluation] = ()
    _timesteps: Tensor
    _sigmas: Tensor

    @property
    def timesteps(self) -> Tensor:
        """What the network is told at each row, float32 [rows], on the device of set_timesteps."""
        return self._timesteps

    @timesteps.setter
    def timesteps(self, value: Tensor) -> None:
        self._assign("timesteps", value)

    @property
    def sigmas(self) -> Tensor:
        """The level of each row and the last one, float32 [rows + 1]."""
        return self._sigmas

    @sigmas.setter
    def sigmas(self, value: Tensor) -> None:
        self._assign("sigmas", value)

    def _assign(self, name: str, value: Any) -> None:
        before = getattr(self, f"_{name}", None)
        if self._calls and before is not None:
            same = isinstance(value, Tensor) and value.shape == before.shape
            if not (same and torch.equal(value.cpu(), before.cpu().to(value.dtype))):
                raise InputError(_EDITED.format(name))
        setattr(self, f"_{name}", value)
        if self._calls:
            self._keep()

    def _set_rows(self, calls: Sequence[Evaluation], times: Sequence[float], last: float, device: torch.device) -> None:
        """Makes both tensors anew."""
        self._calls = ()
        times_tensor, self._sigmas = _float32(times), _float32([*(call.level for call in calls), last])
        self._timesteps = times_tensor.to(device)
        self._calls = list(calls)
        self._kept = times_tensor.tolist(), self._sigmas.tolist()

    def _keep(self) -> None:
        self._kept = self._timesteps.tolist(), self._sigmas.tolist()

    def _check_edits(self) -> None:
        """Looks for writes into the tensors since they were made, once a run, since it waits for a device.

        torch's counts of writes would not do: they miss those through `data` and `numpy()`.

        A last level that was set to the one before it is honoured, as Cosmos 2 does it: the last step goes nowhere.

        Raises:
            InputError: other entries were written to.
        """
        times, levels = self._timesteps.tolist(), self._sigmas.tolist()
        if times != self._kept[0] or levels[:-1] != self._kept[1][:-1]:
            raise InputError(_EDITED.format("sigmas" if times == self._kept[0] else "timesteps"))
        if levels != self._kept[1]:
            if levels[-1] != levels[-2] or self._calls[-1].stage:
                raise InputError(_EDITED.format("sigmas"))
            self._calls = [*self._calls[:-1], self._calls[-1].in_vain]
        self._kept = times, levels

    def _is_at(self, row: int, timestep: float | Tensor) -> bool:
        """Tells whether a timestep is that of a row.

        An entry of `timesteps` is known by its place in memory, though others have the same value; a copy or a number
        by its value, unless a device would have to be waited for.
        """
        slack = 1e-4
        if isinstance(timestep, Tensor):
            own = self._timesteps
            if timestep.data_ptr() == own.data_ptr() + row * own.element_size():
                return True
            if timestep.untyped_storage().data_ptr() == own.untyped_storage().data_ptr():
                return False
            if timestep.device.type != "cpu" or timestep.numel() != 1:
                return True
            slack = 2 * torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
            timestep = timestep.item()
        time = self._kept[0][row]
        distance = abs(float(timestep) - time)
        if isinstance(timestep, SupportsIndex):  # also an old loop's whole timestep for one in between
            return distance < 1
        return distance <= max(slack, 1e-6) * max(abs(time), 1)

    def _row_of(self, timestep: float | Tensor) -> int:
        """Finds the row that a timestep is an entry of, or the first that begins a step at its value.

        Raises:
            InputError: there is none.
        """
        if isinstance(timestep, Tensor):
            own = self._timesteps
            if timestep.untyped_storage().data_ptr() == own.untyped_storage().data_ptr():
                return (timestep.data_ptr() - own.data_ptr()) // own.element_size()
            timestep = timestep.flatten()[0]
        return self.index_for_timestep(timestep)

    def index_for_timestep(self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None) -> int:
        """Finds the first row that begins a step at this timestep.

        Raises:
            InputError: there is none.
        """
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        rows: list[int] = (schedule == float(timestep)).nonzero().flatten().tolist()
        if not rows:
            raise InputError(
                f"{float(timestep):g} is not one of the scheduler's timesteps; pass one of them, not an index"
            )
        return next((row for row in rows if not (self._calls and self._calls[row].stage)), rows[0])


_EDITED = (
    "scheduler.{} was edited after set_timesteps, which the rows of a path with restarts do not follow; pass other "
    "levels to set_timesteps(sigmas=...) or set_timesteps(timesteps=...)"
)


def _float32(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")  # whatever the user's defaults are
