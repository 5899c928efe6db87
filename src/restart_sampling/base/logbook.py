"""`Logbook`: values and pictures of a run, for TensorBoard or Weights & Biases."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from restart_sampling.base.errors import require_extra

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("tensorboard", "wandb")
PROJECT = "restart-sampling"
"""Of Weights & Biases, unless WANDB_PROJECT names another."""


class Logbook(Protocol):
    """What a run writes its values to; see `open_logbook`."""

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by their names, such as `train/loss`."""

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Writes a picture."""


class _Nowhere:
    """Keeps nothing."""

    def values(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, picture: Image.Image) -> None: ...


NOWHERE: Logbook = _Nowhere()


class _TensorBoard:
    """Event files in the folder `tensorboard` of a run; what another start wrote from `begin` on is hidden."""

    def __init__(self, folder: Path, config: Mapping[str, Any], begin: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=begin + 1 if begin else None)
        self.writer.add_text("settings", f"```json\n{json.dumps(config, indent=2)}\n```", begin)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        import numpy as np

        self.writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        self.writer.close()


class _Wandb:
    """A run of Weights & Biases, which a later start in the same folder goes on with."""

    def __init__(self, folder: Path, config: Mapping[str, Any], axis: str) -> None:
        import wandb

        own = folder / "wandb" / "run-id"
        if not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(uuid.uuid4().hex[:8], "utf-8")
        self.axis, self.image = axis, wandb.Image
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=own.read_text("utf-8"),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )
        self.run.define_metric("*", step_metric=axis)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({self.axis: step, **values})

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        self.run.log({self.axis: step, name: self.image(picture)})

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def require_logbook(kind: str | None) -> None:
    """Makes sure, before any work, that what a logbook needs is installed.

    Raises:
        InputError: it is not.
    """
    if kind is not None:
        require_extra(kind, kind)


@contextmanager
def open_logbook(
    kind: str | None, folder: Path, axis: str, config: Mapping[str, Any], begin: int = 0
) -> Iterator[Logbook]:
    """Opens the logbook of a run, and closes it at the end of the body.

    Args:
        kind: of `KINDS`; None: nothing is written.
        folder: of the run, where the files are.
        axis: what the steps are, such as "images".
        config: JSON, what defines the run.
        begin: the first step of this start.
    """
    if kind is None:
        yield NOWHERE
        return
    log = _Wandb(folder, config, axis) if kind == "wandb" else _TensorBoard(folder, config, begin)
    failed = True
    try:
        yield log
        failed = False
    finally:
        log.close(failed)
