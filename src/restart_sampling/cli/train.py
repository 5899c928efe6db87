"""`restart-sampling train`: a denoiser of one's own images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.logbook import Logbook, open_logbook, require_logbook
from restart_sampling.base.machine import describe_device
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_training, leaving_no_folder, print_estimate
from restart_sampling.cli.options import (
    FiniteRange,
    ProcessOptions,
    describe_source,
    json_option,
    log_option,
    print_json,
    print_settings,
    process_options,
    read_list,
)
from restart_sampling.cli.progress import ProgressBar, days_note, describe_seconds

if TYPE_CHECKING:
    import torch

    from restart_sampling.images.image_set import ImageSet
    from restart_sampling.training.run import Report, Run
    from restart_sampling.training.settings import Settings
    from restart_sampling.training.trainer import NetworkRuns

_LOGGED = ("loss", "learning_rate", "gradients_replaced", "seconds")
_HOW = {
    "plain": "",
    "compiled": ", by torch.compile (minutes before the first step)",
    "kernels": ", with kernels of this package",
}
_D = 2048  # of PFGM++ where the user gives none


@click.command(cls=Command)
@click.argument("source", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="RUN", type=click.Path(path_type=Path), help="The folder of the run.")
@click.option(
    "--parametrization",
    required=True,
    type=click.Choice(["edm", "vp", "pfgmpp"]),
    help="Noise, loss and preconditioning.",
)
@click.option("--D", "D", type=click.IntRange(1), metavar="D", help=f"Augmented dimensions of pfgmpp; default: {_D}.")
@click.option("--cond", is_flag=True, help="Train on the classes too.")
@click.option(
    "--minutes", type=FiniteRange(0, min_open=True), metavar="N", help="Train for so long, without the saves."
)
@click.option("--images", type=click.IntRange(1), metavar="N", help="Train on so many, counted with repetitions.")
@click.option(
    "--batch",
    default=512,
    show_default=True,
    type=click.IntRange(1),
    help="Images a step, of all processes together; an H100 wants 512 each.",
)
@click.option(
    "--lr",
    default=1e-3,
    show_default=True,
    type=FiniteRange(0, 1, min_open=True),
    help="Highest learning rate of Adam.",
)
@click.option(
    "--ema-images",
    default=500_000,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Half-life of the average of the weights, which is the model; at first a twentieth of the images so far.",
)
@click.option(
    "--augment",
    default=0.0,
    show_default=True,
    type=FiniteRange(0, 1),
    metavar="P",
    help="Turn, scale, stretch and shift images, each with this probability, falling to 0 along the run; the network "
    "is told, and draws plain images. For few images and long runs; EDM has 0.12. 0 is flips only.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Of all that is drawn.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the network's arithmetic; auto is bfloat16 on cuda, float32 elsewhere.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Run the network with kernels of this package where these serve, which is the default on cuda, else by "
    "torch.compile: minutes at the start, faster steps. Or run it as it is.",
)
@click.option(
    "--save-minutes",
    default=2.0,
    show_default=True,
    type=FiniteRange(0, min_open=True),
    help="Between two saves.",
)
@click.option("--channels", default=64, show_default=True, type=click.IntRange(4), help="Width of the network.")
@click.option(
    "--channel-mult", "mult_text", default="1,2,2", show_default=True, help="Multiples of it, one a resolution."
)
@click.option("--blocks", default=2, show_default=True, type=click.IntRange(1), help="Residual blocks a resolution.")
@click.option(
    "--attention", "attention_text", metavar="SIZES", help="Resolutions with attention, or none; default: 16 if there."
)
@click.option("--dropout", default=0.05, show_default=True, type=FiniteRange(0, 1, max_open=True))
@log_option
@process_options
@dry_run_option
@json_option
def train(
    source: Path,
    out: Path,
    parametrization: str,
    D: int | None,
    cond: bool,
    minutes: float | None,
    images: int | None,
    batch: int,
    lr: float,
    ema_images: int,
    augment: float,
    seed: int,
    dtype: str,
    compiled: bool | None,
    save_minutes: float,
    channels: int,
    mult_text: str,
    blocks: int,
    attention_text: str | None,
    dropout: float,
    log_kind: str | None,
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
    require_extra("matplotlib", "figures")
    require_logbook(log_kind)
    if (minutes is None) == (images is None):
        raise InputError("give either --minutes or --images: how long to train")
    if D is not None and parametrization != "pfgmpp":
        raise InputError(f"--D {D} is for --parametrization pfgmpp; {parametrization} has no augmented dimensions")
    mult = _sizes("--channel-mult", mult_text)
    attention = None if attention_text is None else _attention(attention_text)

    import torch

    from restart_sampling.images.image_set import read_images
    from restart_sampling.models.fast import start_training
    from restart_sampling.sampling.pfgmpp import augmented_dimensions
    from restart_sampling.training.run import Run, resumed
    from restart_sampling.training.run_folder import RunFolder
    from restart_sampling.training.settings import Settings
    from restart_sampling.training.training_set import count_classes, read_training_set, square_side

    with processes.ranks() as ranks, ExitStack() as held:
        if batch % ranks.size:
            raise InputError(f"--batch {batch} cannot be shared by {ranks.size} processes; give a multiple of that")
        network, dtype = _network(compiled, ranks.device, batch // ranks.size), _dtype(dtype, ranks.device)
        started = start_training(ranks.device, getattr(torch, dtype)) if network == "kernels" else None
        pictures = read_images(source)
        settings = Settings(
            parametrization=parametrization,
            D=augmented_dimensions(D or _D) if parametrization == "pfgmpp" else None,
            resolution=square_side(pictures),
            image_channels=pictures.shape[0],
            label_dim=count_classes(pictures) if cond else 0,
            channels=channels,
            channel_mult=mult,
            blocks=blocks,
            attention=attention,
            dropout=dropout,
            augment=augment,
            images=images,
            minutes=minutes,
            batch=batch,
            lr=lr,
            ema_images=ema_images,
            seed=seed,
            dtype=dtype,
            data_images=len(pictures),
        )
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
                    **describe_source(pictures.source, with_classes=cond),
                    "model": f"{settings.class_name}{f' with D={settings.D}' if settings.D else ''}, "
                    f"{parameters / 1e6:.2f} million parameters",
                    "length": f"{images} images" if minutes is None else f"{minutes:g} min",
                    "steps": f"batches of {batch}, Adam {lr:g}, seed {seed}",
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, network in {settings.dtype}"
                    f"{_HOW[network]}",
                    "out": out,
                }
            )
        with ProgressBar("images read", len(pictures), ranks.first) as advance:
            data = read_training_set(pictures, cond, ranks.device, advance)
        if started:
            started.join()
        settings = replace(settings, data_sha256=data.sha256)
        folder.check(settings.run())
        if dry_run:
            trainer, progress, _ = resumed(settings, data, folder, ranks, network=network)
            print_estimate(out, estimate_training(trainer, progress), as_json, shown=ranks.first, by="steps")
            return
        run = Run(settings, data, dataset, pictures.classes if cond else (), folder, ranks, network=network)
        if ranks.first and run.trainer.steps:
            state = "is finished, and nothing is left to do" if run.progress.finished else "goes on"
            click.echo(f"{out} {state}: it has trained on {counted(run.trainer.images, 'image')}", err=True)
        kind, begin = log_kind if ranks.first else None, run.trainer.images
        with open_logbook(kind, out, "images", settings.run(), begin) as log:
            _train(run, log, 60 * save_minutes)
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


def _sizes(option: str, text: str) -> tuple[int, ...]:
    sizes = tuple(read_list(int, text))
    if not sizes or min(sizes) < 1:
        raise InputError(f"{option} {text}: give integers from 1 with commas between them")
    return sizes


def _attention(text: str) -> tuple[int, ...]:
    return () if text == "none" else _sizes("--attention", text)


def _dtype(name: str, device: torch.device) -> str:
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"


def _network(compiled: bool | None, device: torch.device, images: int) -> NetworkRuns:
    from restart_sampling.models.fast import kernels_serve

    if compiled is not False and kernels_serve(device, images):
        return "kernels"
    return "compiled" if compiled else "plain"


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
