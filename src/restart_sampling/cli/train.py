"""`restart-sampling train`: a denoiser of one's own images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.logbook import Logbook, open_logbook
from restart_sampling.base.machine import describe_device
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_training, leaving_no_folder, print_estimate
from restart_sampling.cli.options import (
    ProcessOptions,
    describe_source,
    json_option,
    print_json,
    print_settings,
    process_options,
)
from restart_sampling.cli.progress import ProgressBar, days_note, describe_seconds
from restart_sampling.cli.train_options import TrainOptions, train_options

if TYPE_CHECKING:
    from restart_sampling.images.image_set import ImageSet
    from restart_sampling.training.run import Report, Run
    from restart_sampling.training.settings import Settings

_LOGGED = ("loss", "learning_rate", "gradients_replaced", "seconds")
_HOW = {
    "plain": "",
    "compiled": ", by torch.compile (minutes before the first step)",
    "kernels": ", with kernels of this package",
}


@click.command(cls=Command)
@click.argument("source", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="RUN", type=click.Path(path_type=Path), help="The folder of the run.")
@train_options
@process_options
@dry_run_option
@json_option
def train(
    source: Path,
    out: Path,
    asked: TrainOptions,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train a denoiser on square images of one size. DATA is a folder, a zip or a tar.

    \b
      restart-sampling train cifar10-32x32.zip --out run --parametrization edm --cond --minutes 15
      torchrun --standalone --nproc_per_node=2 -m restart_sampling train cifar10-32x32.zip \\
          --out run --parametrization pfgmpp --D 128 --images 20000000

    RUN gets model.safetensors, which all commands read, samples and the curve of the loss, anew at each save. The same
    command goes on where the run stopped (Ctrl-C saves first), and with more minutes or images it extends the run.
    """
    asked.check()

    import torch

    from restart_sampling.images.image_set import read_images
    from restart_sampling.models.fast import compile_for_training
    from restart_sampling.training.run import Run, resume
    from restart_sampling.training.run_folder import RunFolder
    from restart_sampling.training.trainer import early_trainer
    from restart_sampling.training.training_set import read_training_set

    # In a thread goes on what needs no images, one after another: torch is not made for two that load its parts.
    with processes.ranks() as ranks, ExitStack() as held, ThreadPoolExecutor(1) as beside:
        network, dtype = asked.network(ranks), getattr(torch, asked.dtype_on(ranks.device))
        if network == "kernels":
            beside.submit(compile_for_training, ranks.device, dtype)  # the trainer meets its errors
        pictures = read_images(source)
        settings = asked.settings(pictures, ranks.device)
        parameters = settings.check_network()
        folder = RunFolder(out)
        if dry_run:
            held.enter_context(leaving_no_folder(out))
        elif ranks.first:
            held.enter_context(folder.claimed(settings.run()))
        ranks.wait()
        folder.check(settings.run())  # before the images are read, and once more when their hash is known
        dataset = _describe(pictures, settings)
        if ranks.first:
            print_settings(
                {
                    "data": dataset,
                    **describe_source(pictures.source, with_classes=asked.cond),
                    "model": f"{settings.class_name}{f' with D={settings.D}' if settings.D else ''}, "
                    f"{parameters / 1e6:.2f} million parameters",
                    "length": f"{asked.images} images" if asked.minutes is None else f"{asked.minutes:g} min",
                    "steps": f"batches of {asked.batch}, Adam {asked.lr:g}, seed {asked.seed}",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, network in {settings.dtype}"
                    f"{_HOW[network]}",
                    "out": out,
                }
            )
        making = beside.submit(early_trainer, settings, ranks, network)
        with ProgressBar("images read", len(pictures), ranks.first) as advance:

            def read(count: int) -> None:
                advance(count)
                if making.done():
                    making.result()  # raises its error, which need not wait for the last image

            data = read_training_set(pictures, asked.cond, ranks.device, read)
        trainer = making.result()
        trainer.use(data)
        folder.check(trainer.settings.run())
        if dry_run:
            progress, _ = resume(trainer, folder)
            print_estimate(out, estimate_training(trainer, progress), as_json, shown=ranks.first, by="steps")
            return
        run = Run(trainer, dataset, pictures.classes if asked.cond else (), folder)
        if ranks.first and run.trainer.steps:
            state = "is finished, and nothing is left to do" if run.progress.finished else "goes on"
            click.echo(f"{out} {state}: it has trained on {counted(run.trainer.images, 'image')}", err=True)
        kind, begin = asked.log_kind if ranks.first else None, run.trainer.images
        with open_logbook(kind, out, "images", run.settings.run(), begin) as log:
            _train(run, log, 60 * asked.save_minutes)
        if ranks.first:
            click.echo(f"model: {folder.model}", err=True)
            if as_json:
                print_json(
                    {
                        "images": run.trainer.images,
                        "loss": run.history[-1]["loss"],
                        "seconds": round(run.progress.seconds, 3),
                        "parameters": parameters,
                        "model": str(folder.model),
                    }
                )


def _describe(pictures: ImageSet, settings: Settings) -> str:
    side = settings.resolution
    colours = "grey" if settings.image_channels == 1 else "RGB"
    classes = f", {counted(settings.label_dim, 'class')}" if settings.label_dim else ""
    augmented = f", augmentation {settings.augment:g} falling to 0" if settings.augment else ""
    shape = f"{counted(len(pictures), 'image')} of {side}x{side}, {colours}{classes}"
    return f"{pictures.source.path.name}, {shape}, random flips{augmented}"


def _train(run: Run, log: Logbook, save_seconds: float) -> None:
    """Trains, and tells the user and the logbook how it goes on."""
    note = ""
    with _logged(run, log) as write:

        def report(how: Report) -> None:
            nonlocal note
            _print_report(how)
            if how.seconds_left is not None and not note and (note := days_note(how.seconds_left)):
                click.echo(note, err=True)
            write()

        run.train(save_seconds, report, write)


@contextmanager
def _logged(run: Run, log: Logbook) -> Iterator[Callable[[], None]]:
    """Yields a function that writes to the logbook what is new in a run; also called at the end, however it comes."""
    from PIL import Image

    done, pictured = len(run.history), run.trainer.images

    def write() -> None:
        nonlocal done, pictured
        for line in run.history[done:]:
            log.values(line["images"], {f"train/{name}": line[name] for name in _LOGGED})
        done = len(run.history)
        samples = run.folder.path / f"samples-{run.trainer.images}.png"
        if samples.exists() and pictured < run.trainer.images:
            pictured = run.trainer.images
            with Image.open(samples) as picture:
                log.picture(run.trainer.images, "samples", picture)

    try:
        yield write
    finally:
        write()


def _print_report(report: Report) -> None:
    speed = "" if report.images_per_second is None else f", {report.images_per_second:.0f} images a second"
    left = "" if report.seconds_left is None else f", {describe_seconds(report.seconds_left)} left"
    saving = "; saving it, and drawing samples" * report.saving
    click.echo(f"{counted(report.images, 'image')}, loss {report.loss:.4f}{speed}{left}{saving}", err=True)
