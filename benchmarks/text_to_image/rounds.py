"""The loop of the three trainings: steps until the time is over, their losses, and a file now and then."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restart_sampling.training.ema import EMA
from restart_sampling.training.schedule import ema_decay, learning_rate

ROUND = 100  # steps between two lines of the log
SAVE = 120.0  # seconds between two files, so that a run that is stopped leaves its model
CLIP = 1.0  # the longest gradient


class Rounds:
    """Makes steps until the time is over.

    Args:
        minutes: after which the training ends.
        log: file for a line of JSON a round.
        save: called with what is done so far, every few minutes and at the end.
        optimizer: of the network.
        ema: its average.
        batch: images of a step.
        lr: the highest learning rate.
        half_life: of the average, in images.
    """

    def __init__(
        self,
        minutes: float,
        log: Path,
        save: Callable[[dict[str, Any]], None],
        optimizer: torch.optim.Optimizer,
        ema: EMA[Any],
        *,
        batch: int,
        lr: float,
        half_life: int,
    ) -> None:
        self._minutes, self._log, self._save = minutes, log, save
        self._optimizer, self._ema, self._batch, self._lr, self._half_life = optimizer, ema, batch, lr, half_life
        self._values: list[dict[str, Tensor]] = []
        self._steps, self._done = 0, 0.0

    def __iter__(self) -> Iterator[float]:
        """Yields what part of the training is done, before each step."""
        begin = saved = time.monotonic()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w", encoding="utf-8") as log:
            while self._done < 1:
                yield self._done
                self._done = (time.monotonic() - begin) / (60 * self._minutes)
                if self._steps % ROUND == 0 or self._done >= 1:
                    about = self._about(self._steps, 60 * self._minutes * self._done)
                    print(json.dumps(about), file=log, flush=True)
                    if time.monotonic() - saved > SAVE or self._done >= 1:
                        self._save(about)
                        saved = time.monotonic()

    def step(self, loss: Tensor, **values: Tensor) -> None:
        """Makes a step down the loss, and keeps the values for the log, on the device."""
        parameters = [each for group in self._optimizer.param_groups for each in group["params"]]
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._done, self._lr)
        self._optimizer.step()
        self._steps += 1
        self._ema.update(ema_decay(self._steps * self._batch, self._batch, self._half_life))
        self._values.append({name: value.detach() for name, value in values.items()})

    def _about(self, steps: int, seconds: float) -> dict[str, Any]:
        means = {
            name: torch.stack([each[name] for each in self._values]).float().mean().item() for name in self._values[0]
        }
        self._values.clear()
        return {"steps": steps, "seconds": round(seconds, 1), **{name: round(means[name], 6) for name in means}}


def start(device: str | None) -> torch.device:
    """The device to train on, with fast products and convolutions."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def millions(*networks: nn.Module) -> float:
    """How many parameters networks have."""
    return round(sum(each.numel() for network in networks for each in network.parameters()) / 1e6, 3)


def replace_folder(write: Callable[[Path], Any], folder: Path) -> None:
    """Writes a folder under another name first, so that there is always a whole one."""
    new, old = (folder.with_name(f"{folder.name}.{state}") for state in ("new", "old"))
    write(new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        import shutil

        shutil.rmtree(old)
