"""`Run`: trains from where a run stopped to its end, in rounds of steps, and saves now and then."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isnan
from pathlib import Path
from typing import Any

import torch

from restart_sampling.base.errors import InputError, one_line
from restart_sampling.base.numbers import is_finite, is_whole
from restart_sampling.training.model_file import write_model
from restart_sampling.training.previews import draw_samples, plot_loss
from restart_sampling.training.progress import Progress
from restart_sampling.training.run_folder import RunFolder
from restart_sampling.training.schedule import learning_rate
from restart_sampling.training.trainer import Trainer, steps_in_memory, steps_of_training

REPORT_SECONDS = 30.0
PATIENCE = 3.0
"""Seconds after a Ctrl-C, in which it can save, before another ends it at once."""


@dataclass(frozen=True)
class Report:
    """How far a run is.

    Attributes:
        images: trained on so far.
        loss: mean since the last report; nan where there was no step.
        images_per_second: in the last round; None until it is known.
        seconds: of training so far.
        seconds_left: an estimate; None until it is known.
        saving: whether a save follows, with its pictures.
    """

    images: int
    loss: float
    images_per_second: float | None
    seconds: float
    seconds_left: float | None
    saving: bool


class Run:
    """A training run in its folder.

    Args:
        trainer: new, with its images. Of its processes all do the same, and the first one writes.
        dataset: what the data is, in words, for the file of the model.
        classes: names of the classes, or ().
        folder: checked for this run.

    Raises:
        InputError: as `resume`.
    """

    def __init__(self, trainer: Trainer, dataset: str, classes: tuple[str, ...], folder: RunFolder) -> None:
        self.trainer, self.settings, self.ranks, self.folder = trainer, trainer.settings, trainer.ranks, folder
        self._dataset, self._classes = dataset, classes
        self.progress, self.history = resume(trainer, folder)
        self._earlier = folder.earlier_lengths(self.settings.run())
        if self.ranks.first:
            folder.begin(self.settings.run())

    def train(
        self, save_seconds: float, report: Callable[[Report], None], saved: Callable[[], None] = lambda: None
    ) -> None:
        """Trains to the end of the run. Ctrl-C ends it after the round, when the state is saved; a second one at once.

        Args:
            save_seconds: between two saves; the first step, which may compile, is before that.
            report: called on the first process after its first step, every `REPORT_SECONDS` and before each save.
            saved: called there after each save, with its pictures.

        Raises:
            InputError: the loss is no longer finite.
            KeyboardInterrupt: there was a Ctrl-C.
        """
        saved_at = reported_at = None
        reported = len(self.history)
        with steps_of_training(self.ranks.device), _interrupts() as interrupts:
            if self.progress.finished and self.ranks.first and not self._samples.exists():
                self._draw()  # the run was ended between its last state and its pictures
            while not self.progress.finished:
                stopped = self._round(bool(interrupts))
                if stopped:
                    if self.ranks.first:
                        self._save(pictures=False)
                    raise KeyboardInterrupt
                if not self.ranks.first:
                    continue
                now = time.perf_counter()
                saved_at = saved_at or now
                saving = self.progress.finished or now - saved_at >= save_seconds
                if saving or reported_at is None or now - reported_at >= REPORT_SECONDS:
                    report(self._report(reported, saving))
                    reported_at, reported = now, len(self.history)
                if saving:
                    self._save()
                    saved_at = time.perf_counter()
                    saved()

    def _round(self, interrupted: bool) -> bool:
        """Takes the steps of a round; returns whether a process was interrupted before it, as all of them learn."""
        start = time.perf_counter()
        parts = self.progress.next_round()
        for part in parts:
            self.trainer.step(part)
        figures = self.trainer.end_round()
        if isnan(figures.loss):
            raise InputError(
                f"the loss is not finite after {self.trainer.images} images; what {self.folder.path} holds was saved "
                f"before that; lower --lr (it is {self.settings.lr:g}) in a run with another --out"
            )
        seconds, stopped = self._agreed(time.perf_counter() - start, interrupted)
        self.progress.advance(len(parts), seconds)
        self.history.append(
            {
                "images": self.trainer.images,
                "loss": figures.loss,
                "learning_rate": learning_rate(parts[-1], self.settings.lr),
                "gradients_replaced": figures.gradients_replaced,
                "seconds": round(self.progress.seconds, 3),
            }
        )
        return stopped > 0

    def _agreed(self, seconds: float, interrupted: bool) -> list[float]:
        """Returns the first process's seconds, and how many were interrupted, on all: what follows has to be the same.

        The seconds of the others include the time that they wait for the first one's saves.
        """
        own = seconds if self.ranks.first else 0.0, float(interrupted)
        shared = torch.tensor(own, dtype=torch.float32, device=self.ranks.device)
        self.ranks.all_reduce(shared)
        return shared.tolist()

    def _save(self, pictures: bool = True) -> None:
        folder, ema = self.folder, self.trainer.ema.model
        write_model(ema, self.settings, self.trainer.images, self._dataset, self._classes, folder.model, self._earlier)
        folder.save_history(self.history)
        folder.save_state({"trainer": self.trainer.state(), "seconds": self.progress.seconds, "history": self.history})
        if pictures:
            self._draw()

    def _draw(self) -> None:
        folder = self.folder
        try:
            draw_samples(self.trainer.ema.model, self._samples)
            plot_loss(self.history, folder.path / "loss.png")
        except Exception as error:  # whatever it is, a picture must not cost a run of hours
            warnings.warn(f"the run goes on without a picture in {folder.path} ({one_line(error)})", stacklevel=2)

    @property
    def _samples(self) -> Path:
        """The picture of the images so far."""
        return self.folder.path / f"samples-{self.trainer.images}.png"

    def _report(self, since: int, saving: bool) -> Report:
        losses = [line["loss"] for line in self.history[since:]]
        pace = self.progress.pace
        return Report(
            self.trainer.images,
            sum(losses) / len(losses) if losses else float("nan"),
            None if pace is None else self.settings.batch / pace,
            self.progress.seconds,
            self.progress.seconds_left(),
            saving,
        )


def resume(trainer: Trainer, folder: RunFolder) -> tuple[Progress, list[Mapping[str, Any]]]:
    """Has a new trainer go on where the run in a folder stopped; writes nothing.

    Returns:
        How far it is, and its losses.

    Raises:
        InputError: the saved state is damaged or does not fit in memory, or another process has other images or another
            state.
    """
    settings = trainer.settings
    progress = Progress(
        None if settings.images is None else ceil(settings.images / settings.batch),
        None if settings.minutes is None else 60 * settings.minutes,
    )
    history: list[Mapping[str, Any]] = []
    with steps_in_memory(settings):
        if state := folder.load_state(trainer.ranks.device):
            try:
                trainer.load_state(state["trainer"])
                progress.steps, progress.seconds, history = trainer.steps, state["seconds"], state["history"]
                _check_progress(trainer, progress, history)
            except (MemoryError, torch.OutOfMemoryError):  # of which the file knows nothing
                raise
            except Exception as error:  # what is missing or of another run can fail in any way
                raise folder.damaged_state(error) from error
    # On other machines a path may lead to other files; each process would learn by itself, and go on from elsewhere.
    trainer.ranks.agree({**settings.run(), "steps_so_far": trainer.steps, "seconds_so_far": progress.seconds})
    return progress, history


def _check_progress(trainer: Trainer, progress: Progress, history: list[Mapping[str, Any]]) -> None:
    whole = is_whole(progress.steps) and is_finite(progress.seconds) and progress.seconds >= 0
    losses = isinstance(history, list) and all(is_whole(line["images"]) and is_finite(line["loss"]) for line in history)
    if not (whole and losses and history and history[-1]["images"] == trainer.images):
        raise InputError("its steps, seconds and losses are not those of one run")


@contextmanager
def _interrupts() -> Iterator[list[float]]:
    """Collects the times of Ctrl-C; one raises KeyboardInterrupt if another was more than `PATIENCE` before it.

    Under torchrun a process gets two at a time, from the terminal and from torchrun.
    """
    times: list[float] = []

    def note(*_: object) -> None:
        if times and time.monotonic() - times[0] > PATIENCE:
            raise KeyboardInterrupt
        times.append(time.monotonic())

    if threading.current_thread() is not threading.main_thread():  # which alone learns of signals
        yield times
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield times
    finally:
        signal.signal(signal.SIGINT, before)
