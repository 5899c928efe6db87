"""`Trainer`: one training step after another, and the state from which they go on later."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from restart_sampling.base.errors import one_line
from restart_sampling.base.numerics import full_float32, state_dtype
from restart_sampling.base.ranks import Ranks
from restart_sampling.models.fast import fuse_training
from restart_sampling.training.batches import Batch, draw_batch, network_seed
from restart_sampling.training.ema import EMA
from restart_sampling.training.gradients import FlatGradients
from restart_sampling.training.graphed import GraphedStep
from restart_sampling.training.losses import PARAMETRIZATIONS, weighted_error
from restart_sampling.training.memory import in_memory
from restart_sampling.training.schedule import augmentation, ema_decay, learning_rate
from restart_sampling.training.settings import Settings
from restart_sampling.training.training_set import TrainingSet, blank_set

NetworkRuns = Literal["plain", "compiled", "kernels"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """Values of a few steps, the same on all processes.

    Attributes:
        loss: mean over the steps and processes whose loss is finite; nan where none is.
        gradients_replaced: how many gradients were not finite, and became 0.
    """

    loss: float
    gradients_replaced: int


@contextmanager
def steps_of_training(device: torch.device) -> Iterator[None]:
    """Has torch compute as steps of training are to, and leaves it as it was, with its global generators."""
    with _own_random(device), torch.backends.cudnn.flags(enabled=True, benchmark=True), full_float32():
        yield


def _own_random(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


class Trainer:
    """A denoiser in training: its weights, their average, and the optimiser.

    Args:
        settings: of the run.
        data: to train on, on the device of the ranks; None until `use`.
        ranks: the processes; all take the same steps.
        network: how it runs: as it is, by torch.compile, or with kernels of the package. The last two have CUDA graphs,
            as the host is slower than the device.

    Attributes:
        steps: taken so far.
        ema: the average, which is the model to keep.
    """

    def __init__(
        self, settings: Settings, data: TrainingSet | None, ranks: Ranks, *, network: NetworkRuns = "plain"
    ) -> None:
        self.settings, self.ranks = settings, ranks
        shape = settings.image_channels, settings.resolution, settings.resolution
        self.data = data or blank_set(shape, settings.label_dim > 0, ranks.device)
        self.steps = 0
        with _own_random(ranks.device):
            torch.manual_seed(settings.seed)
            self._model = settings.build()
        self._model.to(ranks.device)
        cuda = ranks.device.type == "cuda"
        if cuda:  # its convolutions are faster on this layout
            self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss = PARAMETRIZATIONS[settings.parametrization].loss(self._model)
        self.ema = EMA(self._model)
        self._gradients = FlatGradients(self._model.parameters())
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=settings.lr, fused=cuda)
        self._gradients_of: Callable[[Batch], Tensor] = self._learn
        if network == "kernels" and _fused(self._model.model, getattr(torch, settings.dtype)):
            self._gradients_of = GraphedStep(self._learn)
        elif network == "compiled":
            # In place, so that the names of the weights stay.
            self._model.model.compile(dynamic=False, mode="reduce-overhead" if cuda else None)
        # Sums over the steps of a round stay on the device: reading one would wait for it.
        self._loss_sum, self._finite, self._replaced = (
            torch.zeros((), dtype=state_dtype(ranks.device), device=ranks.device) for _ in range(3)
        )

    @property
    def images(self) -> int:
        """Trained on so far, by all processes."""
        return self.steps * self.settings.batch

    def prepare(self) -> None:
        """Loads and captures what a step as a CUDA graph needs, which takes seconds; the steps are the same without."""
        if isinstance(self._gradients_of, GraphedStep):
            with torch.cuda.device(self.ranks.device), steps_of_training(self.ranks.device):
                self._gradients_of.capture(self._batch(0.0))
            import_module("torch._dynamo")  # by the optimiser

    def use(self, data: TrainingSet) -> None:
        """Trains on these images from now on."""
        self.data = data
        self.settings = replace(self.settings, data_sha256=data.sha256)

    def step(self, progress: float) -> None:
        """Updates the weights and their average once; does not wait for the device.

        Args:
            progress: part of the run that is done, which the learning rate and the augmentation follow.

        Raises:
            InputError: it does not fit in memory.
        """
        settings, ranks = self.settings, self.ranks
        torch.manual_seed(network_seed(settings.seed, self.steps, ranks.rank))
        with steps_in_memory(settings):
            loss = self._gradients_of(self._batch(progress))
            self._replaced += self._gradients.gather(ranks)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(progress, settings.lr)
            self._optimizer.step()
        self.steps += 1
        self.ema.update(ema_decay(self.images, settings.batch, settings.ema_images))
        self._count(loss)

    def _batch(self, progress: float) -> Batch:
        settings, ranks = self.settings, self.ranks
        return draw_batch(
            self.data,
            self._loss,
            settings.D,
            seed=settings.seed,
            step=self.steps,
            size=settings.batch,
            augment=augmentation(progress, settings.augment) if settings.augment else None,
            rank=ranks.rank,
            ranks=ranks.size,
        )

    def _learn(self, batch: Batch) -> Tensor:
        """Computes the gradients of this process's share of a batch, and returns its loss."""
        # Autocast changes the network's products only: the preconditioning has none, and stays float32.
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16"):
            errors = weighted_error(
                self._model, self._loss, batch.images, batch.sigma, batch.noise, batch.labels, batch.augment_labels
            )
        loss = errors.mean()
        self._gradients.zero()
        torch.autograd.backward(loss / self.ranks.size)
        return loss.detach()

    def _count(self, loss: Tensor) -> None:
        finite = loss.isfinite()
        self._loss_sum += torch.where(finite, loss, 0)
        self._finite += finite

    def end_round(self) -> Round:
        """Waits for the device and returns the values since the last call."""
        sums = torch.stack([self._loss_sum, self._finite, self._replaced / self.ranks.size])
        self.ranks.all_reduce(sums)
        loss, finite, replaced = sums.tolist()
        for each in (self._loss_sum, self._finite, self._replaced):
            each.zero_()
        return Round(loss / finite if finite else float("nan"), round(replaced))

    def state(self) -> dict[str, Any]:
        """Returns all that the next steps depend on: tensors, numbers and texts."""
        return {
            "steps": self.steps,
            "network": self._model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.steps = state["steps"]
        self._model.load_state_dict(state["network"])
        self.ema.model.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])


def early_trainer(settings: Settings, ranks: Ranks, network: NetworkRuns) -> Trainer:
    """Makes a prepared trainer before there are images; it may be used in another thread than this one.

    Raises:
        InputError: it does not fit in memory.
    """
    with steps_in_memory(settings):
        trainer = Trainer(settings, None, ranks, network=network)
        trainer.prepare()
    return trainer


def steps_in_memory(settings: Settings) -> AbstractContextManager[None]:
    """Says of a body that finds too little memory for a training run that it does; see `in_memory`."""
    return in_memory(
        f"training with --batch {settings.batch} and --channels {settings.channels}", "give less of either"
    )


def _fused(network: nn.Module, dtype: torch.dtype) -> bool:
    """Has a network run with the kernels of the package; returns whether they could be compiled."""
    try:
        fuse_training(network, dtype)
    except Exception as error:  # a machine without a C compiler, and whatever else a compiler meets
        _log.warning(f"the kernels of this package cannot be compiled here ({one_line(error)}); going on without")
        return False
    return True
